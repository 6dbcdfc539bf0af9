"""What prompts were learned on, held against what they are evaluated on.

A prompt that is tested on the pictures, or among the halves of the classes, that it was learned on
gives numbers that look like any others. Nothing is left out here: what a reader has to know becomes
a note of the set, which the command, the tables and the report tell.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace

from tpt.data.labelled_sets import LabelledSet
from tpt.evaluate.walks import Walk
from tpt.text import fold, some


def find_leakage(read: LabelledSet, taken: Mapping[str, Collection[str]]) -> LabelledSet:
    """The set, with a note for each prompt that learned from some of its pictures.

    Args:
        taken: by the name of a prompt the real paths (`os.path.realpath`) of its pictures.
    """
    if not any(taken.values()):
        return read
    paths = [os.path.realpath(x.source) for x in read.samples if isinstance(x.source, str)]
    notes = []
    for name, pictures in taken.items():
        seen = sum(path in pictures for path in paths)
        if seen:
            notes.append(
                f'The prompt "{name}" learned from {seen:,} of these {len(read.samples):,} '
                "pictures, so what starts from it looks better here than it is."
            )
    return replace(read, notes=(*read.notes, *notes))


def note_halves(walk: Walk, learned: Mapping[str, Collection[str]]) -> Walk:
    """The walk, with a note for each prompt that was learned on other classes than its base half.

    Args:
        walk: through a set whose classes are halved, or not.
        learned: by the name of a prompt the names of the classes that it was learned on.
    """
    base = next(
        (result_set for _, result_set in walk.result_sets() if result_set.part == "base"), None
    )
    if base is None:
        return walk
    half = {fold(name): name for name in base.classes}
    notes = []
    for prompt, classes in learned.items():
        own = {fold(name): name for name in classes}
        beyond = [name for key, name in own.items() if key not in half]
        lacking = [name for key, name in half.items() if key not in own]
        if beyond or lacking:
            which = [f"with {some(beyond)}"] * bool(beyond) + [f"without {some(lacking)}"] * (
                bool(lacking)
            )
            notes.append(
                f'the prompt "{prompt}" was not learned on the base classes of this set, but '
                f"{' and '.join(which)}, so base and new mean nothing for what starts from it."
            )
    return replace(walk, notes=(*walk.notes, *notes))
