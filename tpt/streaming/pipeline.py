"""`stream`: records for any iterable of images, lazily, in order, with bounded memory.

Images are pulled from the iterable a few ahead and decoded in threads (Pillow releases the
interpreter lock), made into views, encoded once and handed to the method in batches. A bad image
becomes a record with an error; the others go on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from tpt.errors import ImageError, MethodError
from tpt.images.decode import decode_image
from tpt.images.views import Views
from tpt.methods.base import Adapted, Method
from tpt.methods.gate import Gate
from tpt.streaming.records import Adaptation, Failure, Prediction, Record


@dataclass(frozen=True, eq=False)
class Loaded:
    """One item of the stream after decoding: pixels (H, W, 3), or why there are none."""

    index: int
    path: str | None
    pixels: npt.NDArray[Any] | None
    error: Failure | None

    @property
    def key(self) -> str | int:
        """What the image's views are drawn from."""
        return self.index if self.path is None else self.path


def stream(
    images: Iterable[Any],
    method: Method,
    views: Views | None = None,
    *,
    batch_size: int | None = None,
    num_workers: int = 2,
    top_k: int = 5,
    strict: bool = False,
) -> Iterator[Record]:
    """Predict every image of an iterable; a generator of records in the same order.

    Args:
        images: paths, PIL images, arrays (H, W, 3), tensors (3, H, W), or a mixture. Pulled
            lazily, at most `batch_size + 2 * num_workers` ahead of the batch at work.
        method: what predicts, e.g. `tpt.TPT(engine)`.
        views: what makes its views; default `tpt.Views(clip, n=64)`.
        batch_size: images adapted together; default 1 on a CPU (where more gains nothing and
            delays the first record) and 8 elsewhere.
        num_workers: decoding threads; 0 decodes in the caller's thread, without reading ahead.
        top_k: predictions a record.
        strict: raise `ImageError` at the first bad image, after the records before it.

    Raises:
        MethodError: a setting out of its range, or a single path in place of an iterable.
        ImageError: a bad image, with `strict`.
        Exception: whatever `images` raises, after the records of what it gave before.
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        raise MethodError(
            f"images is a single {type(images).__name__}; expected an iterable of images. Put it "
            "in a list, or list a folder first."
        )
    clip = method.engine.clip
    if batch_size is None:
        batch_size = 1 if clip.device.type == "cpu" else 8
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
        ("top_k", top_k, 1),
    ):
        if value < least:
            raise MethodError(f"{name} must be at least {least}; got {value}.")
    views = Views(clip) if views is None else views
    return _generate(images, method, views, batch_size, num_workers, top_k, strict)


def _generate(
    images: Iterable[Any],
    method: Method,
    views: Views,
    batch_size: int,
    num_workers: int,
    top_k: int,
    strict: bool,
) -> Iterator[Record]:
    method.start_stream()
    with closing(decode_ahead(images, num_workers, batch_size)) as loaded:
        for batch in cut_batches(loaded, batch_size):
            for record in predict_batch(batch, method, views, top_k):
                if strict and record.error is not None:
                    raise ImageError(_name_image(record, record.error.message))
                yield record


def cut_batches(loaded: Iterable[Loaded], size: int) -> Iterator[list[Loaded]]:
    """Lists of `size` items, the last one shorter; it comes even if the iterable then breaks."""
    batch: list[Loaded] = []
    try:
        for item in loaded:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _name_image(record: Record, message: str) -> str:
    """The message, led by the image's name where it does not say it already."""
    name = f"image {record.index}" if record.path is None else repr(record.path)
    return message if name in message else f"{name}: {message}"


def decode_ahead(
    images: Iterable[Any],
    num_workers: int,
    ahead: int,
    load: Callable[[int, Any], Loaded] | None = None,
) -> Generator[Loaded, None, None]:
    """Decode items in threads, in order, at most `ahead + 2 * num_workers` items ahead.

    `load` takes an item's place and the item; default `load_item`.
    """
    load = load or load_item
    if num_workers == 0:
        yield from (load(index, item) for index, item in enumerate(images))
        return
    waiting: deque[Future[Loaded]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="tpt-decode")
    failure: Exception | None = None
    try:
        items = enumerate(images)
        while True:
            while failure is None and len(waiting) < ahead + 2 * num_workers:
                try:
                    index, item = next(items)
                except StopIteration:
                    break
                except Exception as error:  # the caller's iterable broke: first finish what it gave
                    failure = error
                    break
                waiting.append(pool.submit(load, index, item))
            if not waiting:
                break
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def load_item(index: int, item: Any) -> Loaded:
    """Decode one item; what is wrong with it is data, not an exception."""
    path = os.fsdecode(item) if isinstance(item, (str, os.PathLike)) else None
    try:
        return Loaded(index, path, decode_image(item), None)
    except ImageError as error:
        return Loaded(index, path, None, Failure("ImageError", str(error)))


