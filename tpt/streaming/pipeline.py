"""`stream`: records for any iterable of images, lazily, in order, with bounded memory.

Images are pulled a few ahead and decoded, made into views, encoded once and given to the method in
batches. An image that fails at any stage becomes an error record, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tpt.errors import ImageError, MethodError
from tpt.images.decode import is_one_image
from tpt.images.views import Views
from tpt.methods.base import Method
from tpt.model.surroundings import check_process
from tpt.streaming._ahead import Ahead
from tpt.streaming._processes import Decoders, find_decoders
from tpt.streaming.batches import launch_batch
from tpt.streaming.loading import TIME_LIMIT, Decoding, Loaded, decode_ahead
from tpt.streaming.records import Record
from tpt.streaming.screen import Screen

T = TypeVar("T")


def stream(
    images: Iterable[Any],
    method: Method,
    views: Views | None = None,
    *,
    batch_size: int | None = None,
    num_workers: int = 2,
    top_k: int = 5,
    strict: bool = False,
    time_limit: float | None = TIME_LIMIT,
    decode_in: str = "threads",
    screen: Screen | None = None,
) -> Iterator[Record]:
    """Predict every image of an iterable; a generator of records in the same order.

    Args:
        images: paths, PIL images, arrays (H, W, 3), tensors (3, H, W), `Item`s (`tpt.rows`), or
            a mixture. They are pulled lazily in a separate thread, at most
            `batch_size + 2 * num_workers` ahead of the current batch. Anything the caller could
            change later is copied or decoded before the next item is pulled. A path is read when
            its turn comes, so if you rewrite one file for every frame, give its bytes instead.
            Unless `images` is a sequence, a batch ends early when the next picture is not there
            yet, so no record waits for it.
        method: what predicts, e.g. `tpt.TPT(engine)`.
        views: makes the views; default `tpt.Views(clip, n=64)`.
        batch_size: images adapted together; default `Method.batch_size`.
        num_workers: decoding threads. With 0, images are pulled and decoded in the caller's thread,
            without reading ahead, in whole batches.
        top_k: predictions a record.
        strict: raise `ImageError` at the first bad image, after the records before it.
        time_limit: seconds after which a decoding thread gives an image up; None: never.
        decode_in: "threads", or "processes": then each thread decodes in its own process, so that a
            crash costs one picture. Encoded pictures go there (paths, bytes, open files, `Item`);
            pixels and PIL images stay in this process.
        screen: encode in full precision only the views that it finds likely to be kept.

    Raises:
        MethodError: a setting out of its range, a single path instead of an iterable, views made
            for another model; at the first record, a stateful method that serves another stream.
        ModelError: in a forked process, where torch's threads would hang.
        ImageError: a bad image, with `strict`.
        Exception: whatever `images` raises, after the records of the images before.
    """
    if is_one_image(images):
        raise MethodError(
            f"images is a single {type(images).__name__}; expected an iterable of images. Put it "
            "in a list, or list a folder first."
        )
    if not hasattr(images, "__iter__") and not hasattr(images, "__getitem__"):
        raise MethodError(
            f"images is a {type(images).__name__}, which cannot be iterated over; expected an "
            "iterable of images. Put its images into a list, or into a generator (def, yield)."
        )
    clip = method.engine.clip
    batch_size = method.batch_size if batch_size is None else batch_size
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
        ("top_k", top_k, 1),
    ):
        if value < least:
            raise MethodError(f"{name} must be at least {least}; got {value}.")
    if time_limit is not None and not time_limit > 0:
        raise MethodError(f"time_limit must be more than 0 seconds; got {time_limit}.")
    views = Views(clip) if views is None else views
    views.check_model(clip)
    decoders = find_decoders(decode_in, time_limit)
    loaded = partial(
        decode_ahead, images, num_workers, batch_size, None, time_limit, decoders, clip.device
    )
    # The batches of a sequence, and of methods that decide a batch together, never depend on time.
    listed = isinstance(images, Sequence) or not getattr(images, "live", True)
    live = not listed and method.together is None
    launch = partial(launch_batch, method=method, views=views, top_k=top_k, screen=screen)
    ahead = not live and clip.works_ahead
    return _generate(loaded, decoders, method, launch, batch_size, strict, live, ahead)


def _generate(
    start: Callable[[], Decoding],
    decoders: Decoders | None,
    method: Method,
    launch: Callable[[list[Loaded]], Callable[[], Iterator[Record]]],
    batch_size: int,
    strict: bool,
    live: bool,
    ahead: bool,
) -> Iterator[Record]:
    check_process()
    # The processes end first, because threads wait for them.
    with method.serving(), closing(start()) as loaded, decoders or nullcontext():
        shot = -1
        batches = cut_batches(loaded, batch_size, live=live)
        launched = ((batch, launch(batch)) for batch in batches)
        for batch, wait in one_ahead(launched) if ahead else launched:
            if _begins(batch[0]):
                shot += 1
                method.start_stream()
            for loaded_one, record in zip(batch, wait(), strict=True):
                item = loaded_one.item
                if item is not None and item.frame is not None:
                    record = replace(record, time=item.time, frame=item.frame, shot=max(shot, 0))
                if strict and record.error is not None:
                    message = record.error.message
                    name = f"image {record.index}" if record.path is None else repr(record.path)
                    raise ImageError(message if name in message else f"{name}: {message}")
                yield record


def _begins(loaded: Loaded) -> bool:
    """Whether a shot of a film begins with this picture, which then starts a batch."""
    return loaded.item is not None and loaded.item.begins


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each after the next one was made; all of them even if the iterable raises."""
    waiting: list[T] = []
    try:
        for item in items:
            yield from waiting
            waiting = [item]
    except Exception:
        yield from waiting
        raise
    yield from waiting


def cut_batches(
    loaded: Iterable[Loaded], size: int, *, live: bool = False
) -> Iterator[list[Loaded]]:
    """Lists of `size` items; the last one is shorter, and comes even if the iterable then raises.

    From a `live` source a list ends early when the next item is not there yet.
    """
    batch: list[Loaded] = []
    try:
        for item in loaded:
            if batch and _begins(item):
                yield batch
                batch = []
            batch.append(item)
            early = live and isinstance(loaded, Ahead) and len(batch) < size and loaded.is_slow()
            if len(batch) == size or early:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
