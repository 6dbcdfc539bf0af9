"""predictions.jsonl: where it may be, what it has to hold to be gone on with, what is told."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tpt.data.labelled_sets import Sample, ShiftSet
from tpt.errors import MethodError, OutputError
from tpt.evaluate.predictions import (
    PredictionWriter,
    WalkProgress,
    begin,
    drop_begun,
    find_done,
    open_folder,
)
from tpt.evaluate.settings_diff import find_change
from tpt.evaluate.walks import Walk, plan_walks

SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "seed": 0,
    "methods": [
        {"name": "zero-shot", "settings": {}, "context": {"words": "a {}"}},
        {"name": "tpt", "settings": {"lr": 0.005, "keep": 0.1}, "context": {"words": "a {}"}},
    ],
    "sets": [
        {
            "name": "set",
            "pictures": 1200,
            "sha256": "a",
            "templates": [],
            "heads": [{"name": "set", "classes": ["cat", "dog"], "corruption": None}],
        }
    ],
}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_walks(*names: str, source: str = "") -> tuple[Walk, ...]:
    samples = tuple(Sample(f"{n}.png", n % 2, source) for n in range(3))
    sets = [ShiftSet(n, "folders", n, ("a", "b"), ("a", "b"), samples) for n in names]
    return plan_walks(sets)


def write_lines(walks: tuple[Walk, ...], failed: frozenset[str] = frozenset()) -> list[int]:
    """Write the lines of walks; where each ends."""
    ends = []
    with PredictionWriter("predictions.jsonl") as writer:
        for walk in walks:
            for sample in walk.set.samples:
                rest: dict[str, Any] = {"methods": {}}
                if sample.key in failed:
                    rest = {"error": {"type": "ImageError", "message": ""}}
                writer.write({"set": walk.set.name, "key": sample.key, **rest})
                ends.append(os.path.getsize("predictions.jsonl"))
    return ends


# --- the folder ---


def test_a_folder_is_made_when_there_is_a_run_to_keep_and_not_before() -> None:
    target = open_folder("new/out", resume=False, overwrite=False)
    assert not Path("new").exists()
    assert begin(target, {"seed": 0}, {}, make_walks("one"), resume=False) == [WalkProgress()]
    assert sorted(os.listdir("new/out")) == ["predictions.jsonl.settings.json"]


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
    target = open_folder(".", resume=False, overwrite=True)
    begin(target, {"seed": 0}, {}, make_walks("one"), resume=False)
    assert not target.is_begun


def test_results_of_the_earlier_run_go_when_it_is_started_again() -> None:
    walks = make_walks("one")
    target = open_folder("out", False, False)
    begin(target, SETTINGS, {}, walks, False)
    Path(target.path).write_text("{}\n")
    for name in ("results.json", "report.html", "mine.txt"):
        Path("out", name).write_text("old")
    begin(target, SETTINGS, {}, walks, False)
    assert sorted(os.listdir("out")) == [
        *("mine.txt", "predictions.jsonl", "predictions.jsonl.settings.json")
    ]


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(MethodError, match=r"--output is empty: .* --output \. for this one"):
        open_folder("", False, False)


def test_a_folder_inside_a_set_of_files_is_refused_but_beside_arrays_it_may_be() -> None:
    os.makedirs("one/cat")
    target = open_folder("one/out", resume=False, overwrite=False)
    with pytest.raises(OutputError, match='The output "one/out" lies in the set "one"'):
        begin(target, {"seed": 0}, {}, make_walks("one"), resume=False)
    assert os.listdir("one") == ["cat"]
    (walk,) = make_walks("one", source=None)  # type: ignore[arg-type]  # in an array, say
    begin(target, {"seed": 0}, {}, [walk], resume=False)
    beside = open_folder("one-out", resume=False, overwrite=False)
    begin(beside, {"seed": 0}, {}, make_walks("one"), resume=False)


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
    target = open_folder(".", resume=True, overwrite=False)
    begin(target, SETTINGS, {"device": "cpu"}, walks, resume=True)
    write_lines(walks)
    (done,) = begin(target, SETTINGS, {"device": "cuda"}, walks, resume=True)
    assert done.complete
    with pytest.raises(OutputError) as refused:
        begin(target, {**SETTINGS, "seed": 1}, {}, walks, resume=True)
    assert "with other settings or pictures (seed; seed was 0, now 1)" in str(refused.value)


# --- what differs ---


def change(*path: Any, to: Any) -> dict[str, Any]:
    """The settings with one value replaced."""
    settings = copy.deepcopy(SETTINGS)
    place: Any = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return settings


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (SETTINGS, ""),
        (change("model", to="x"), 'model; model was "tiny", now "x"'),
        (change("views", to=8), "views; views was null, now 8"),
        (change("methods", 1, "name", to="vte"), "methods: now without tpt and with vte"),
        (change("methods", to=SETTINGS["methods"][::-1]), "methods: now in another order"),
        (
            change("methods", 1, "settings", "lr", to=0.1),
            "method tpt: settings lr; settings lr was 0.005, now 0.1",
        ),
        (change("sets", to=[]), "sets: now without set"),
        (change("sets", 0, "pictures", to=3), "set set: 1,200 pictures then, 3 now"),
        (change("sets", 0, "sha256", to="b"), "set set: its pictures have other names or other"),
        (change("sets", 0, "templates", to=["a {}"]), 'templates was [], now ["a {}"]'),
        (
            change("sets", 0, "heads", 0, "classes", to=["cat", "cup"]),
            "set set: classes now without dog and with cup",
        ),
        (change("sets", 0, "heads", 0, "name", to="x"), "set set: now without set and with x"),
        (change("sets", 0, "heads", 0, "corruption", to="fog"), 'was null, now "fog"'),
    ],
)
def test_the_first_difference_is_found(now: dict[str, Any], told: str) -> None:
    found = find_change(SETTINGS, json.loads(json.dumps(now)))
    assert told in found
    assert bool(found) == bool(told)


def test_of_many_that_came_three_are_named() -> None:
    heads = [{"name": f"set/fog/{n}", "classes": [], "corruption": "fog"} for n in range(5)]
    found = find_change(
        SETTINGS, change("sets", 0, "heads", to=SETTINGS["sets"][0]["heads"] + heads)
    )
    assert found == "set set: now with set/fog/0, set/fog/1, set/fog/2 and 2 more"
