"""`stream`: records for any iterable of images, lazily, in order, with bounded memory.

Images are pulled from the iterable a few ahead and decoded in threads (Pillow releases the
interpreter lock), made into views, encoded once and handed to the method in batches. A bad image
becomes a record with an error; the others go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tpt.errors import ImageError, MethodError
from tpt.images.decode import Picture, is_one_image, load_picture
from tpt.images.views import Views
from tpt.methods.base import Adapted, Method
from tpt.model.clip import Clip
from tpt.model.surroundings import check_process
from tpt.streaming._ahead import map_ahead
from tpt.streaming.records import Adaptation, Failure, Prediction, Record


@dataclass(frozen=True, eq=False)
class Loaded:
    """One item of the stream after decoding: the picture, or why there is none."""

    index: int
    path: str | None
    picture: Picture | None
    error: Failure | None = None


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
        batch_size: images adapted together; default `Clip.batch_size`.
        num_workers: decoding threads; 0 decodes in the caller's thread, without reading ahead.
        top_k: predictions a record.
        strict: raise `ImageError` at the first bad image, after the records before it.

    Raises:
        MethodError: a setting out of its range, a single path in place of an iterable, views made
            for another model; at the first record, a method with state that serves another stream.
        ModelError: in a forked process, where torch's threads would hang.
        ImageError: a bad image, with `strict`.
        Exception: whatever `images` raises, after the records of what it gave before.
    """
    if is_one_image(images):
        raise MethodError(
            f"images is a single {type(images).__name__}; expected an iterable of images. Put it "
            "in a list, or list a folder first."
        )
    clip = method.engine.clip
    batch_size = clip.batch_size if batch_size is None else batch_size
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
        ("top_k", top_k, 1),
    ):
        if value < least:
            raise MethodError(f"{name} must be at least {least}; got {value}.")
    views = Views(clip) if views is None else views
    views.check_model(clip)
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
    check_process()
    ahead = closing(decode_ahead(images, num_workers, batch_size))
    with method.serving(), ahead as loaded:
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
    work = load or load_item
    return map_ahead(lambda numbered: work(*numbered), enumerate(images), num_workers, ahead)


def load_item(index: int, item: Any) -> Loaded:
    """Decode one item; what is wrong with it is data, not an exception."""
    path = os.fsdecode(item) if isinstance(item, (str, os.PathLike)) else None
    return load_as(index, path, lambda: item)


def load_as(index: int, path: str | None, find: Callable[[], Any]) -> Loaded:
    """Decode what `find` returns under the name `path`; an `ImageError` becomes its failure."""
    try:
        return Loaded(index, path, load_picture(find()))
    except ImageError as error:
        return Loaded(index, path, None, Failure("ImageError", str(error)))


def predict_batch(
    batch: list[Loaded], method: Method, views: Views, top_k: int
) -> Iterator[Record]:
    """Records of one batch, bad images included, in order."""
    started = time.perf_counter()
    records = {item.index: Record(item.path, item.index, error=item.error) for item in batch}
    good = [item for item in batch if item.picture is not None]
    outcomes = adapt_batch(good, method, views) if good else {}
    ms = (time.perf_counter() - started) * 1e3 / max(1, len(good))
    for item in good:
        out = outcomes.get(item.index)
        if out is None or not out.is_finite:
            failure = OVERFLOW if out is None else DIVERGED
            records[item.index] = Record(item.path, item.index, error=failure)
        else:
            records[item.index] = describe(item, out, method, top_k, ms)
    yield from records.values()


def adapt_batch(items: list[Loaded], method: Method, views: Views) -> dict[int, Adapted]:
    """The outcome of every image, by its index; without those whose features overflowed.

    The method sees the views it asks for first; all of them are made and encoded only for the
    images that it cannot decide by those.
    """
    outcomes: dict[int, Adapted] = {}
    features = torch.empty(0)
    encoded: int | None = 0  # how many views of an image the features are of; None for all
    while items:
        if method.first_views != encoded:
            encoded = method.first_views
            features, items = encode(items, method.engine.clip, views, encoded)
            if not items:
                break
        out, undecided = method.begin(features)
        needs = [False] * len(items) if undecided is None else undecided.tolist()
        outcomes |= {
            item.index: out.image(place) for place, item in enumerate(items) if not needs[place]
        }
        features = features[needs]
        items = [item for item, need in zip(items, needs, strict=True) if need]
        method = method.go_on
    return outcomes


OVERFLOW = Failure(
    "ModelError",
    "The image tower gave NaN or infinite features for this image. Try --precision fp32 or bf16.",
)

DIVERGED = Failure(
    "MethodError",
    "Adaptation gave NaN or infinite numbers for this image. Use settings nearer to the published "
    "ones, for example a smaller --lr.",
)


def encode(
    items: list[Loaded], clip: Clip, views: Views, count: int | None = None
) -> tuple[Tensor, list[Loaded]]:
    """Encode the images' views, each once.

    Args:
        items: images that could be decoded.
        clip: the model.
        views: what makes their views.
        count: how many views are encoded, the first ones; default all.

    Returns:
        Unit features (B, N, E) of the images whose features are finite, and these images.
    """
    room = clip.images_a_pass(len(items))  # one image's views at a time need less memory
    parts = []
    for first in range(0, len(items), room):
        pictures = [item.picture for item in items[first : first + room]]
        made = views.plain(pictures) if count == 1 else views(pictures)
        parts.append(clip.encode_views(made[:, :count]))
    features = torch.cat(parts)
    finite = features.isfinite().all(-1).all(-1)
    sound = [item for item, fine in zip(items, finite.tolist(), strict=True) if fine]
    return features[finite], sound


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
        warning=item.picture.warning if item.picture else None,
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
