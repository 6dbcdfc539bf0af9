"""`tpt.stream` is lazy, in order, bounded, and an image's record depends on that image alone."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from every_method import METHODS
from PIL import Image

import tpt
from tpt.methods.registry import make_method
from tpt.streaming import batches, loading
from tpt.streaming.pipeline import one_ahead
from tpt.streaming.records import Prediction, Record


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
    out = method.adapt(views([picture(0)]))
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


def test_one_picture_gets_one_answer_at_any_place(method: tpt.TPT, views: tpt.Views) -> None:
    first, other, again = timeless(tpt.stream([picture(0), picture(1), picture(0)], method, views))
    assert again == replace(first, index=2)
    assert other.adapt != first.adapt


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_same_bytes_get_the_same_answer_under_any_name(
    method: tpt.TPT, views: tpt.Views, tmp_path: Path, batch_size: int
) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b" / "c.png"]
    paths[1].parent.mkdir()
    for path in paths:
        Image.fromarray(picture(0)).save(path)
    items = [*paths, paths[0].read_bytes()]
    records = timeless(tpt.stream(items, method, views, batch_size=batch_size))
    assert len({replace(record, index=0, path=None) for record in records}) == 1


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


# --- every method ---

SPLIT = 0.455  # a threshold that some of eight pictures reach
COUNT = 8


@pytest.fixture(scope="module")
def small(golden: SimpleNamespace) -> tpt.PromptEngine:
    """An engine on the small seeded model, for many streams."""
    return tpt.PromptEngine(golden.clip, ["cat", "dog", "cup"])


@pytest.fixture
def few_views(golden: SimpleNamespace) -> tpt.Views:
    return tpt.Views(golden.clip, n=4)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names without a folder, so that their views are the same in every run."""
    monkeypatch.chdir(tmp_path)
    return save_pictures(Path(), COUNT)


def gated(name: str, engine: tpt.PromptEngine, **settings: Any) -> tpt.Gate:
    return tpt.Gate(make_method(name, engine), **{"threshold": SPLIT, **settings})


def was_skipped(record: Record) -> bool:
    return record.adapt is not None and record.adapt.skipped


@pytest.mark.parametrize("name", METHODS)
def test_a_record_says_what_the_method_found(
    small: tpt.PromptEngine, few_views: tpt.Views, name: str
) -> None:
    (record,) = tpt.stream([picture(5)], make_method(name, small), few_views)
    out = make_method(name, small).adapt(few_views([picture(5)])).image(0)
    order = out.logits.argsort(descending=True).tolist()
    assert [p.index for p in record.predictions] == order
    if name == "zero":
        assert [p.votes for p in record.predictions] == [int(out.votes[i]) for i in order]
        assert [p.score for p in record.predictions] == [None] * 3
    else:
        scores = out.logits.softmax(-1)
        known = pytest.approx([float(scores[i]) for i in order], abs=1e-5)
        assert [p.score for p in record.predictions] == known
        assert [p.votes for p in record.predictions] == [None] * 3
    assert record.zero_shot is not None
    assert record.zero_shot.index == int(out.initial_logits.argmax())
    if name == "zero_shot":
        assert record.adapt is None
        return
    assert record.adapt is not None
    assert record.adapt.entropy_before == pytest.approx(float(out.entropy), abs=1e-5)
    assert (record.adapt.entropy_after is None) is (out.final_entropy is None)
    assert record.adapt.views_kept == len(out.selected)
    assert not record.adapt.skipped


def test_of_equal_votes_the_winner_of_the_tie_comes_first() -> None:
    logits, votes = torch.tensor([2.0, 0.0, 2.5]), torch.tensor([2, 0, 2])
    ranked = list(batches.rank(logits, ("cat", "dog", "cup"), 5, votes))
    assert [(p.label, p.votes) for p in ranked] == [("cup", 2), ("cat", 2), ("dog", 0)]
    assert ranked[0] == Prediction("cup", None, 2, votes=2)


