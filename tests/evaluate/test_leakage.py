"""What a prompt was learned on is held against what it is evaluated on, and told."""

from __future__ import annotations

import os
from pathlib import Path

from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.evaluate.leakage import find_leakage, note_halves
from tpt.evaluate.walks import plan_walks

CLASSES = ("ant", "bee", "cat", "dog")


def make_set(folder: str) -> LabelledSet:
    keys = [f"{name}/{number}.png" for name in CLASSES for number in range(2)]
    samples = tuple(Sample(key, place // 2, f"{folder}/{key}") for place, key in enumerate(keys))
    return LabelledSet("zoo", "folders", folder, CLASSES, CLASSES, samples, notes=("old",))


def test_pictures_that_a_prompt_learned_from_are_a_note_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "zoo")
    taken = frozenset(os.path.realpath(tmp_path / f"zoo/ant/{n}.png") for n in (0, 1, 7))
    found = find_leakage(make_set(str(tmp_path / "link")), {"coop": taken, "other": frozenset()})
    assert found.notes == (
        "old",
        'The prompt "coop" learned from 2 of these 8 pictures, so what starts from it looks '
        "better here than it is.",
    )


def test_a_set_that_no_prompt_has_seen_has_no_note(tmp_path: Path) -> None:
    whole = make_set(str(tmp_path))
    assert find_leakage(whole, {}) is whole
    assert find_leakage(whole, {"coop": {"/elsewhere/0.png"}}).notes == ("old",)


def test_a_prompt_of_the_base_half_is_what_the_protocol_asks_for() -> None:
    (walk,) = plan_walks([make_set("zoo")], halves=True)
    assert note_halves(walk, {"coop": ("Bee", "ant")}).notes == ()


def test_a_prompt_of_other_classes_than_the_base_half_is_a_note() -> None:
    (walk,) = plan_walks([make_set("zoo")], halves=True)
    notes = note_halves(walk, {"all": CLASSES, "new": ("cat", "dog")}).notes
    assert [note.partition(", so base")[0] for note in notes] == [
        'the prompt "all" was not learned on the base classes of this set, but with cat, dog',
        'the prompt "new" was not learned on the base classes of this set, but with cat, dog and '
        "without ant, bee",
    ]


def test_without_halves_it_is_no_matter_which_classes_a_prompt_knows() -> None:
    (walk,) = plan_walks([make_set("zoo")])
    assert note_halves(walk, {"coop": ("car",)}) is walk
