"""predictions.jsonl: where it may be, what it has to hold to be gone on with, what is told."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.errors import MethodError, OutputError
from tpt.evaluate.predictions import (
    WalkProgress,
    begin,
    claim_folder,
    drop_begun,
    find_done,
    open_folder,
    write_predictions,
)
from tpt.evaluate.walks import Walk, plan_walks

SETTINGS: dict[str, Any] = {"model": "tiny", "seed": 0, "methods": [], "sets": []}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_walks(*names: str, source: str = "") -> tuple[Walk, ...]:
    samples = tuple(Sample(f"{n}.png", n % 2, source) for n in range(3))
    sets = [LabelledSet(n, "folders", n, ("a", "b"), ("a", "b"), samples) for n in names]
    return plan_walks(sets)


def write_lines(walks: tuple[Walk, ...], failed: frozenset[str] = frozenset()) -> list[int]:
    """Write the lines of walks; where each ends."""
    ends = []
    with write_predictions("predictions.jsonl") as write:
        for walk in walks:
            for sample in walk.set.samples:
                rest: dict[str, Any] = {"methods": {}}
                if sample.key in failed:
                    rest = {"error": {"type": "ImageError", "message": ""}}
                write({"set": walk.set.name, "key": sample.key, **rest})
                ends.append(os.path.getsize("predictions.jsonl"))
    return ends


# --- the folder ---


def test_a_folder_is_made_when_there_is_a_run_to_keep_and_not_before() -> None:
    journal, walks = open_folder("new/out", resume=False, overwrite=False), make_walks("one")
    assert not Path("new").exists()
    with claim_folder(journal, walks, False, False):
        assert begin(journal, {"seed": 0}, {}, walks, resume=False) == [WalkProgress()]
    assert sorted(os.listdir("new/out")) == ["predictions.jsonl.settings.json"]


def test_a_new_folder_goes_again_if_nothing_came_of_it_and_one_that_was_there_stays() -> None:
    os.mkdir("old")
    for name in ("new", "old"):
        journal = open_folder(name, resume=False, overwrite=False)
        with claim_folder(journal, make_walks("one"), False, False):
            assert os.listdir(name) == [".tpt-predictions.jsonl.lock"]
    assert os.listdir() == ["old"]
    assert os.listdir("old") == []


def test_a_run_that_came_between_is_not_lost() -> None:
    journal = open_folder(".", resume=False, overwrite=False)
    write_lines(make_walks("one"))
    claim = claim_folder(journal, make_walks("two"), False, False)
    with pytest.raises(OutputError, match="exists already"), claim:
        pass


def test_a_dry_run_does_not_ask_whether_the_folder_can_be_made() -> None:
    Path("file").touch()
    with pytest.raises(OutputError, match="is no folder"):
        open_folder("file/out", resume=False, overwrite=False)
    open_folder("file/out", resume=False, overwrite=False, dry=True)
    with pytest.raises(OutputError, match='The output "file" is a file'):
        open_folder("file", resume=False, overwrite=False, dry=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_is_closed_to_the_user_is_refused() -> None:
    os.mkdir("closed", 0o500)
    with pytest.raises(OutputError, match="not open to this user"):
        open_folder("closed/out", resume=False, overwrite=False)


def test_a_begun_folder_is_left_alone_unless_asked() -> None:
    write_lines(make_walks("one"))
    with pytest.raises(OutputError, match="exists already"):
        open_folder(".", resume=False, overwrite=False)
    with pytest.raises(MethodError, match="Give one of them"):
        open_folder(".", resume=True, overwrite=True)
    journal = open_folder(".", resume=False, overwrite=True)
    begin(journal, {"seed": 0}, {}, make_walks("one"), resume=False)
    assert not journal.is_begun


def test_results_of_the_earlier_run_go_when_it_is_started_again() -> None:
    walks = make_walks("one")
    journal = open_folder("out", False, False)
    os.mkdir("out")
    begin(journal, SETTINGS, {}, walks, False)
    Path(journal.path).write_text("{}\n")
    for name in ("results.json", "report.html", "mine.txt"):
        Path("out", name).write_text("old")
    begin(journal, SETTINGS, {}, walks, False)
    assert sorted(os.listdir("out")) == [
        *("mine.txt", "predictions.jsonl", "predictions.jsonl.settings.json")
    ]


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(MethodError, match=r"--output is empty: .* --output \. for this one"):
        open_folder("", False, False)


def test_a_folder_inside_a_set_of_files_is_refused_but_beside_arrays_it_may_be() -> None:
    os.makedirs("one/cat")
    journal, walks = open_folder("one/out", resume=False, overwrite=False), make_walks("one")
    claim = claim_folder(journal, walks, False, False)
    with pytest.raises(OutputError, match='The output "one/out" lies in the set "one"'), claim:
        pass
    assert os.listdir("one") == ["cat"]
    (walk,) = make_walks("one", source=None)  # type: ignore[arg-type]  # in an array, say
    with claim_folder(journal, [walk], False, False):
        pass
    beside = open_folder("one-out", resume=False, overwrite=False)
    with claim_folder(beside, walks, False, False):
        pass


# --- what is done ---


def test_what_is_done_is_counted_by_walk() -> None:
    walks = make_walks("one", "two")
    ends = write_lines(walks, failed=frozenset({"1.png"}))
    assert find_done("predictions.jsonl", walks) == [
        WalkProgress(3, 1, 0, complete=True),
        WalkProgress(3, 1, ends[2], complete=True),
    ]
    os.truncate("predictions.jsonl", ends[4] - 1)
    whole, begun = find_done("predictions.jsonl", walks)
    assert (whole, begun) == (
        WalkProgress(3, 1, 0, complete=True),
        WalkProgress(1, 0, ends[2], complete=False),
    )
    assert os.path.getsize("predictions.jsonl") == ends[3]  # the broken line is gone
    assert drop_begun("predictions.jsonl", whole) is whole
    assert drop_begun("predictions.jsonl", begun) == WalkProgress(start=ends[2])
    assert os.path.getsize("predictions.jsonl") == ends[2]


def test_lines_that_cannot_be_taken_away_are_told() -> None:
    with pytest.raises(OutputError, match='written to "out": No such file'):
        drop_begun("out", WalkProgress(lines=1))


def test_lines_of_other_pictures_are_refused_and_stay() -> None:
    write_lines(make_walks("one", "two"))
    before = Path("predictions.jsonl").read_bytes()
    for walks, told in (
        (make_walks("one"), "more lines than these pictures make"),
        (make_walks("two", "one"), "line 1, '0.png' of 'one'"),
    ):
        with pytest.raises(OutputError) as refused:
            find_done("predictions.jsonl", walks)
        assert told in str(refused.value)
    assert Path("predictions.jsonl").read_bytes() == before


def test_a_run_goes_on_with_the_settings_it_was_begun_with() -> None:
    walks = make_walks("one")
    journal = open_folder(".", resume=True, overwrite=False)
    begin(journal, SETTINGS, {"device": "cpu"}, walks, resume=True)
    write_lines(walks)
    (done,) = begin(journal, SETTINGS, {"device": "cuda"}, walks, resume=True)
    assert done.complete
    with pytest.raises(OutputError) as refused:
        begin(journal, {**SETTINGS, "seed": 1}, {}, walks, resume=True)
    assert "with other settings or pictures (seed; seed was 0, now 1)" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pictures": 3}, "set set: 1,200 pictures then, 3 now"),
        ({"sha256": "b"}, "set set: its pictures have other names or other classes"),
        (
            {"heads": [{"name": "set", "classes": ["cat", "cup"]}]},
            "set set: classes now without dog and with cup",
        ),
    ],
)
def test_what_differs_of_a_set_is_told_in_its_own_words(changes: dict[str, Any], told: str) -> None:
    result_sets = [{"name": "set", "classes": ["cat", "dog"]}]
    before = {"name": "set", "pictures": 1200, "sha256": "a", "heads": result_sets}
    walks, journal = make_walks("one"), open_folder(".", resume=True, overwrite=False)
    begin(journal, {"sets": [before]}, {}, walks, resume=False)
    write_lines(walks)
    with pytest.raises(OutputError, match=re.escape(f"({told})")):
        begin(journal, {"sets": [before | changes]}, {}, walks, resume=True)
