"""A batch of decoded images: views, features, the method, records.

Every stage gives data or a failure; what goes wrong with an image at any of them becomes its record
and leaves the others alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from tpt.images.views import Views
from tpt.methods.base import Adapted, Method
from tpt.methods.fetching import fetch_outcome, find_sound
from tpt.model.clip import Clip
from tpt.streaming._stages import settle
from tpt.streaming.loading import Loaded
from tpt.streaming.records import Adaptation, Failure, Prediction, Record
from tpt.streaming.screen import Screen

T = TypeVar("T")


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
