"""Walking through pictures: what every line says, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tpt
from tpt.corrupt import corrupt
from tpt.data.labelled_sets import ArrayRow, LabelledSet, Sample
from tpt.evaluate.predictions import find_done, index_sets, read_set, write_predictions
from tpt.evaluate.runner import judge, run_walk
from tpt.evaluate.walks import Walk, plan_walks
from tpt.images.decode import Picture, load_picture
from tpt.methods import Method

CLASSES = ("cat", "dog", "horse")


def draw(seed: int) -> np.ndarray[Any, Any]:
    low = np.random.RandomState(seed).randint(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(low).resize((48, 40), Image.Resampling.BICUBIC))


def make_set(name: str = "set", count: int = 4, classes: tuple[str, ...] = CLASSES) -> LabelledSet:
    pixels = np.stack([draw(n) for n in range(count)])
    samples = tuple(
        Sample(f"{classes[n % len(classes)]}/{n}.png", n % len(classes), ArrayRow(pixels, n))
        for n in range(count)
    )
    return LabelledSet(name, "folders", name, classes, classes, samples)


@pytest.fixture
def views(tiny: tpt.Clip) -> tpt.Views:
    return tpt.Views(tiny, n=6)


def make_methods(clip: tpt.Clip, walk: Walk, *names: str) -> dict[str, dict[str, Method]]:
    def make(classes: tuple[str, ...]) -> dict[str, Method]:
        engine = tpt.PromptEngine(clip, classes)
        pool: dict[str, Method] = {
            "zero-shot": tpt.ZeroShot(engine),
            "tpt": tpt.TPT(engine, keep=0.5, lr=0.1),
            "zero": tpt.ZERO(engine, keep=0.5),
            "tda": tpt.TDA(engine),
        }
        return {name: pool[name] for name in names}

    return {result_set.name: make(result_set.classes) for _, result_set in walk.result_sets()}


def forget_ms(line: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(line)
    return json.loads(
        text, object_hook=lambda d: {k: v for k, v in d.items() if k not in ("ms", "image_ms")}
    )


def test_a_line_says_what_the_streaming_api_says(tiny: tpt.Clip, views: tpt.Views) -> None:
    (walk,) = plan_walks([make_set()])
    methods = make_methods(tiny, walk, "zero-shot", "tpt", "zero")
    lines = list(run_walk(walk, methods, views))
    keys = [sample.key for sample in walk.set.samples]
    assert [line["key"] for line in lines] == keys
    for number, line in enumerate(lines):
        features = tiny.encode_views(views([draw(number)]))[0]
        out = methods["set"]["tpt"].adapt_features(features)
        p = out.logits.double().softmax(-1)
        told = line["methods"]["tpt"]
        assert told["top"][0] == [int(p.argmax()), pytest.approx(float(p.max()), abs=1e-6)]
        assert told["nll"] == pytest.approx(-float(p[line["label"]].log()), abs=1e-6)
        truth = torch.nn.functional.one_hot(torch.tensor(line["label"]), 3)
        assert told["brier"] == pytest.approx(float((p - truth).square().sum()), abs=1e-6)
        assert told["rank"] == int((p > p[line["label"]]).sum())
        assert told["kept"] == out.selected.tolist()
        assert told["entropy"][1] < told["entropy"][0]
        votes = line["methods"]["zero"]
        assert votes["votes"] is True
        assert votes["nll"] is None
        assert sum(count for _, count in votes["top"]) == 3  # half of six views
        assert "entropy" not in line["methods"]["zero-shot"]


def test_pictures_are_decoded_and_encoded_once_for_all_methods(
    tiny: tpt.Clip, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[str] = Counter()
    encode = tiny._encode

    def count(images: torch.Tensor) -> torch.Tensor:
        seen["views"] += len(images)
        return encode(images)

    def decode(source: Any) -> Picture:
        seen["decoded"] += 1
        return load_picture(source)

    monkeypatch.setattr(tiny, "_encode", count)
    monkeypatch.setattr("tpt.streaming.loading.load_picture", decode)
    (walk,) = plan_walks([make_set()], corruptions=[("contrast", 2)])
    list(run_walk(walk, make_methods(tiny, walk, "zero-shot", "tpt", "zero"), views))
    assert seen == {"views": 4 * 2 * 6, "decoded": 4}


def test_without_a_method_that_reads_views_only_the_plain_one_is_made(
    tiny: tpt.Clip, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpt.Views, "__call__", lambda *args, **more: pytest.fail("views made"))
    (walk,) = plan_walks([make_set()])
    assert len(list(run_walk(walk, make_methods(tiny, walk, "zero-shot"), views))) == 4


def test_corruptions_on_the_fly_are_those_of_the_function(tiny: tpt.Clip, views: tpt.Views) -> None:
    (walk,) = plan_walks([make_set()], corruptions=[("gaussian_noise", 4)])
    lines = list(run_walk(walk, make_methods(tiny, walk, "zero-shot"), views, seed=5))
    assert [line["set"] for line in lines[:2]] == ["set", "set/gaussian_noise/4"]
    pixels = np.stack(
        [corrupt(draw(n), "gaussian_noise", 4, 5, s.key) for n, s in enumerate(walk.set.samples)]
    )
    samples = [Sample(s.key, s.label, ArrayRow(pixels, n)) for n, s in enumerate(walk.set.samples)]
    (again,) = plan_walks([LabelledSet("set", "", "", CLASSES, CLASSES, tuple(samples))])
    expected = run_walk(again, make_methods(tiny, again, "zero-shot"), views)
    corrupted = [line for line in lines if line["set"] != "set"]
    for line, other in zip(corrupted, expected, strict=True):
        assert forget_ms(line) == forget_ms(other) | {"set": "set/gaussian_noise/4"}


def test_a_head_of_fewer_classes_sees_its_own_pictures_alone(
    tiny: tpt.Clip, views: tpt.Views
) -> None:
    few = ("horse", "cat")
    clean, _ = plan_walks([make_set("few", 2, few)], [make_set()])
    lines = list(run_walk(clean, make_methods(tiny, clean, "zero-shot"), views))
    named = [(line["set"], line["key"], line["label"]) for line in lines if "few" in line["set"]]
    assert named == [
        ("set (2 classes of few)", "cat/0.png", 1),
        ("set (2 classes of few)", "horse/2.png", 0),
        ("set (2 classes of few)", "cat/3.png", 1),
    ]
    assert all(len(line["methods"]["zero-shot"]["top"]) == 2 for line in lines[1::8])


def test_a_broken_picture_is_a_line_in_each_of_its_sets_and_the_others_go_on(
    tiny: tpt.Clip, views: tpt.Views, tmp_path: Path
) -> None:
    good = make_set()
    broken = Sample("dog/broken.png", 1, str(tmp_path / "none.png"))
    mixed = LabelledSet("set", "", "", CLASSES, CLASSES, (broken, *good.samples))
    (walk,) = plan_walks([mixed], corruptions=[("fog", 1)])
    lines = list(run_walk(walk, make_methods(tiny, walk, "zero-shot"), views))
    assert [(line["set"], line["label"], line["error"]["type"]) for line in lines[:2]] == [
        ("set", 1, "ImageError"),
        ("set/fog/1", 1, "ImageError"),
    ]
    assert "does not exist" in lines[0]["error"]["message"]
    assert all("methods" in line for line in lines[2:])


def test_a_picture_that_one_method_fails_on_counts_for_none(
    tiny: tpt.Clip, views: tpt.Views
) -> None:
    (walk,) = plan_walks([make_set(count=1)])
    methods = make_methods(tiny, walk, "zero-shot", "tpt")
    methods["set"]["tpt"] = tpt.TPT(methods["set"]["tpt"].engine, lr=1e30)
    (line,) = run_walk(walk, methods, views)
    assert line["error"]["type"] == "MethodError"
    assert line["error"]["message"].startswith("tpt gave NaN or infinite numbers")


def test_features_that_overflow_are_told(
    tiny: tpt.Clip, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    (walk,) = plan_walks([make_set(count=1)])
    methods = make_methods(tiny, walk, "zero-shot")
    width = tiny.embedding_width
    monkeypatch.setattr(tiny, "_encode", lambda images: torch.full((len(images), width), np.nan))
    (line,) = run_walk(walk, methods, views)
    assert "The image tower gave NaN or infinite features" in line["error"]["message"]


@pytest.mark.parametrize("names", ["zero-shot,tpt", "zero-shot,tda"])
def test_features_that_overflow_fail_their_own_picture_under_every_method(
    tiny: tpt.Clip, views: tpt.Views, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    (walk,) = plan_walks([make_set(count=3)])
    target, encode = views([draw(1)])[0, 0], tiny.encode_views
    sound = [*run_walk(walk, make_methods(tiny, walk, *names.split(",")), views, batch_size=3)]

    def overflow(batch: torch.Tensor) -> torch.Tensor:
        features = encode(batch)
        features[torch.tensor([torch.equal(one[0], target) for one in batch])] = np.nan
        return features

    monkeypatch.setattr(tiny, "encode_views", overflow)
    lines = [*run_walk(walk, make_methods(tiny, walk, *names.split(",")), views, batch_size=3)]
    assert lines[1]["error"]["message"].startswith("The image tower gave NaN")
    others = [0] if "tda" in names else [0, 2]  # TDA never saw it, so what follows may differ
    for place in others:
        assert forget_ms(lines[place]) == forget_ms(sound[place])
    assert "error" not in lines[2]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_run_cut_anywhere_goes_on_to_the_same_lines(
    tiny: tpt.Clip, views: tpt.Views, batch_size: int, tmp_path: Path
) -> None:
    few = make_set("few", 2, ("horse", "cat"))
    walks = plan_walks([make_set("other", 2), few], [make_set()], [("contrast", 1)])
    methods = [make_methods(tiny, walk, "zero-shot") for walk in walks]
    whole = [
        [forget_ms(line) for line in run_walk(walk, made, views, batch_size=batch_size)]
        for walk, made in zip(walks, methods, strict=True)
    ]
    total = sum(map(len, whole))
    path = str(tmp_path / "predictions.jsonl")
    for cut in range(total + 1):
        Path(path).unlink(missing_ok=True)
        with write_predictions(path) as write:
            for line in [line for lines in whole for line in lines][:cut]:
                write(line)
        done = find_done(path, walks)
        assert sum(part.lines for part in done) == cut
        for walk, made, part, expected in zip(walks, methods, done, whole, strict=True):
            rest = run_walk(walk, made, views, batch_size=batch_size, done=part.lines)
            assert [forget_ms(line) for line in rest] == expected[part.lines :]


def test_lines_are_read_back_by_set(tiny: tpt.Clip, views: tpt.Views, tmp_path: Path) -> None:
    odd = LabelledSet("ö \udcff", "", "", CLASSES, CLASSES, make_set(count=3).samples)
    (walk,) = plan_walks([odd], corruptions=[("fog", 1)])
    lines = list(run_walk(walk, make_methods(tiny, walk, "zero-shot"), views))
    path = str(tmp_path / "predictions.jsonl")
    with write_predictions(path) as write:
        for line in lines:
            write(line)
    places = index_sets(path)
    for name in ("ö \udcff", "ö \udcff/fog/1"):
        assert list(read_set(path, name, places)) == [x for x in lines if x["set"] == name]
    assert list(read_set(path, "nothing", places)) == []


def test_reading_a_set_reads_no_line_of_another(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with write_predictions(str(path)) as write:
        for key in range(3):
            for name in ("one", "two"):
                write({"set": name, "key": key})
    places = index_sets(str(path))
    assert {name: list(begins) for name, begins in places.items()} == {
        "one": [0, 44, 88],
        "two": [22, 66, 110],
    }
    path.write_bytes(path.read_bytes().replace(b'"two"', b"\0\0\0\0\0"))
    assert [line["key"] for line in read_set(str(path), "one", places)] == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_corruptions_are_made_by_other_threads(
    tiny: tpt.Clip, views: tpt.Views, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (walk,) = plan_walks([make_set()], corruptions=[("gaussian_noise", 4), ("contrast", 1)])
    methods = make_methods(tiny, walk, "zero-shot")
    expected = [forget_ms(line) for line in run_walk(walk, methods, views, batch_size=3)]
    names = []

    def note(*words: Any) -> Any:
        names.append(current_thread().name)
        return corrupt(*words)

    monkeypatch.setattr("tpt.evaluate.runner.corrupt", note)
    lines = run_walk(walk, methods, views, batch_size=3, num_workers=workers)
    assert [forget_ms(line) for line in lines] == expected
    assert len(names) == 8
    assert set(names) == ({"tpt-decode"} if workers else {current_thread().name})


def test_methods_that_keep_state_have_a_stream_for_each_head(
    tiny: tpt.Clip, views: tpt.Views
) -> None:
    (walk,) = plan_walks([make_set(count=6)], corruptions=[("contrast", 3)])
    lines = list(run_walk(walk, make_methods(tiny, walk, "zero-shot", "tda"), views))
    (alone,) = plan_walks([make_set(count=6)])
    expected = run_walk(alone, make_methods(tiny, alone, "zero-shot", "tda"), views)
    plain = [forget_ms(line) for line in lines if line["set"] == "set"]
    assert plain == [forget_ms(line) for line in expected]


def test_judge_takes_a_batch(tiny: tpt.Clip, views: tpt.Views) -> None:
    (walk,) = plan_walks([make_set()])
    methods = make_methods(tiny, walk, "zero-shot", "tpt", "zero")["set"]
    features = tiny.encode_views(views([draw(0), draw(1)]))
    both = judge(features, [0, 1], methods)
    apart = [*judge(features[:1], [0], methods), *judge(features[1:], [1], methods)]
    assert [forget_ms(a) for a in both] == [forget_ms(a) for a in apart]  # type: ignore[arg-type]
