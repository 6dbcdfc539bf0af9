"""From a batch of decoded images to records: make views, encode them, run the method.

Every stage gives data or a failure. An image that fails at any stage becomes an error record, and
the others go on.
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
from tpt.streaming._stages import describe_failure, settle
from tpt.streaming.loading import Loaded
from tpt.streaming.records import Adaptation, Failure, Prediction, Record
from tpt.streaming.screen import Screen

T = TypeVar("T")
EncodeViews = Callable[[Tensor], Tensor]
"""Makes features (B, N, E) of normalised views (B, N, 3, H, W)."""


def launch_batch(
    batch: list[Loaded], method: Method, views: Views, top_k: int, screen: Screen | None = None
) -> Callable[[], Iterator[Record]]:
    """Launch one batch on the device; the returned call waits for it and yields its records.

    The records are in order and include the error records of bad images. On an asynchronous device
    the next batch can be launched before this one is waited for.
    """
    started = time.perf_counter()
    good = [item for item in batch if item.picture is not None]
    wait = launch_outcomes(good, method, views, screen)
    launching = time.perf_counter() - started

    def finish() -> Iterator[Record]:
        waiting = time.perf_counter()
        outcomes = wait()
        seconds = launching + time.perf_counter() - waiting
        ms = seconds * 1e3 / max(1, len(good))
        for item in batch:
            yield make_record(item, item.error or outcomes[item.index], method, top_k, ms)

    return finish


def make_record(
    item: Loaded, outcome: Adapted | Failure, method: Method, top_k: int, ms: float
) -> Record:
    """The record of one item: its predictions, or why it has none."""
    if isinstance(outcome, Adapted):
        try:
            return describe(item, outcome, method, top_k, ms)
        except Exception as error:
            outcome = describe_failure(error, "Describing it")
    return Record(item.path, item.index, error=outcome)


def adapt_batch(
    items: list[Loaded],
    method: Method,
    views: Views,
    rows: Mapping[int, Tensor] | None = None,
    screen: Screen | None = None,
) -> dict[int, Adapted | Failure]:
    """The outcome of every image by its index, or why there is none.

    The method sees its first views of each image. All views are made and encoded only for the
    images that it cannot decide by those.

    Args:
        items: the images; their indices differ.
        rows: features (`method.first_views`, E) by index, if they are encoded already.
        screen: encodes the views of a method that reads all of them.
    """
    if method.needs_pictures:
        return adapt_pictures(items, method, views)
    outcomes: dict[int, Adapted | Failure] = {}
    # How many views of an image `rows` hold; None for all.
    encoded: int | None = 0 if rows is None else method.first_views
    rows = rows or {}
    while items:
        if method.first_views != encoded:
            encoded = method.first_views
            clip, encode_views = method.engine.clip, choose_encoder(method, screen)
            found = encode(items, clip, views, encoded, encode_views, method.weighs_others)
            rows, items = part_failures(found, items, outcomes)
            if not items:
                break
        start = partial(begin, rows=rows, method=method)
        one, all_ = method.keeps_state, method.together is not None
        begun = settle(start, items, "The method", alone=one, whole=all_)
        items = take_decided(begun, items, outcomes)
        method = method.go_on
    return outcomes


def launch_outcomes(
    items: list[Loaded], method: Method, views: Views, screen: Screen | None = None
) -> Callable[[], dict[int, Adapted | Failure]]:
    """Launch what `adapt_batch` computes; the returned call waits for it.

    That call computes step by step what cannot be launched at once: everything on a synchronous
    device, methods whose images depend on one another, and a batch that failed as a whole, whose
    images it tries one by one.
    """
    step_by_step = partial(adapt_batch, items, method, views, screen=screen)
    at_once = method.engine.clip.works_ahead and not (method.needs_pictures or method.weighs_others)
    if not items or not at_once:
        return step_by_step
    try:
        count = method.first_views
        rows = encode_group(items, method.engine.clip, views, count, choose_encoder(method, screen))
        launched = launch(rows, method)
    except Exception:
        return step_by_step

    def wait() -> dict[int, Adapted | Failure]:
        try:
            begun = collect(*fetch_outcome(*launched))
        except Exception:
            return step_by_step()
        outcomes: dict[int, Adapted | Failure] = {}
        rest = take_decided(begun, items, outcomes)
        known = dict(zip((item.index for item in items), rows, strict=True))
        same = method.go_on.first_views == count
        return outcomes | adapt_batch(rest, method.go_on, views, known if same else None, screen)

    return wait


def adapt_pictures(
    items: list[Loaded], method: Method, views: Views
) -> dict[int, Adapted | Failure]:
    """The outcome of every image under a method that tunes the image tower on all of them."""

    def work(group: Sequence[Loaded]) -> list[Adapted | Failure]:
        out, _ = fetch_outcome(method.adapt(views.plain([item.picture for item in group])))
        images = map(out.image, range(len(group)))
        return [image if image.is_finite else DIVERGED for image in images]

    found = settle(work, items, "The method", whole=True)
    return {item.index: one for item, one in zip(items, found, strict=True)}


def part_failures(
    found: Sequence[T | Failure], items: list[Loaded], outcomes: dict[int, Any]
) -> tuple[dict[int, T], list[Loaded]]:
    """(what was found, by index; the items it was found for). Failures go to the outcomes."""
    sound: dict[int, T] = {}
    for item, result in zip(items, found, strict=True):
        if isinstance(result, Failure):
            outcomes[item.index] = result
        else:
            sound[item.index] = result
    return sound, [item for item in items if item.index in sound]


def take_decided(
    begun: Sequence[Adapted | Failure | None],
    items: list[Loaded],
    outcomes: dict[int, Adapted | Failure],
) -> list[Loaded]:
    """Put what `begin` decided into the outcomes; the items that are left."""
    for item, outcome in zip(items, begun, strict=True):
        if outcome is not None:
            outcomes[item.index] = outcome
    return [item for item in items if item.index not in outcomes]


def begin(
    items: Sequence[Loaded], rows: Mapping[int, Tensor], method: Method
) -> list[Adapted | Failure | None]:
    """The outcomes of images with these features; None where all views are needed."""
    features = torch.stack([rows[item.index] for item in items])
    return collect(*fetch_outcome(*launch(features, method)))


def launch(features: Tensor, method: Method) -> tuple[Adapted, Tensor, Tensor]:
    """Of images (B, N, E): the outcome, (B,) finite features, (B,) undecided."""
    features, sound = find_sound(features)
    out, undecided = method.begin(features)
    return out, sound, torch.zeros_like(sound) if undecided is None else undecided


def collect(out: Adapted, flags: list[list[bool]]) -> list[Adapted | Failure | None]:
    """The outcomes of launched images one by one, once they are on the host."""
    outcomes: list[Adapted | Failure | None] = []
    for place, (finite, undecided) in enumerate(zip(*flags, strict=True)):
        if not finite:
            outcomes.append(OVERFLOW)
        elif undecided:
            outcomes.append(None)
        else:
            image = out.image(place)
            outcomes.append(image if image.is_finite else DIVERGED)
    return outcomes


OVERFLOW = Failure(
    "ModelError",
    "The image tower gave NaN or infinite features for this image. Try --precision fp32 or bf16.",
)
DIVERGED = Failure(
    "MethodError",
    "Adaptation gave NaN or infinite numbers for this image. Use settings closer to the published "
    "ones, for example a smaller --lr.",
)


def encode(
    items: Sequence[Loaded],
    clip: Clip,
    views: Views,
    count: int | None = None,
    encode_views: EncodeViews | None = None,
    check: bool = True,
) -> list[Tensor | Failure]:
    """Encode the views of images, each once.

    Args:
        items: images that could be decoded.
        count: encode only the first `count` views; default all.
        encode_views: makes features (B, N, E) of views; default `clip.encode_views`.
        check: report an image whose features are not finite as failed, which waits for the device.
            Otherwise the caller looks for them when it fetches the outcome (`find_sound`).

    Returns:
        Unit features (N, E) of each image, or why it has none.
    """

    def work(group: Sequence[Loaded]) -> list[Tensor | Failure]:
        features = encode_group(group, clip, views, count, encode_views)
        if not check:
            return list(features)
        finite = features.isfinite().all(-1).all(-1).tolist()
        return [row if fine else OVERFLOW for row, fine in zip(features, finite, strict=True)]

    return settle(work, items, "Making views and encoding them")


def encode_group(
    group: Sequence[Loaded],
    clip: Clip,
    views: Views,
    count: int | None,
    encode_views: EncodeViews | None,
) -> Tensor:
    """Features (B, N, E) of images; arguments as in `encode`."""
    room = clip.images_a_pass(len(group))  # fewer images a pass need less memory
    parts = []
    for first in range(0, len(group), room):
        pictures = [item.picture for item in group[first : first + room]]
        made = views.plain(pictures) if count == 1 else views(pictures)
        parts.append((encode_views or clip.encode_views)(made[:, :count]))
    return torch.cat(parts)


def choose_encoder(method: Method, screen: Screen | None) -> EncodeViews | None:
    """Encode with the screen if the method reads all views; None for the default."""
    if screen is None or method.first_views is not None:
        return None
    return partial(screen.encode, method.engine.clip, methods=[method])


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
    """The `top_k` classes of logits (K,), best first, with their probabilities or votes (K,)."""
    chosen = logits.argsort(descending=True, stable=True)[:top_k].tolist()
    if votes is not None:
        yield from (Prediction(classes[i], None, i, votes=int(votes[i])) for i in chosen)
        return
    scores = logits.softmax(-1)
    yield from (Prediction(classes[i], float(scores[i]), i) for i in chosen)
