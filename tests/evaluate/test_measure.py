"""From lines to results: each set's own numbers, its changed answers, and its pictures again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tpt
from tpt.corrupt import corrupt
from tpt.data.labelled_sets import ArrayRow, LabelledSet, Sample
from tpt.evaluate import measure as module
from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.gallery import PICTURE_SIDE, GalleryDraw, encode_thumbnail
from tpt.evaluate.measure import GALLERY_ITEMS, GALLERY_SETS, measure, share_gallery
from tpt.evaluate.method_pool import MethodPool, Starts
from tpt.evaluate.method_specs import parse_methods
from tpt.evaluate.predictions import write_predictions
from tpt.evaluate.walks import Walk, plan_walks

CLASSES = ("cat", "dog")
PIXELS = np.random.RandomState(0).randint(0, 256, (4, 20, 24, 3), np.uint8)
WRITTEN = ["results.json"]


def make_set(name: str, **more: Any) -> LabelledSet:
    samples = tuple(Sample(f"{n}.png", n % 2, ArrayRow(PIXELS, n)) for n in range(4))
    return LabelledSet(name, "folders", name, CLASSES, CLASSES, samples, **more)


def make_evaluation(clip: tpt.Clip, walks: tuple[Walk, ...]) -> Evaluation:
    """A run whose lines need no model: two methods, two views."""
    pool = MethodPool(clip, parse_methods(["tpt"]), Starts({}))
    settings = {
        "model": "tiny",
        "seed": 3,
        "methods": [pool.describe(spec) for spec in pool.specs],
        "sets": [],
    }
    views = tpt.Views(clip, n=2, seed=3)
    return Evaluation(clip, pool, views, walks, settings, {"device": "cpu"})


def say_of(label: int, answer: int, ms: float) -> dict[str, Any]:
    top = [[answer, 0.8], [1 - answer, 0.2]]
    p = 0.8 if answer == label else 0.2
    return {
        "rank": int(answer != label),
        "top": top,
        "nll": round(float(-np.log(p)), 6),
        "brier": round(2 * (1 - p) ** 2, 6),
        "ms": ms,
    }


def write_lines(path: Path, walks: tuple[Walk, ...], failed: tuple[str, ...] = ()) -> str:
    """Lines in which the baseline says cat always, and tpt is right about all but the last."""
    with write_predictions(str(path / "predictions.jsonl")) as write:
        for walk in walks:
            for number, sample in enumerate(walk.set.samples):
                for _, result_set in walk.result_sets():
                    line: dict[str, Any] = {"set": result_set.name, "key": sample.key}
                    label = line["label"] = result_set.label(sample)
                    if sample.key in failed:
                        line["error"] = {"type": "ImageError", "message": "broken"}
                    else:
                        tuned = say_of(label, label if number < 3 else 1 - label, ms=number)
                        tuned |= {"entropy": [0.5, 0.4], "kept": [1], "kept_entropy": [0.5]}
                        line["image_ms"] = 10.0 * number
                        line["methods"] = {"zero-shot": say_of(label, 0, ms=0.5), "tpt": tuned}
                    write(line)
    return str(path / "predictions.jsonl")


def test_each_result_set_has_its_own_numbers(tiny: tpt.Clip, tmp_path: Path) -> None:
    walks = plan_walks([make_set("set")], corruptions=[("contrast", 1)])
    told: list[str] = []
    results = measure(
        make_evaluation(tiny, walks), write_lines(tmp_path, walks, failed=("0.png",)), told.append
    )
    assert told == ["Measuring set", "Measuring set/contrast/1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", *WRITTEN]
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    assert [(part["images"], part["failed"]) for part in results["sets"]] == [(3, 1), (3, 1)]
    corrupted = results["sets"][1]
    assert (corrupted["corruption"], corrupted["severity"]) == ("contrast", 1)
    found = {(r["dataset"], r["method"]): r for r in results["results"]}
    assert list(found) == [(s, m) for s in ("set", "set/contrast/1") for m in ("zero-shot", "tpt")]
    tuned = found["set", "tpt"]
    assert tuned["metrics"]["acc1"] == pytest.approx(2 / 3, abs=1e-6)  # 1, 2 right, 3 wrong
    assert found["set", "zero-shot"]["metrics"]["acc1"] == pytest.approx(1 / 3, abs=1e-6)
    assert tuned["ms"] == {"image": 20.0, "method": 2.0}  # medians of 10, 20, 30 and 1, 2, 3
    assert tuned["versus_baseline"]["put_right"] == 1
    assert tuned["versus_baseline"]["put_wrong"] == 0
    assert found["set/contrast/1", "tpt"]["clean"]["gap"] == 0


def test_a_set_without_a_readable_picture_has_no_numbers(tiny: tpt.Clip, tmp_path: Path) -> None:
    walks = plan_walks([make_set("set")])
    every = tuple(sample.key for sample in walks[0].set.samples)
    lines = write_lines(tmp_path, walks, failed=every)
    results = measure(make_evaluation(tiny, walks), lines, lambda text: None)
    assert (results["sets"][0]["images"], results["sets"][0]["failed"]) == (0, 4)
    for entry in results["results"]:
        assert entry["metrics"]["acc1"] is None
        assert entry["ms"] == {"image": None, "method": None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", *WRITTEN]


def test_the_gallery_shows_the_pictures_as_the_run_had_them(tiny: tpt.Clip, tmp_path: Path) -> None:
    walks = plan_walks([make_set("set")], corruptions=[("gaussian_noise", 4)])
    lines = write_lines(tmp_path, walks)
    results = measure(make_evaluation(tiny, walks), lines, lambda text: None)
    shown = {(item["dataset"], item["key"]): SimpleNamespace(**item) for item in results["gallery"]}
    assert list(shown) == [("set", "1.png"), ("set/gaussian_noise/4", "1.png")]
    plain, noisy = shown.values()
    assert (plain.kind, plain.method, plain.label) == ("right", "tpt", "dog")
    assert plain.picture == encode_thumbnail(PIXELS[1], PICTURE_SIDE)
    changed = corrupt(PIXELS[1], "gaussian_noise", 4, 3, "1.png")
    assert noisy.picture == encode_thumbnail(changed, PICTURE_SIDE)
    assert [len(item.kept_pictures) for item in (plain, noisy)] == [1, 1]
    assert plain.kept_pictures != noisy.kept_pictures
    assert {confusion["dataset"] for confusion in results["confusions"]} == {
        "set",
        "set/gaussian_noise/4",
    }


def test_another_seed_draws_other_pictures(
    tiny: tpt.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    class Seen(GalleryDraw):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            seeds.append(self.seed)

    monkeypatch.setattr(module, "GalleryDraw", Seen)
    walks = plan_walks([make_set("set")])
    evaluation = make_evaluation(tiny, walks)
    measure(evaluation, write_lines(tmp_path, walks), lambda text: None)
    assert seeds == [evaluation.seed] == [3]


def test_of_many_sets_some_show_pictures_spread_over_all(tiny: tpt.Clip, tmp_path: Path) -> None:
    walks = plan_walks([make_set(f"set{n}") for n in range(2 * GALLERY_SETS)])
    lines = write_lines(tmp_path, walks)
    results = measure(make_evaluation(tiny, walks), lines, lambda text: None)
    datasets = list(dict.fromkeys(item["dataset"] for item in results["gallery"]))
    assert datasets == [f"set{n}" for n in range(0, 2 * GALLERY_SETS, 2)]


def test_the_gallery_stays_small_whatever_the_run() -> None:
    assert share_gallery(1, 1) == [4]
    assert share_gallery(3, 0) == [4, 4, 4]
    many = share_gallery(46, 7)
    assert sum(pictures > 0 for pictures in many) == GALLERY_SETS
    assert many[0] == 1
    assert any(many[-4:])
    assert 2 * 7 * sum(many) <= GALLERY_ITEMS


def test_what_was_told_of_a_set_and_of_the_plan_is_kept(tiny: tpt.Clip, tmp_path: Path) -> None:
    (walk,) = plan_walks([make_set("set", notes=("One class has no pictures: latin-\udce9.",))])
    walk = replace(walk, notes=("It is not compared.",), set=replace(walk.set, path="in/\udce9"))
    lines = write_lines(tmp_path, (walk,))
    results = measure(make_evaluation(tiny, (walk,)), lines, lambda text: None)
    (part,) = results["sets"]
    assert part["notes"] == ["One class has no pictures: latin-\\udce9.", "It is not compared."]
    assert part["path"] == "in/\\udce9"  # bytes that are no text cannot stand in JSON