@pytest.mark.parametrize("gate", [None, {}, {"views": 3, "threshold": 0.4}])
@pytest.mark.parametrize("name", METHODS)
def test_batches_change_no_bit_of_any_method_under_a_gate_or_not(
    small: tpt.PromptEngine,
    few_views: tpt.Views,
    paths: list[str],
    name: str,
    gate: dict[str, Any] | None,
) -> None:
    if gate and not METHODS[name].needs_views:
        gate = {}  # there is but one view to look at
    items = [*paths[:3], "no-such-file.png", *paths[3:]]
    runs = []
    decided = METHODS[name].together is not None  # by a batch together: its size is the method's
    for size, workers in [(3, 2), (3, 0), (3, 1)] if decided else [(1, 2), (3, 0), (16, 1)]:
        method = make_method(name, small) if gate is None else gated(name, small, **gate)
        runs.append(
            timeless(tpt.stream(items, method, few_views, batch_size=size, num_workers=workers))
        )
    assert runs[0] == runs[1] == runs[2]
    assert [record.error is not None for record in runs[0]] == [i == 3 for i in range(COUNT + 1)]
    if gate is not None:
        assert 0 < sum(map(was_skipped, runs[0])) < COUNT


# --- under a gate ---


@pytest.mark.parametrize("name", [name for name, info in METHODS.items() if info.needs_views])
@pytest.mark.parametrize("looks_at", [1, 3])
def test_a_gated_stream_is_zero_shot_where_it_skips_and_the_method_elsewhere(
    small: tpt.PromptEngine, few_views: tpt.Views, paths: list[str], name: str, looks_at: int
) -> None:
    gate = gated(name, small, views=looks_at, threshold=0.42)
    records = timeless(tpt.stream(paths, gate, few_views, batch_size=3))
    alone = timeless(tpt.stream(paths, make_method(name, small), few_views))
    plain = timeless(tpt.stream(paths, tpt.ZeroShot(small)))
    for record, usual, zero_shot in zip(records, alone, plain, strict=True):
        if not was_skipped(record):
            assert record == usual
            continue
        assert record.zero_shot is not None
        assert zero_shot.zero_shot is not None
        assert record.predictions[0].index == record.zero_shot.index == zero_shot.zero_shot.index
        assert record.zero_shot.score == pytest.approx(zero_shot.zero_shot.score, abs=1e-5)
        assert record.adapt is not None
        assert record.adapt.entropy_before is record.adapt.entropy_after is None
    skipped = sum(map(was_skipped, records))
    assert 0 < skipped < COUNT
    assert (gate.seen, gate.skipped) == (COUNT, skipped)


