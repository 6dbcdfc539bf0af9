"""`stream`: records for any iterable of images, lazily, in order, with bounded memory.

Images are pulled from the iterable a few ahead and decoded in threads (Pillow releases the
interpreter lock), made into views, encoded once and handed to the method in batches. A bad image
becomes a record with an error, whatever goes wrong with it at any stage; the others go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from tpt.errors import ImageError, MethodError
from tpt.images.decode import Picture, is_one_image, load_picture
from tpt.images.views import Views
from tpt.methods.base import Adapted, Method
from tpt.methods.fetching import fetch_outcome, find_sound
from tpt.model.clip import Clip
from tpt.model.surroundings import check_process
from tpt.streaming._ahead import Ahead, map_ahead
from tpt.streaming._processes import Decoders, find_decoders
from tpt.streaming._stages import describe_failure, settle
from tpt.streaming.items import Item
from tpt.streaming.records import Adaptation, Failure, Prediction, Record
from tpt.streaming.screen import Screen

TIME_LIMIT = 60.0
"""Seconds that the decoding of one image may take."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Loaded:
    """One item of the stream after decoding: the picture, or why there is none."""

    index: int
    path: str | None
    picture: Picture | None
    error: Failure | None = None
    item: Item | None = None  # what it was decoded from, where that was one


Decode: TypeAlias = "Callable[[Any], Picture | Failure]"

Decoding: TypeAlias = "Ahead[tuple[int, Any], Loaded] | Generator[Loaded, None, None]"
"""Items as they are decoded; `close` ends it."""


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
            a mixture. Pulled lazily, in a thread of its own, at most `batch_size + 2 * num_workers`
            ahead of the batch at work. What the caller could change later is copied or decoded
            before the next item is pulled; a path is read when its turn comes, so a file that is
            written anew for every frame is given as its bytes. From an iterable that is no sequence
            a record comes when its picture is done: a batch is cut where the next picture is not
            there.
        method: what predicts, e.g. `tpt.TPT(engine)`.
        views: what makes its views; default `tpt.Views(clip, n=64)`.
        batch_size: images adapted together; default `Method.batch_size`.
        num_workers: decoding threads; 0 pulls and decodes in the caller's thread, without reading
            ahead: then whole batches are waited for.
        top_k: predictions a record.
        strict: raise `ImageError` at the first bad image, after the records before it.
        time_limit: seconds after which the decoding of an image is given up, where there are
            decoding threads; None: never.
        decode_in: "threads", or "processes": each thread has one, so that a decoder that crashes,
            or is ended, costs its picture alone. Encoded pictures go there (paths, bytes, open
            files, `Item`); what is pixels already, and PIL images, stay in this process.
        screen: encode in full precision only the views that it finds likely to be kept.

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
    if not hasattr(images, "__iter__") and not hasattr(images, "__getitem__"):
        raise MethodError(
            f"images is a {type(images).__name__}, which cannot be iterated over; expected an "
            "iterable of images. Put what it gives into a list, or into a generator (def, yield)."
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
    loaded = partial(decode_ahead, images, num_workers, batch_size, None, time_limit, decoders)
    # Batches of a sequence never depend on the clock, nor do those that decide together.
    listed = isinstance(images, Sequence) or not getattr(images, "live", True)
    live = not listed and method.together is None
    predict = partial(predict_batch, method=method, views=views, top_k=top_k, screen=screen)
    return _generate(loaded, decoders, method, predict, batch_size, strict, live)


def _generate(
    start: Callable[[], Decoding],
    decoders: Decoders | None,
    method: Method,
    predict: Callable[[list[Loaded]], Iterator[Record]],
    batch_size: int,
    strict: bool,
    live: bool,
) -> Iterator[Record]:
    check_process()
    # The processes end first: then nobody waits for the threads that wait for them.
    with method.serving(), closing(start()) as loaded, decoders or nullcontext():
        shot = -1
        for batch in cut_batches(loaded, batch_size, live=live):
            if _begins(batch[0]):
                shot += 1
                method.start_stream()
            for loaded_one, record in zip(batch, predict(batch), strict=True):
                item = loaded_one.item
                if item is not None and item.frame is not None:
                    record = replace(record, time=item.time, frame=item.frame, shot=max(shot, 0))
                if strict and record.error is not None:
                    raise ImageError(_name_image(record, record.error.message))
                yield record


def _begins(loaded: Loaded) -> bool:
    """Whether a shot of a film begins with a picture: then none before it shares its batch."""
    return loaded.item is not None and loaded.item.begins


def cut_batches(
    loaded: Iterable[Loaded], size: int, *, live: bool = False
) -> Iterator[list[Loaded]]:
    """Lists of `size` items, the last one shorter; it comes even if the iterable then breaks.

    A `live` source's are shorter where the next item is not there.
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


def _name_image(record: Record, message: str) -> str:
    """The message, led by the image's name where it does not say it already."""
    name = f"image {record.index}" if record.path is None else repr(record.path)
    return message if name in message else f"{name}: {message}"


def decode_ahead(
    images: Iterable[Any],
    num_workers: int,
    ahead: int,
    load: Callable[[int, Any], Loaded] | None = None,
    time_limit: float | None = TIME_LIMIT,
    decoders: Decoders | None = None,
) -> Decoding:
    """Decode items in threads, in order, at most `ahead + 2 * num_workers` items ahead.

    `load` takes an item's place and the item; default `load_item`, with the `decoders`. Items that
    it is given must not be changed by whoever gave them.
    """
    owns = load is None
    if decoders is not None:
        load, time_limit = partial(load_item, decode=decoders), decoders.longest_wait

    def own(numbered: tuple[int, Any]) -> tuple[int, Any]:
        return numbered[0], own_item(numbered[1], decoders) if owns else numbered[1]

    def fail(numbered: tuple[int, Any], error: Exception) -> Loaded:
        index, item = numbered
        path = getattr(item, "key", None) or _find_path(item)
        return Loaded(index, path, None, describe_failure(error, "Decoding"))

    return map_ahead(
        lambda numbered: (load or load_item)(*numbered),
        enumerate(images),
        num_workers,
        ahead,
        take=own,
        fail=fail,
        weigh=weigh_pixels,
        time_limit=time_limit,
    )


def own_item(item: Any, decode: Decode | None = None) -> Any:
    """An item that nobody else can change: itself, a copy, or what decoding it gives."""
    if isinstance(item, (str, bytes, os.PathLike, Item)) or item is None:
        return item
    if isinstance(item, np.ndarray):
        return item.copy()
    if isinstance(item, Tensor):
        return item.detach().clone()
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    # PIL's are loaded in place, and one object may be many frames.
    return (decode or load_picture)(item)


def weigh_pixels(value: Any) -> int:
    """The bytes of a decoded picture, or of an item that has pixels."""
    held = value[1] if isinstance(value, tuple) else value.picture
    held = held.pixels if isinstance(held, Picture) else held
    return int(getattr(held, "nbytes", 0))


def load_item(index: int, item: Any, decode: Decode | None = None) -> Loaded:
    """Decode one item; what is wrong with it is data, not an exception."""
    if isinstance(item, Item):
        return replace(load_as(index, item.key, item.read, decode), item=item)
    return load_as(index, _find_path(item), lambda: item, decode)


def _find_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, (str, os.PathLike)) else None