def predict_batch(
    batch: list[Loaded], method: Method, views: Views, top_k: int
) -> Iterator[Record]:
    """Records of one batch, bad images included, in order."""
    started = time.perf_counter()
    records = {item.index: Record(item.path, item.index, error=item.error) for item in batch}
    good = [item for item in batch if item.pixels is not None]
    outcomes = adapt_batch(good, method, views) if good else {}
    ms = (time.perf_counter() - started) * 1e3 / max(1, len(good))
    for item in good:
        out = outcomes.get(item.index)
        if out is None:
            records[item.index] = Record(item.path, item.index, error=_OVERFLOW)
        elif not bool(out.logits.isfinite().all()):
            records[item.index] = Record(item.path, item.index, error=_DIVERGED)
        else:
            records[item.index] = describe(item, out, method, top_k, ms)
    yield from records.values()


def adapt_batch(items: list[Loaded], method: Method, views: Views) -> dict[int, Adapted]:
    """The outcome of every image, by its index; without those whose features overflowed."""
    if isinstance(method, Gate) and method.reads_views:
        return adapt_gated(items, method, views)
    features, sound = keep_finite(encode(items, method, views), items)
    if not sound:
        return {}
    out = method.adapt_features(features)
    return {item.index: out.image(place) for place, item in enumerate(sound)}


def adapt_gated(items: list[Loaded], gate: Gate, views: Views) -> dict[int, Adapted]:
    """`adapt_batch` under a gate: all the views are encoded only of the images that need them."""
    features, sound = keep_finite(encode(items, gate, views, gate.settings.views), items)
    if not sound:
        return {}
    left, needs = gate.leave(features)
    outcomes = {
        item.index: left.image(place) for place, item in enumerate(sound) if not needs[place]
    }
    rest = [item for item, need in zip(sound, needs.tolist(), strict=True) if need]
    return outcomes | adapt_batch(rest, gate.method, views) if rest else outcomes


def keep_finite(features: Tensor, items: list[Loaded]) -> tuple[Tensor, list[Loaded]]:
    """The features (B, N, E) that are finite, and whose they are."""
    finite = features.isfinite().all(-1).all(-1)
    sound = [item for item, fine in zip(items, finite.tolist(), strict=True) if fine]
    return features[finite], sound


_OVERFLOW = Failure(
    "ModelError",
    "The image tower gave NaN or infinite features for this image. Try --precision fp32 or bf16.",
)

_DIVERGED = Failure(
    "MethodError",
    "Adaptation gave NaN or infinite numbers for this image. Use settings nearer to the published "
    "ones, for example a smaller --lr.",
)


def encode(items: list[Loaded], method: Method, views: Views, count: int | None = None) -> Tensor:
    """Unit features (B, N, E) of the images' views, or of the first `count`, each encoded once."""
    clip = method.engine.clip
    plain_only = count == 1 or not method.reads_views

    def encode_some(some: list[Loaded]) -> Tensor:
        pixels = [item.pixels for item in some]
        made = views.plain(pixels) if plain_only else views(pixels, [item.key for item in some])
        return clip.encode_views(made[:, :count])

    if clip.device.type == "cpu":  # one image's views at a time: less memory, the same bits
        return torch.cat([encode_some([item]) for item in items])
    return encode_some(items)


def describe(item: Loaded, out: Adapted, method: Method, top_k: int, ms: float) -> Record:
    """The record of one adapted image."""
    classes = method.engine.classes
    skipped = out.adapted is not None and not bool(out.adapted)
    adapt = None
    if skipped or out.entropy is not None:
        adapt = Adaptation(
            entropy_before=None if out.entropy is None else float(out.entropy),
            entropy_after=None if out.final_entropy is None else float(out.final_entropy),
            views_kept=len(out.selected),
            ms=ms,
            skipped=skipped,
        )
    votes = None if method.gives_probabilities else out.votes
    return Record(
        path=item.path,
        index=item.index,
        predictions=tuple(rank(out.logits, classes, top_k, votes)),
        zero_shot=next(rank(out.initial_logits, classes, 1)),
        adapt=adapt,
    )


def rank(
    logits: Tensor, classes: tuple[str, ...], top_k: int, votes: Tensor | None = None
) -> Iterator[Prediction]:
    """The best classes of logits (K,), best first, with their probabilities or their votes (K,)."""
    _, indices = logits.sort(descending=True, stable=True)
    chosen = indices[: min(top_k, len(classes))].tolist()
    if votes is not None:
        yield from (Prediction(classes[i], None, i, votes=int(votes[i])) for i in chosen)
        return
    scores = logits.softmax(-1)
    yield from (Prediction(classes[i], float(scores[i]), i) for i in chosen)