@pytest.mark.parametrize("looks_at", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_other_views_are_encoded_only_of_images_that_need_them(
    small: tpt.PromptEngine,
    few_views: tpt.Views,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
    looks_at: int,
    batch_size: int,
) -> None:
    encoded: list[int] = []
    encode = small.clip.encode_views

    def count(views: torch.Tensor) -> torch.Tensor:
        encoded.extend([views.shape[1]] * views.shape[0])
        return encode(views)

    monkeypatch.setattr(small.clip, "encode_views", count)
    gate = gated("tps", small, views=looks_at, threshold=0.42)
    records = list(tpt.stream(paths, gate, few_views, batch_size=batch_size))
    needing = sum(not was_skipped(record) for record in records)
    assert 0 < needing < COUNT
    assert sorted(encoded) == [looks_at] * COUNT + [4] * needing


def overflowing(
    clip: tpt.Clip, views: tpt.Views, path: str, view: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let this view of this picture have features that are not finite."""
    target, encode = views([path])[0, view], clip.encode_views

    def overflow(batch: torch.Tensor) -> torch.Tensor:
        features = encode(batch)
        same = (batch == target).flatten(2).all(-1)  # (B, N)
        features[same] = float("nan")
        return features

    monkeypatch.setattr(clip, "encode_views", overflow)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("name", ["tpt", "zero", "vte"])
@pytest.mark.parametrize(
    ("of_skipped", "view", "fails"),
    [(True, 0, True), (False, 0, True), (False, 3, True), (True, 3, False)],
)
def test_features_that_are_not_finite_fail_their_own_image_under_a_gate(
    small: tpt.PromptEngine,
    few_views: tpt.Views,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
    name: str,
    batch_size: int,
    of_skipped: bool,
    view: int,
    fails: bool,
) -> None:
    """A view that is never looked at may be anything: a skipped image's others are not encoded."""
    sound = timeless(tpt.stream(paths, gated(name, small), few_views))
    bad = next(record.index for record in sound if was_skipped(record) is of_skipped)
    overflowing(small.clip, few_views, paths[bad], view, monkeypatch)
    records = timeless(tpt.stream(paths, gated(name, small), few_views, batch_size=batch_size))
    assert [record.index for record in records] == list(range(COUNT))
    assert [record.error is not None for record in records] == [
        fails and record.index == bad for record in sound
    ]
    if fails:
        error = records.pop(bad).error
        sound.pop(bad)
        assert error is not None
        assert error.type == "ModelError"
    assert records == sound


def test_a_gate_in_a_gate_streams_as_the_inner_one_if_the_outer_lets_all_through(
    small: tpt.PromptEngine, few_views: tpt.Views, paths: list[str]
) -> None:
    inner = timeless(tpt.stream(paths, gated("vte", small), few_views))
    outer = tpt.Gate(gated("vte", small), threshold=1.0)
    assert timeless(tpt.stream(paths, outer, few_views, batch_size=3)) == inner


# --- a method that learns from the stream ---


@pytest.mark.parametrize("keep", [None, 0.5])
def test_a_state_saved_in_the_middle_of_a_stream_goes_on_as_the_unbroken_one(
    small: tpt.PromptEngine,
    few_views: tpt.Views,
    paths: list[str],
    tmp_path: Path,
    keep: float | None,
) -> None:
    unbroken = timeless(tpt.stream(paths, tpt.TDA(small, keep=keep), few_views))
    first = tpt.TDA(small, keep=keep)
    records = tpt.stream(paths, first, few_views)
    half = timeless(itertools.islice(records, 4))
    first.save_state(tmp_path / "half.safetensors")
    second = tpt.TDA(small, keep=keep)
    second.load_state(tmp_path / "half.safetensors")
    rest = timeless(tpt.stream(paths[4:], second, few_views))
    assert half + [replace(record, index=record.index + 4) for record in rest] == unbroken
    assert half + timeless(records) == unbroken  # saving disturbed nothing


def test_a_state_is_for_one_stream_and_the_next_begins_anew(
    small: tpt.PromptEngine, paths: list[str], tmp_path: Path
) -> None:
    method = tpt.TDA(small)
    fresh = timeless(tpt.stream(paths, method))
    method.save_state(tmp_path / "s.safetensors")
    method.load_state(tmp_path / "s.safetensors")
    assert timeless(tpt.stream(paths, method)) != fresh
    assert timeless(tpt.stream(paths, method)) == fresh


def test_a_bad_image_leaves_no_trace_in_the_images_after_it(
    small: tpt.PromptEngine,
    few_views: tpt.Views,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
) -> None:
    others = [*paths[:2], *paths[3:]]
    sound = timeless(tpt.stream(others, tpt.TDA(small), few_views))
    overflowing(small.clip, few_views, paths[2], 0, monkeypatch)
    items = [*paths[:4], "no-such-file.png", *paths[4:]]
    records = timeless(tpt.stream(items, tpt.TDA(small), few_views, batch_size=4))
    assert [r.index for r in records if r.error is not None] == [2, 4]
    good = [replace(r, index=0) for r in records if r.error is None]
    assert good == [replace(record, index=0) for record in sound]


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
    decode, second_done = loading.load_picture, threading.Event()

    def wait_for_the_second(item: Any) -> Any:
        # What is decoded is a copy, so the item itself cannot be looked for.
        place = next(n for n, known in enumerate(items) if np.array_equal(item, known))
        if place == 0 and threading.current_thread() is not threading.main_thread():
            assert second_done.wait(10)
        pixels = decode(item)
        if place == 1:
            second_done.set()
        return pixels

    items = [picture(seed) for seed in range(5)]
    monkeypatch.setattr(loading, "load_picture", wait_for_the_second)
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


def test_one_ahead_gives_an_item_when_the_next_is_made_and_all_before_an_error() -> None:
    order: list[str] = []

    def make(count: int, fails: bool) -> Iterator[int]:
        for number in range(count):
            order.append(f"made {number}")
            yield number
        if fails:
            raise OSError("the source broke")

    for number in one_ahead(make(3, fails=False)):
        order.append(f"used {number}")
    assert order == ["made 0", "made 1", "used 0", "made 2", "used 1", "used 2"]
    assert list(one_ahead(make(0, fails=False))) == []
    used: list[int] = []
    with pytest.raises(OSError, match="the source broke"):
        used.extend(one_ahead(make(2, fails=True)))
    assert used == [0, 1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_device_that_works_ahead_changes_no_record(
    method: tpt.TPT, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    pictures: list[Any] = [np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 180, 250)]
    pictures.insert(2, tmp_path / "missing.png")

    def run() -> list[Record]:
        views = tpt.Views(method.engine.clip, n=4)
        return timeless(list(tpt.stream(pictures, method, views, batch_size=size)))

    expected = run()
    monkeypatch.setattr(tpt.Clip, "works_ahead", True)
    assert run() == expected
    assert [record.error is None for record in expected] == [True, True, False, True, True]
