"""Runs follow each other, are written down as they come, and lose nothing when they are stopped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from refusals import refusal

import coop.run
import coop.runs
import coop.train_job
import tpt
from coop.loop import Epoch, TrainError
from coop.outputs import Outputs
from coop.recipes import RecipeSettings
from coop.runs import run_job
from coop.train_job import TrainSettings, build_train_job
from tpt.errors import OutputError, SourceError

RECIPE = RecipeSettings(epochs=3, cache_views=1)
WANTED = TrainSettings("pets", RECIPE, shots=(2,), num_workers=0)
ONE = Outputs(Path("p.safetensors"), many=False)
MANY = Outputs(Path("p.safetensors"), many=True)


class Watch:
    """Remembers what it is told; `at_epoch` is called with the number of epochs seen so far."""

    def __init__(self, at_epoch: Callable[[int], None] = lambda count: None) -> None:
        self.said: list[str] = []
        self.encoded: list[tuple[str, int]] = []  # what was finished, and how many it were
        self.epochs: list[tuple[int, int]] = []
        self.at_epoch = at_epoch

    def say(self, text: str) -> None:
        self.said.append(text)

    def encode(self, what: str, done: int, total: int) -> None:
        assert 1 <= done <= total
        if done == total:
            self.encoded.append((what, total))

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self.epochs.append((epoch.number, epochs))
        self.at_epoch(len(self.epochs))


@pytest.fixture(autouse=True)
def _pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: tpt.Clip) -> None:
    """Two classes of small pictures, and the embedded model already loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coop.train_job, "load_clip", lambda *args, **options: tiny)
    random = np.random.RandomState(0)
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for number in range(6):
            pixels = random.randint(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"pets/{name}/{number}.png")


def start(
    outputs: Outputs = ONE,
    watch: Watch | None = None,
    *,
    resume: bool = False,
    **changes: Any,
) -> list[Any]:
    job = build_train_job(replace(WANTED, **changes))
    return run_job(job, outputs, watch or Watch(), resume=resume)


def events(kind: str = "run") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def kept_epoch() -> int | None:
    """The epoch of the state on the disk."""
    if not ONE.state.exists():
        return None
    with safetensors.safe_open(ONE.state, framework="pt") as file:
        return int(file.metadata()["epoch"])


def vectors(path: str) -> torch.Tensor:
    return tpt.Context.load(path).vectors


# --- in order ---


def test_runs_go_by_shots_and_then_by_seeds() -> None:
    wanted = replace(WANTED, shots=(4, None, 1), seeds=(2, 1))
    assert wanted.runs == [(4, 2), (4, 1), (None, 2), (None, 1), (1, 2), (1, 1)]


def test_results_are_those_of_the_log_and_come_back_from_it() -> None:
    results = start(MANY, seeds=(3, 1))
    assert [(r["shots"], r["seed"], r["kind"]) for r in results] == [(2, 3, "coop"), (2, 1, "coop")]
    assert [{"event": "run", **result} for result in results] == events()
    again = start(MANY, resume=True, seeds=(3, 1))
    assert [{"event": "run", **result} for result in again] == events()
    assert len(events()) == 2


def test_a_watch_hears_of_encoding_and_of_every_epoch() -> None:
    watch = Watch()
    start(watch=watch)
    assert watch.epochs == [(0, 3), (1, 3), (2, 3)]
    assert watch.encoded == [
        ("training pictures", 4),
        ("1 views of each training picture", 4),
        ("validation pictures", 4),
        ("test pictures", 4),
    ]


def test_pictures_of_earlier_runs_are_not_encoded_again() -> None:
    watch = Watch()
    start(MANY, watch, seeds=(1, 2, 3))
    once = [total for what, total in watch.encoded if "views" not in what]
    assert sum(once) == 12  # all pictures there are


# --- stopped ---


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_stops_a_run_the_state_is_kept_and_the_stop_passed_on(
    kind: type[BaseException],
) -> None:
    def stop(count: int) -> None:
        if count == 2:
            raise kind

    with pytest.raises(kind):
        start(watch=Watch(stop))
    assert kept_epoch() == 2
    watch = Watch()
    start(watch=watch, resume=True)
    assert watch.said == ["Going on after epoch 2 of 3."]
    assert watch.epochs == [(2, 3)]
    assert kept_epoch() is None
    Path("p.safetensors").rename("broken.safetensors")
    Path("p.jsonl").unlink()
    start()
    assert torch.equal(vectors("broken.safetensors"), vectors("p.safetensors"))


