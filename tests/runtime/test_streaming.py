"""`tpt.stream` is lazy, in order, bounded, and an image's record depends on that image alone."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tpt
from tpt.runtime import streaming
from tpt.runtime.records import Record


@pytest.fixture(scope="module")
def engine(tiny: tpt.Clip) -> tpt.PromptEngine:
    return tpt.PromptEngine(tiny, ["cat", "dog", "old_ship"])


@pytest.fixture
def zero_shot(engine: tpt.PromptEngine) -> tpt.ZeroShot:
    return tpt.ZeroShot(engine)


@pytest.fixture
def method(engine: tpt.PromptEngine) -> tpt.TPT:
    return tpt.TPT(engine, keep=0.5)


@pytest.fixture
def views(tiny: tpt.Clip) -> tpt.Views:
    return tpt.Views(tiny, n=4)


def picture(seed: int) -> np.ndarray:
    """A blotchy picture (40, 48, 3)."""
    pixels = np.random.RandomState(seed).randint(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC))


def save_pictures(folder: Path, count: int) -> list[str]:
    paths = [str(folder / f"{seed}.png") for seed in range(count)]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed)).save(path)
    return paths


def timeless(records: Iterable[Record]) -> list[Record]:
    """Records without their timings, to be compared to the last bit."""
    return [replace(r, adapt=replace(r.adapt, ms=0.0) if r.adapt else None) for r in records]


def decoders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("tpt-decode")]


# --- what a record says ---


def test_a_record_ranks_the_classes_and_tells_what_adaptation_did(
    method: tpt.TPT, views: tpt.Views
) -> None:
    (record,) = tpt.stream([picture(0)], method, views, top_k=2)
    assert record.path is None
    assert record.index == 0
    assert record.error is None
    assert len(record.predictions) == 2
    assert record.predictions[0].score >= record.predictions[1].score
    for prediction in record.predictions:
        assert method.engine.classes[prediction.index] == prediction.label
    assert record.adapt is not None
    assert record.adapt.views_kept == 2
    assert record.adapt.entropy_after < record.adapt.entropy_before
    assert record.adapt.ms > 0


def test_the_record_holds_the_methods_own_numbers(method: tpt.TPT, views: tpt.Views) -> None:
    (record,) = tpt.stream([picture(0)], method, views, top_k=9)
    out = method.adapt(views([picture(0)], [0]))
    scores = out.logits.softmax(-1)[0].tolist()
    assert [p.score for p in record.predictions] == sorted(scores, reverse=True)
    assert record.adapt is not None
    assert out.loss is not None
    assert record.adapt.entropy_before == float(out.loss)
    assert record.zero_shot is not None
    assert record.zero_shot.score == float(out.initial_logits.softmax(-1).max())


def test_without_adaptation_the_prediction_is_the_zero_shot_one(zero_shot: tpt.ZeroShot) -> None:
    (record,) = tpt.stream([picture(0)], zero_shot)
    assert record.adapt is None
    assert record.zero_shot == record.predictions[0]
    assert sum(p.score for p in record.predictions) == pytest.approx(1)


def test_every_kind_of_image_gives_the_same_prediction(
    zero_shot: tpt.ZeroShot, tmp_path: Path
) -> None:
    (name,) = save_pictures(tmp_path, 1)
    pixels = picture(0)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    items = [name, Path(name), Image.open(name), Path(name).read_bytes(), pixels, tensor]
    records = list(tpt.stream(items, zero_shot, batch_size=4))
    assert [r.path for r in records] == [name, name, None, None, None, None]
    assert [r.index for r in records] == list(range(6))
    assert len({r.predictions for r in records}) == 1


def test_default_views_are_the_published_64(method: tpt.TPT) -> None:
    (record,) = tpt.stream([picture(0)], method)
    assert record.adapt is not None
    assert record.adapt.views_kept == 32


# --- on what a record depends ---


@pytest.mark.parametrize("reset", ["image", "stream"])
def test_results_do_not_depend_on_batch_size_or_threads(
    engine: tpt.PromptEngine, views: tpt.Views, reset: str
) -> None:
    method = tpt.TPT(engine, keep=0.5, reset=reset)
    items = [*(picture(seed) for seed in range(4)), "no-such-file.png", picture(4)]
    first, *others = (
        timeless(tpt.stream(items, method, views, batch_size=size, num_workers=workers))
        for size, workers in [(1, 2), (3, 0), (4, 1), (8, 3)]
    )
    assert len(first) == 6
    for other in others:
        assert other == first


def test_a_named_image_depends_on_neither_neighbours_nor_order(
    method: tpt.TPT, views: tpt.Views, tmp_path: Path
) -> None:
    paths = save_pictures(tmp_path, 3)
    forward = timeless(tpt.stream(paths, method, views, batch_size=2))
    backward = timeless(tpt.stream(paths[::-1], method, views, batch_size=3))
    alone = timeless(tpt.stream(paths[1:2], method, views))
    assert [replace(r, index=0) for r in backward[::-1]] == [replace(r, index=0) for r in forward]
    assert replace(forward[1], index=0) == alone[0]


def test_an_unnamed_images_views_depend_on_its_place(method: tpt.TPT, views: tpt.Views) -> None:
    first, second = timeless(tpt.stream([picture(0), picture(0)], method, views))
    _, again = timeless(tpt.stream([picture(1), picture(0)], method, views))
    assert first.adapt != second.adapt
    assert again == second
    assert first.zero_shot == second.zero_shot


def test_another_seed_makes_other_views(method: tpt.TPT, tiny: tpt.Clip) -> None:
    zero, one = (
        timeless(tpt.stream([picture(0)], method, tpt.Views(tiny, n=4, seed=seed)))
        for seed in (0, 1)
    )
    assert zero[0].adapt != one[0].adapt


def test_reset_stream_carries_on_within_a_stream_and_no_further(
    engine: tpt.PromptEngine, views: tpt.Views, method: tpt.TPT
) -> None:
    items = [picture(0), picture(1)]
    carried = tpt.TPT(engine, keep=0.5, reset="stream")
    once, twice = (timeless(tpt.stream(items, carried, views)) for _ in range(2))
    single = timeless(tpt.stream(items, method, views))
    assert once == twice
    assert once[0].predictions == single[0].predictions
    assert once[1].predictions != single[1].predictions


# --- bad images ---


def test_bad_images_are_records_in_their_places(
    method: tpt.TPT, views: tpt.Views, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    items = [picture(0), str(tmp_path / "bad.png"), None, picture(1), np.zeros((2, 2, 9))]
    records = list(tpt.stream(items, method, views, batch_size=2))
    assert [r.error is None for r in records] == [True, False, False, True, False]
    assert [r.index for r in records] == list(range(5))
    for bad in (records[1], records[2], records[4]):
        assert bad.error is not None
        assert bad.error.type == "ImageError"
        assert bad.predictions == ()
        assert bad.adapt is None


@pytest.mark.parametrize("batch_size", [1, 3])
def test_strict_raises_after_the_records_before_the_bad_image(
    zero_shot: tpt.ZeroShot, batch_size: int
) -> None:
    records = tpt.stream(
        [picture(0), picture(1), "gone.png", picture(2)],
        zero_shot,
        batch_size=batch_size,
        strict=True,
    )
    assert [next(records).index for _ in range(2)] == [0, 1]
    with pytest.raises(tpt.ImageError, match=r"^'gone\.png' does not exist"):
        next(records)
    assert decoders() == []


def test_strict_names_an_unnamed_bad_image_by_its_place(zero_shot: tpt.ZeroShot) -> None:
    with pytest.raises(tpt.ImageError, match=r"^image 1: .*NoneType"):
        list(tpt.stream([picture(0), None], zero_shot, strict=True))


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_fail_only_their_own_image(
    method: tpt.TPT,
    views: tpt.Views,
    tiny: tpt.Clip,
    monkeypatch: pytest.MonkeyPatch,
    bad: int,
    value: float,
) -> None:
    items = [picture(seed) for seed in range(3)]
    sound = timeless(tpt.stream(items, method, views, batch_size=3))
    calls, encode = itertools.count(), tiny.encode_views

    def overflow(pixels: torch.Tensor) -> torch.Tensor:
        features = encode(pixels)
        if next(calls) == bad:
            features[:, -1, 7] = value
        return features

    monkeypatch.setattr(tiny, "encode_views", overflow)
    records = timeless(tpt.stream(items, method, views, batch_size=3))
    error = records.pop(bad).error
    assert error is not None
    assert error.type == "ModelError"
    assert "--precision" in error.message
    assert records == sound[:bad] + sound[bad + 1 :]


# --- laziness and order ---


class Counted:
    """An endless iterable that counts what was pulled from it."""

    def __init__(self, make: Callable[[int], Any] = picture) -> None:
        self.pulled = 0
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.pulled += 1
            yield self.make(self.pulled - 1)


def test_nothing_is_pulled_before_the_first_record_is_asked_for(zero_shot: tpt.ZeroShot) -> None:
    source = Counted()
    records = tpt.stream(source, zero_shot)
    assert source.pulled == 0
    assert decoders() == []
    records.close()


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (1, 2), (4, 1), (2, 3)])
def test_an_endless_source_is_pulled_only_a_few_images_ahead(
    zero_shot: tpt.ZeroShot, batch_size: int, num_workers: int
) -> None:
    source = Counted()
    records = tpt.stream(source, zero_shot, batch_size=batch_size, num_workers=num_workers)
    for record in itertools.islice(records, 9):
        batch_end = record.index - record.index % batch_size + batch_size
        ahead = source.pulled - batch_end
        assert 0 <= ahead <= (batch_size + 2 * num_workers if num_workers else 0)
    records.close()


def test_records_come_in_order_whichever_thread_is_first(
    zero_shot: tpt.ZeroShot, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, second_done = streaming.decode_image, threading.Event()

    def wait_for_the_second(item: Any) -> np.ndarray:
        if item is items[0]:
            assert second_done.wait(10)
        pixels = decode(item)
        if item is items[1]:
            second_done.set()
        return pixels

    items = [picture(seed) for seed in range(5)]
    monkeypatch.setattr(streaming, "decode_image", wait_for_the_second)
    records = list(tpt.stream(items, zero_shot, num_workers=2))
    assert [r.index for r in records] == list(range(5))
    plain = list(tpt.stream(items, zero_shot, num_workers=0))
    assert records == plain


@pytest.mark.parametrize("num_workers", [0, 2])
def test_closing_early_stops_the_threads_and_the_source(
    zero_shot: tpt.ZeroShot, num_workers: int
) -> None:
    source = Counted()
    records = tpt.stream(source, zero_shot, num_workers=num_workers)
    next(records)
    assert len(decoders()) <= num_workers
    records.close()
    pulled = source.pulled
    assert decoders() == []
    assert list(records) == []
    assert source.pulled == pulled


def test_a_finished_stream_leaves_no_thread(zero_shot: tpt.ZeroShot) -> None:
    assert len(list(tpt.stream([picture(0)] * 3, zero_shot, num_workers=3))) == 3
    assert decoders() == []


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_an_exception_of_the_source_comes_after_the_records_before_it(
    zero_shot: tpt.ZeroShot, batch_size: int, num_workers: int
) -> None:
    def breaking() -> Iterator[np.ndarray]:
        for seed in range(4):
            yield picture(seed)
        raise ConnectionError("the camera is gone")

    records = tpt.stream(breaking(), zero_shot, batch_size=batch_size, num_workers=num_workers)
    assert [record.index for record in itertools.islice(records, 4)] == [0, 1, 2, 3]
    with pytest.raises(ConnectionError, match="the camera is gone"):
        next(records)
    assert decoders() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_empty_source_gives_no_records(zero_shot: tpt.ZeroShot, num_workers: int) -> None:
    assert list(tpt.stream([], zero_shot, num_workers=num_workers)) == []


def test_memory_holds_only_the_images_in_work(zero_shot: tpt.ZeroShot) -> None:
    given: list[weakref.ref[np.ndarray]] = []

    def make(seed: int) -> np.ndarray:
        image = picture(0)
        given.append(weakref.ref(image))
        return image

    records = tpt.stream(Counted(make), zero_shot, batch_size=2, num_workers=1)
    alive = [sum(image() is not None for image in given) for _ in itertools.islice(records, 40)]
    records.close()
    assert len(given) >= 40
    assert max(alive) <= 6


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0; got -1"),
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_at_the_call(
    zero_shot: tpt.ZeroShot, settings: dict[str, int], words: str
) -> None:
    with pytest.raises(tpt.MethodError, match=words):
        tpt.stream([], zero_shot, **settings)


@pytest.mark.parametrize("images", ["photos", b"photos", Path("photos")])
def test_a_single_path_is_not_taken_for_a_list_of_letters(
    zero_shot: tpt.ZeroShot, images: Any
) -> None:
    with pytest.raises(tpt.MethodError, match="expected an iterable of images"):
        tpt.stream(images, zero_shot)
