"""A picture cannot end a run: what goes wrong with it at any stage is its record."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import tpt
from tpt.images import views as view_making
from tpt.images._errors import BrokenImageError
from tpt.methods.registry import make_method
from tpt.streaming import batches, loading, pipeline
from tpt.streaming._stages import describe_failure
from tpt.streaming.records import Record

COUNT, BAD = 8, 5


def picture(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (40, 48, 3), dtype=np.uint8)


ITEMS = [picture(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, ["cat", "dog", "cup"])


@pytest.fixture
def views(golden: SimpleNamespace) -> tpt.Views:
    return tpt.Views(golden.clip, n=4)


def timeless(records: Any) -> list[Record]:
    return [replace(r, adapt=replace(r.adapt, ms=0.0) if r.adapt else None) for r in records]


class Plugin(tpt.ZeroShot):
    """Another package's method, with a fault of its own."""

    def _adapt(self, features: torch.Tensor) -> Any:
        return super()._adapt(features)


Break = Callable[[pytest.MonkeyPatch, Any, Any, BaseException], None]


def is_bad(value: Any) -> bool:
    """Whether the bad picture is among what a stage is given."""
    pixels = getattr(value, "pixels", value)
    return isinstance(pixels, np.ndarray) and np.array_equal(pixels, ITEMS[BAD])