def load_as(
    index: int, path: str | None, find: Callable[[], Any], decode: Decode | None = None
) -> Loaded:
    """Decode what `find` returns under the name `path`; what it raises becomes its failure."""
    try:
        found = find()
        if not isinstance(found, (Picture, Failure)):
            found = (decode or load_picture)(found)
        if isinstance(found, Failure):
            return Loaded(index, path, None, found)
        return Loaded(index, path, found)
    except Exception as error:
        return Loaded(index, path, None, describe_failure(error, "Decoding"))


def predict_batch(
    batch: list[Loaded], method: Method, views: Views, top_k: int, screen: Screen | None = None
) -> Iterator[Record]:
    """Records of one batch, bad images included, in order."""
    started = time.perf_counter()
    good = [item for item in batch if item.picture is not None]
    outcomes = adapt_batch(good, method, views, screen=screen)
    ms = (time.perf_counter() - started) * 1e3 / max(1, len(good))
    for item in batch:
        yield make_record(item, item.error or outcomes[item.index], method, top_k, ms)


def make_record(
    item: Loaded, outcome: Adapted | Failure, method: Method, top_k: int, ms: float
) -> Record:
    """The record of one item: what came of it, or why nothing did."""
    told: Record | Failure
    if isinstance(outcome, Adapted):
        told = settle(
            lambda items: [describe(item, outcome, method, top_k, ms)], [item], "Describing it"
        )[0]
    else:
        told = outcome
    return Record(item.path, item.index, error=told) if isinstance(told, Failure) else told