def test_a_state_is_kept_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(coop.runs, "time", SimpleNamespace(monotonic=lambda: clock.now))
    kept: list[int | None] = []

    def tick(count: int) -> None:
        kept.append(kept_epoch())
        clock.now += 4

    start(watch=Watch(tick), recipe=replace(RECIPE, epochs=8))
    assert kept == [None, None, None, 3, 3, 3, 6, 6]


def test_a_job_that_is_begun_again_takes_no_state_from_before() -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(watch=Watch(stop))
    assert kept_epoch() == 1
    watch = Watch()
    start(watch=watch)
    assert watch.epochs[0] == (0, 3)


def test_a_state_that_finds_no_room_is_told_in_the_place_of_a_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(count: int) -> None:
        def refuse(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
        raise KeyboardInterrupt

    with pytest.raises(OutputError, match="The state of the training could not be saved"):
        start(watch=Watch(stop))


# --- diverged ---


def test_of_several_runs_one_that_diverges_leaves_those_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(MANY, seeds=(1, 2))
    before = vectors("p-2shot-seed1.safetensors")
    make, batches = coop.run.make_learner, []

    def spoil(*args: Any) -> Any:
        learner = make(*args)
        loss, seed = learner.loss, args[-1]

        def spoilt(batch: Any) -> Any:
            batches.append(seed)
            found = loss(batch)
            return replace(found, total=found.total * (np.nan if batches.count(2) > 2 else 1))

        learner.loss = spoilt
        return learner

    monkeypatch.setattr(coop.run, "make_learner", spoil)
    with pytest.raises(TrainError) as caught:
        start(MANY, seeds=(1, 2))
    assert "The loss became nan in epoch 3 of 3" in str(caught.value)
    assert str(caught.value).endswith(
        'The vectors after epoch 2 are in "p-2shot-seed2.last-good.safetensors".'
    )
    assert torch.equal(vectors("p-2shot-seed1.safetensors"), before)
    assert len(events()) == 1
    (event,) = events("diverged")
    assert event["seed"] == 2
    info = tpt.Context.load("p-2shot-seed2.last-good.safetensors").info
    assert (info.classes, info.seed) == (("cat", "dog"), 2)
    assert kept_epoch() is None


# --- pictures that cannot be read ---


def test_a_class_that_lost_all_its_pictures_is_told_with_one_of_its_own() -> None:
    for name in ("cat/0", *(f"dog/{n}" for n in range(6))):
        Path(f"pets/{name}.png").write_text("no picture")
    message = refusal(SourceError, start, shots=(None,))
    assert 'None of the training pictures of class "dog" can be read (' in message
    assert "pets/dog/" in message
    assert "cat" not in message


def test_what_could_not_be_read_is_in_the_result() -> None:
    start(test="none")
    listed = [line.split(",")[2:4] for line in Path("p.files.csv").read_text().splitlines()[1:]]
    bad = {
        split: next(path for kind, path in listed if kind == split) for split in ("train", "val")
    }
    for path in bad.values():
        Path(path).write_text("no picture")
    watch = Watch()
    (result,) = start(watch=watch, test="none")
    assert (result["images"], result["measured_on"]) == (3, {"val": 3})
    assert (result["failed"], result["unread"]) == ([bad["train"]], [bad["val"]])
    told = [text for text in watch.said if text.startswith("Warning: skipped one of the ")]
    assert len(told) == 2
    assert "training pictures" in told[0]
    assert "validation pictures" in told[1]


def test_where_no_test_picture_can_be_read_nothing_is_measured() -> None:
    Path("more/cat").mkdir(parents=True)
    Path("more/cat/0.png").write_text("no picture")
    (result,) = start(test="more")
    assert "test" not in result["accuracy"]
    assert result["unread"] == ["more/cat/0.png"]


# --- the curve ---


def test_the_linear_probe_of_a_curve_leaves_no_file() -> None:
    results = start(MANY, shots=(1, 2))
    probes = [event for event in events() if event["kind"] == "linear-probe"]
    assert [(event["file"], event["shots"]) for event in probes] == [(None, 1), (None, 2)]
    assert [result["kind"] for result in results] == ["coop", "coop"]
    assert sorted(path.name for path in Path().glob("*.safetensors")) == [
        "p-1shot-seed1.safetensors",
        "p-2shot-seed1.safetensors",
    ]


def test_a_probe_that_was_missing_is_made_by_resume() -> None:
    start(MANY, shots=(1, 2))
    curve = Path("p.curve.csv").read_bytes()
    *lines, last = Path("p.jsonl").read_text().splitlines(keepends=True)
    assert '"kind": "linear-probe"' in last
    Path("p.jsonl").write_text("".join(lines))
    start(MANY, shots=(1, 2), resume=True)
    assert Path("p.curve.csv").read_bytes() == curve
    assert len(events()) == 4