def break_decoding(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    load = loading.load_picture

    def raising(item: Any) -> Any:
        if is_bad(item):
            raise error
        return load(item)

    patch.setattr(loading, "load_picture", raising)


def break_copying(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    own = loading.own_item

    def raising(item: Any, *rest: Any) -> Any:
        if is_bad(item):
            raise error
        return own(item, *rest)

    patch.setattr(loading, "own_item", raising)


def break_resizing(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    resize = view_making.preprocess_plain

    def raising(pixels: torch.Tensor, facts: Any) -> torch.Tensor:
        if is_bad(pixels[0].permute(1, 2, 0).numpy()):
            raise error
        return resize(pixels, facts)

    patch.setattr(view_making, "preprocess_plain", raising)


def break_encoding(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    clip = method.engine.clip
    encode, target = clip.encode_views, views([ITEMS[BAD]])[0, 0]

    def raising(batch: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(one[0], target) for one in batch):
            raise error
        return encode(batch)

    patch.setattr(clip, "encode_views", raising)


def break_method(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    inner = method.go_on
    target = method.engine.clip.encode_views(views([ITEMS[BAD]])[:, :1])[0, 0]
    adapt = type(inner)._adapt

    def raising(self: Any, features: torch.Tensor) -> Any:
        if any(torch.allclose(one[0], target, atol=1e-5) for one in features):
            raise error
        return adapt(self, features)

    patch.setattr(type(inner), "_adapt", raising)


def break_describing(patch: pytest.MonkeyPatch, method: Any, views: Any, error: Exception) -> None:
    describe = batches.describe

    def raising(item: Any, *rest: Any, **more: Any) -> Record:
        if is_bad(item.picture):
            raise error
        return describe(item, *rest, **more)

    patch.setattr(batches, "describe", raising)


STAGES = {
    "Decoding": break_decoding,
    "Decoding ": break_copying,
    "Making views and encoding them": break_resizing,
    "Making views and encoding them ": break_encoding,
    "The method": break_method,
    "Describing it": break_describing,
}


def make(kind: str, engine: tpt.PromptEngine) -> tpt.methods.Method:
    if kind == "gated":
        return tpt.Gate(make_method("tps", engine), threshold=1.0)
    return Plugin(engine) if kind == "plugin" else make_method(kind, engine)


@pytest.mark.parametrize(("kind", "size"), [("plugin", 1), ("plugin", 8), ("gated", 8), ("tda", 8)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_stage_is_one_pictures_record(
    engine: tpt.PromptEngine,
    views: tpt.Views,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    size: int,
    kind: str,
) -> None:
    late = stage == "Describing it"  # then a method with state has learned from the picture
    good = ITEMS if late else ITEMS[:BAD] + ITEMS[BAD + 1 :]
    sound = timeless(tpt.stream(good, make(kind, engine), views))
    if late:
        sound.pop(BAD)
    method = make(kind, engine)
    with monkeypatch.context() as patch:
        STAGES[stage](patch, method, views, ValueError("a fault"))
        records = timeless(tpt.stream(ITEMS, method, views, batch_size=size))
    failed = records.pop(BAD)
    assert failed.error is not None
    assert failed.error.type == "ValueError"
    assert failed.error.message == f"{stage.strip()} failed for this image: ValueError: a fault."
    others = [replace(record, index=0) for record in records]
    assert others == [replace(record, index=0) for record in sound]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (tpt.MethodError("Too few views."), "MethodError", "Too few views."),
        (MemoryError(), "OutOfMemoryError", "needs more memory than there is. Use fewer --views"),
        (RuntimeError("CUDA out of memory"), "OutOfMemoryError", "--precision bf16"),
        (KeyError("x"), "KeyError", "The method failed for this image: KeyError: 'x'."),
    ],
)
def test_a_failure_says_what_to_do(
    engine: tpt.PromptEngine,
    views: tpt.Views,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: str,
    words: str,
) -> None:
    method = Plugin(engine)
    break_method(monkeypatch, method, views, error)
    record = list(tpt.stream(ITEMS, method, views, batch_size=4))[BAD]
    assert record.error is not None
    assert record.error.type == kind
    assert words in record.error.message


def test_ctrl_c_ends_the_run(
    engine: tpt.PromptEngine, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Plugin(engine)
    break_method(monkeypatch, method, views, KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        list(tpt.stream(ITEMS, method, views))


def test_strict_stops_at_a_fault_of_any_stage(
    engine: tpt.PromptEngine, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Plugin(engine)
    break_method(monkeypatch, method, views, ValueError("a fault"))
    records = tpt.stream(ITEMS, method, views, strict=True)
    for _ in range(BAD):
        next(records)
    with pytest.raises(tpt.ImageError, match=f"image {BAD}: The method failed"):
        next(records)


# --- decoders that hang ---


def test_a_decoder_that_hangs_costs_its_picture_alone(
    engine: tpt.PromptEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, release = loading.load_picture, threading.Event()

    def hanging(item: Any) -> Any:
        if is_bad(item):
            release.wait(30)
        return load(item)

    monkeypatch.setattr(loading, "load_picture", hanging)
    records = list(tpt.stream(ITEMS, Plugin(engine), time_limit=0.3))
    release.set()
    assert [r.index for r in records if r.error is not None] == [BAD]
    assert records[BAD].error is not None
    assert records[BAD].error.type == "TimeoutError"
    assert "it took longer than 0.3 s and was given up" in records[BAD].error.message


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_time_limit_is_a_time(engine: tpt.PromptEngine, value: float) -> None:
    with pytest.raises(tpt.MethodError, match="time_limit must be more than 0 seconds"):
        tpt.stream([], Plugin(engine), time_limit=value)


# --- memory ---


def test_out_of_memory_halves_the_pass_and_goes_on(
    engine: tpt.PromptEngine, views: tpt.Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = engine.clip
    sound = timeless(tpt.stream(ITEMS[:2], make("vte", engine), views))
    tower, sizes = clip._image_tower, []

    def small(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return tower(images)

    monkeypatch.setattr(clip, "_image_tower", small)
    monkeypatch.setattr(clip, "micro_batch", 4)
    monkeypatch.setattr(clip, "_has_warned", False)
    with pytest.warns(UserWarning, match="ran out of memory with 4 views in a pass") as caught:
        records = timeless(tpt.stream(ITEMS[:2], make("vte", engine), views))
    assert len(caught) == 1
    assert sizes == [4, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    assert clip.micro_batch == 1
    for record, known in zip(records, sound, strict=True):
        assert record.error is None
        assert [p.index for p in record.predictions] == [p.index for p in known.predictions]


# --- sources ---


def test_one_reused_buffer_is_many_pictures(engine: tpt.PromptEngine, views: tpt.Views) -> None:
    def arrays() -> Iterator[np.ndarray]:
        buffer = np.empty_like(ITEMS[0])
        for item in ITEMS:
            buffer[:] = item
            yield buffer

    def tensors() -> Iterator[torch.Tensor]:
        buffer = torch.empty(3, 40, 48, dtype=torch.uint8)
        for item in ITEMS:
            buffer.copy_(torch.from_numpy(item).permute(2, 0, 1))
            yield buffer

    def images() -> Iterator[Image.Image]:
        image = Image.new("RGB", (48, 40))
        for item in ITEMS:
            image.paste(Image.fromarray(item))
            yield image

    def views_of_one_array() -> Iterator[np.ndarray]:
        ring = np.empty((2, *ITEMS[0].shape), np.uint8)
        for number, item in enumerate(ITEMS):
            ring[number % 2] = item
            yield ring[number % 2]

    sound = timeless(tpt.stream(ITEMS, make("vte", engine), views))
    for source in (arrays, tensors, images, views_of_one_array):
        for workers, size in ((4, 3), (0, 1)):
            found = tpt.stream(
                source(), make("vte", engine), views, num_workers=workers, batch_size=size
            )
            assert timeless(found) == sound


def test_one_reused_buffer_of_encoded_bytes(engine: tpt.PromptEngine, views: tpt.Views) -> None:
    files = []
    for item in ITEMS:
        file = io.BytesIO()
        Image.fromarray(item).save(file, "BMP")  # all of one length
        files.append(file.getvalue())

    def buffers() -> Iterator[memoryview]:
        buffer = bytearray(len(files[0]))
        for data in files:
            buffer[:] = data
            yield memoryview(buffer)

    method = make("vte", engine)
    assert timeless(tpt.stream(buffers(), method, views, num_workers=3)) == timeless(
        tpt.stream(files, method, views)
    )


def test_frames_of_one_file_are_many_pictures(engine: tpt.PromptEngine, views: tpt.Views) -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(item) for item in ITEMS]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    frames = ImageSequence.Iterator(Image.open(file))
    method = make("vte", engine)
    found = [record.predictions for record in tpt.stream(frames, method, views, num_workers=4)]
    assert found == [record.predictions for record in tpt.stream(ITEMS, method, views)]


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (2, 8), (4, 3)])
def test_a_record_comes_when_its_picture_is_done(
    engine: tpt.PromptEngine, workers: int, size: int
) -> None:
    gate = threading.Semaphore(0)

    def camera() -> Iterator[np.ndarray]:
        for item in ITEMS:
            assert gate.acquire(timeout=30)
            yield item

    records = tpt.stream(camera(), Plugin(engine), num_workers=workers, batch_size=size)
    for number in range(COUNT):
        gate.release()  # only now is there a next picture
        started = time.monotonic()
        assert next(records).index == number
        assert time.monotonic() - started < 20
    assert list(records) == []


def test_a_source_that_stands_still_lets_its_reader_go(engine: tpt.PromptEngine) -> None:
    still = threading.Event()

    def source() -> Iterator[np.ndarray]:
        yield ITEMS[0]
        still.wait(30)

    records = tpt.stream(source(), Plugin(engine))
    assert next(records).error is None
    started = time.monotonic()
    records.close()
    assert time.monotonic() - started < 10
    still.set()


def test_batches_of_a_list_never_depend_on_the_clock(
    engine: tpt.PromptEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict, load = pipeline.launch_batch, loading.load_picture

    def count(batch: list[Any], **rest: Any) -> Any:
        sizes.append(len(batch))
        return predict(batch, **rest)

    def slow(item: Any) -> Any:
        time.sleep(0.1)
        return load(item)

    monkeypatch.setattr(pipeline, "launch_batch", count)
    monkeypatch.setattr(loading, "load_picture", slow)
    assert len(list(tpt.stream(ITEMS, Plugin(engine), batch_size=3))) == COUNT
    assert sizes == [3, 3, 2]


def test_the_pages_of_somebody_else_s_error_are_cut() -> None:
    told = describe_failure(NotImplementedError("Could not run it. " + "CPU, " * 900), "It")
    assert told.message.startswith("It failed for this image: NotImplementedError: Could not run")
    assert told.message.endswith(", ....")
    assert len(told.message) < 650


def test_a_record_names_the_public_error_type() -> None:
    private = BrokenImageError("cat.jpg is cut short.")
    assert describe_failure(private, "Decoding").type == "ImageError"

    class TheirError(tpt.TptError):
        pass

    assert describe_failure(TheirError("No."), "The method").type == "TheirError"
    assert describe_failure(ValueError("odd"), "The method").type == "ValueError"


def test_what_cannot_be_iterated_over_is_told(engine: tpt.PromptEngine) -> None:
    async def camera() -> AsyncIterator[np.ndarray]:
        yield ITEMS[0]

    for source, name in ((camera(), "async_generator"), (None, "NoneType"), (3, "int")):
        with pytest.raises(tpt.MethodError, match=f"images is a {name}, which cannot be iterated"):
            tpt.stream(source, Plugin(engine))  # type: ignore[arg-type]


def test_masked_pixels_are_told(engine: tpt.PromptEngine) -> None:
    masked = np.ma.masked_array(ITEMS[0], ITEMS[0] > 100)
    plain = np.ma.masked_array(ITEMS[0])
    first, second = tpt.stream([masked, plain], Plugin(engine))
    assert first.warning == "Some pixels are masked: they were read as they are stored."
    assert second.warning is None