def adapt_batch(
    items: list[Loaded],
    method: Method,
    views: Views,
    rows: Mapping[int, Tensor] | None = None,
    screen: Screen | None = None,
) -> dict[int, Adapted | Failure]:
    """The outcome of every image, by its index, or why there is none.

    The method sees the views it asks for first; all of them are made and encoded only for the
    images that it cannot decide by those.

    Args:
        items: the images, each of another index.
        method: what predicts.
        views: what makes their views.
        rows: features (`method.first_views`, E) by index, where they are encoded already.
        screen: how views are encoded where the method reads all of them.
    """
    if method.needs_pictures:
        return adapt_pictures(items, method, views)
    outcomes: dict[int, Adapted | Failure] = {}
    # How many views of an image `rows` are of; None for all.
    encoded: int | None = 0 if rows is None else method.first_views
    rows = rows or {}
    while items:
        if method.first_views != encoded:
            encoded = method.first_views
            clip = method.engine.clip
            look = clip.encode_views
            if screen is not None and encoded is None:
                look = partial(screen.encode, clip, methods=[method])
            found = encode(items, clip, views, encoded, look, check=method.weighs_others)
            rows, items = part_failures(found, items, outcomes)
            if not items:
                break
        start = partial(begin, rows=rows, method=method)
        one, all_ = method.keeps_state, method.together is not None
        begun = settle(start, items, "The method", alone=one, whole=all_)
        told, items = part_failures(begun, items, outcomes)
        outcomes |= {index: out for index, (out, undecided) in told.items() if not undecided}
        items = [item for item in items if item.index not in outcomes]
        method = method.go_on
    return outcomes


def adapt_pictures(
    items: list[Loaded], method: Method, views: Views
) -> dict[int, Adapted | Failure]:
    """The outcome of every image under a method that tunes the image tower on all of them."""

    def work(group: Sequence[Loaded]) -> list[Adapted]:
        out, _ = fetch_outcome(method.adapt(views.plain([item.picture for item in group])))
        return [out.image(place) for place in range(len(group))]

    outcomes: dict[int, Adapted | Failure] = {}
    for item, one in zip(items, settle(work, items, "The method", whole=True), strict=True):
        broken = isinstance(one, Adapted) and not one.is_finite
        outcomes[item.index] = DIVERGED if broken else one
    return outcomes


def part_failures(
    found: Sequence[T | Failure], items: list[Loaded], outcomes: dict[int, Any]
) -> tuple[dict[int, T], list[Loaded]]:
    """What was found, by index, and of which items; failures go to the outcomes."""
    sound: dict[int, T] = {}
    for item, result in zip(items, found, strict=True):
        if isinstance(result, Failure):
            outcomes[item.index] = result
        else:
            sound[item.index] = result
    return sound, [item for item in items if item.index in sound]


def begin(
    items: Sequence[Loaded], rows: Mapping[int, Tensor], method: Method
) -> list[tuple[Adapted, bool] | Failure]:
    """(outcome, whether it is undecided) of images with these features, or why there is none."""
    features, sound = find_sound(torch.stack([rows[item.index] for item in items]))
    out, undecided = method.begin(features)
    undecided = torch.zeros_like(sound) if undecided is None else undecided
    out, (fine, needs) = fetch_outcome(out, sound, undecided)
    told: list[tuple[Adapted, bool] | Failure] = []
    for place, need in enumerate(needs):
        one = out.image(place)
        told.append((one, need) if need or one.is_finite else DIVERGED)
        told[place] = told[place] if fine[place] else OVERFLOW
    return told


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
    items: Sequence[Loaded],
    clip: Clip,
    views: Views,
    count: int | None = None,
    look: Callable[[Tensor], Tensor] | None = None,
    check: bool = True,
) -> list[Tensor | Failure]:
    """Encode the images' views, each once.

    Args:
        items: images that could be decoded.
        clip: the model.
        views: what makes their views.
        count: how many views are encoded, the first ones; default all.
        look: makes features (B, N, E) of views; default `clip.encode_views`.
        check: wait for the device to know whose features are not finite. Without it they are among
            the features, for whoever fetches the outcome to look at (`find_sound`).

    Returns:
        Unit features (N, E) of each image, or why it has none.
    """

    def work(group: Sequence[Loaded]) -> list[Tensor | Failure]:
        room = clip.images_a_pass(len(group))  # one image's views at a time need less memory
        parts = []
        for first in range(0, len(group), room):
            pictures = [item.picture for item in group[first : first + room]]
            made = views.plain(pictures) if count == 1 else views(pictures)
            parts.append((look or clip.encode_views)(made[:, :count]))
        features = torch.cat(parts)  # (B, N, E)
        if not check:
            return list(features)
        finite = features.isfinite().all(-1).all(-1).tolist()
        return [row if fine else OVERFLOW for row, fine in zip(features, finite, strict=True)]

    return settle(work, items, "Making views and encoding them")


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
    logits = out.logits if votes is not None else method.reading.scale(out.logits)
    return Record(
        path=item.path,
        index=item.index,
        predictions=tuple(rank(logits, classes, top_k, votes)),
        rejected=method.reading.rejects(out.logits),
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
