"""Compares what prompts were trained on with what they are evaluated on.

Nothing in the numbers shows that a prompt was tested on its own training pictures, or that its
training classes are not the base half. No picture is left out here: the set gets a note, which the
command, the tables and the report show.
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
        taken: for each prompt's name the real paths (`os.path.realpath`) of its pictures.
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
        learned: for each prompt's name the names of the classes that it was learned on.
    """
    bases = [result_set for _, result_set in walk.result_sets() if result_set.part == "base"]
    if not bases:
        return walk
    half = {fold(name): name for name in bases[0].classes}
    notes = []
    for prompt, classes in learned.items():
        own = {fold(name): name for name in classes}
        beyond = [name for key, name in own.items() if key not in half]
        lacking = [name for key, name in half.items() if key not in own]
        parts = [("with", beyond), ("without", lacking)]
        which = " and ".join(f"{word} {some(names)}" for word, names in parts if names)
        if which:
            notes.append(
                f'the prompt "{prompt}" was not learned on the base classes of this set, but '
                f"{which}, so base and new mean nothing for what starts from it."
            )
    return replace(walk, notes=(*walk.notes, *notes))
