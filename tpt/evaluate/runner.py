"""Walks through the pictures of a set: decoded once, encoded once, judged by every method.

Lines come in the order of the plan (picture, variant, result set), so that a killed run can
continue after its last whole line.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tpt.corrupt.corruptions import corrupt
from tpt.data.labelled_sets import Sample, open_source
from tpt.evaluate.walks import Variant, Walk
from tpt.images.views import Views
from tpt.methods import Adapted, Method
from tpt.methods.fetching import fetch_outcome, find_sound
from tpt.streaming._ahead import map_ahead
from tpt.streaming._stages import describe_failure, settle
from tpt.streaming.batches import OVERFLOW, encode
from tpt.streaming.loading import Loaded, decode_ahead, load_as, pin_pixels, weigh_pixels
from tpt.streaming.pipeline import cut_batches, one_ahead
from tpt.streaming.records import PLACES, Failure
from tpt.streaming.screen import Screen

TOP = 5  # classes a line
Methods = dict[str, Method]
Line = dict[str, Any]
Answer = dict[str, dict[str, Any] | Failure]
"""By the method's name."""

_UNSTABLE = Failure(
    "MethodError",
    "gave NaN or infinite numbers for this image. Use settings nearer to the published ones, for "
    "example a smaller --lr.",
)


def run_walk(
    walk: Walk,
    methods: dict[str, Methods],
    views: Views,
    *,
    seed: int = 0,
    batch_size: int = 1,
    num_workers: int = 2,
    done: int = 0,
    screen: Screen | None = None,
) -> Generator[Line, None, None]:
    """The lines of predictions.jsonl of one walk; a generator.

    Args:
        methods: for each result set's name the methods, the baseline among them.
        views: what makes the views; only view 0 is made where no method reads more.
        seed: for corruptions on the fly.
        batch_size: pictures adapted together.
        num_workers: decoding threads, and as many that corrupt.
        done: how many lines of this walk exist already; they are left out. The walk starts again
            where a batch starts, so that numbers are those of an unbroken run. Pass 0 for methods
            that keep state; their state is not restored.
        screen: encode in full precision only the views that the methods are likely to keep.
    """
    for by_name in methods.values():
        for method in by_name.values():
            method.start_stream()
    first, skip = _find_start(walk, done, batch_size)
    samples = walk.set.samples[first:]
    clip = views.clip
    decoding = decode_ahead(samples, num_workers, batch_size, load_sample, device=clip.device)
    with closing(decoding) as loaded:
        encoded = (
            _encode_variant(items, variant, methods, views, screen)
            for batch in cut_batches(loaded, batch_size)
            for items, variant in _change_batch(
                batch, walk.variants, seed, num_workers, clip.device
            )
        )
        made: dict[int, list[Line]] = {}
        for part in one_ahead(encoded) if clip.works_ahead else encoded:
            for index, line in _judge_variant(part, samples, methods, views):
                made.setdefault(index, []).append(line)
            if part.variant is walk.variants[-1]:
                lines = [line for item in part.items for line in made.get(item.index, ())]
                yield from lines[skip:]
                made, skip = {}, 0


def _find_start(walk: Walk, done: int, batch_size: int) -> tuple[int, int]:
    """The picture to start at, and how many lines to leave out from there."""
    start, before, lines = 0, 0, 0
    for place, sample in enumerate(walk.set.samples):
        if place % batch_size == 0:
            start, before = place, lines
        lines += walk.lines(sample)
        if lines > done:
            return start, done - before
    return len(walk.set.samples), 0


def load_sample(index: int, sample: Sample) -> Loaded:
    """Decode one sample; a broken one is returned as a failure, not raised."""
    return load_as(index, sample.key, lambda: open_source(sample.source))


@dataclass(frozen=True, eq=False)
class _EncodedBatch:
    """One batch in one variant, encoded for all methods."""

    items: list[Loaded]
    variant: Variant
    encoded: dict[int, Tensor | Failure]  # by the place of the picture
    ms: float  # a picture


def _encode_variant(
    items: list[Loaded],
    variant: Variant,
    methods: dict[str, Methods],
    views: Views,
    screen: Screen | None,
) -> _EncodedBatch:
    good = [item for item in items if item.picture is not None]
    started = time.perf_counter()
    every = [method for by_name in methods.values() for method in by_name.values()]
    count = None if any(method.reads_views for method in every) else 1
    clip = every[0].engine.clip
    readers = [method.go_on for method in every if method.reads_views]
    encode_views = None
    if screen is not None and count is None:
        encode_views = partial(screen.encode, clip, methods=readers)
    check = any(method.weighs_others for method in every)
    found = encode(good, clip, views, count, encode_views, check) if good else []
    ms = (time.perf_counter() - started) * 1e3 / max(1, len(good))
    encoded = dict(zip((item.index for item in good), found, strict=True))
    return _EncodedBatch(items, variant, encoded, ms)


def _judge_variant(
    batch: _EncodedBatch, samples: Sequence[Sample], methods: dict[str, Methods], views: Views
) -> Iterator[tuple[int, Line]]:
    """(place of the picture, line) of one batch in one variant."""
    found: dict[tuple[str, int], Answer | Failure] = {}
    for result_set in batch.variant.result_sets:
        labels = {index: result_set.label(samples[index]) for index in batch.encoded}
        here = {index: row for index, row in batch.encoded.items() if labels[index] >= 0}
        found |= {(result_set.name, i): row for i, row in here.items() if isinstance(row, Failure)}
        rows = {index: row for index, row in here.items() if isinstance(row, Tensor)}
        if rows:
            features = torch.stack(list(rows.values()))
            by_name = methods[result_set.name]
            plain = None
            if any(method.needs_pictures for method in by_name.values()):
                plain = views.plain([item.picture for item in batch.items if item.index in rows])
            answers = judge(features, [labels[index] for index in rows], by_name, plain)
            found |= {(result_set.name, i): a for i, a in zip(rows, answers, strict=True)}
    for item in batch.items:
        for result_set in batch.variant.result_sets:
            label = result_set.label(samples[item.index])
            if label >= 0:
                line: Line = {"set": result_set.name, "key": item.path, "label": label}
                answer = item.error or found[result_set.name, item.index]
                yield item.index, line | _describe_line(answer, batch.ms)


def _change_batch(
    batch: Sequence[Loaded],
    variants: Sequence[Variant],
    seed: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[tuple[list[Loaded], Variant]]:
    """A batch in every variant; corruptions are made in threads, ahead of their use."""
    changes = any(variant.corruption is not None for variant in variants)
    changed = map_ahead(
        lambda pair: pin_pixels(_change(*pair, seed), device),
        ((item, variant) for variant in variants for item in batch),
        num_workers if changes else 0,
        len(batch),
        weigh=lambda one: weigh_pixels(one) if isinstance(one, Loaded) else 0,
    )
    with closing(changed):
        for variant in variants:
            yield list(islice(changed, len(batch))), variant


def _change(item: Loaded, variant: Variant, seed: int) -> Loaded:
    """The picture in this variant. Its views are drawn from the original's content."""
    if item.picture is None or variant.corruption is None:
        return item
    assert variant.severity is not None
    picture, key = item.picture, item.path or ""
    try:
        pixels = corrupt(picture.pixels, variant.corruption, variant.severity, seed, key)
    except Exception as error:
        return Loaded(item.index, item.path, None, describe_failure(error, "Corrupting"))
    return Loaded(item.index, item.path, replace(picture, pixels=pixels))


def _describe_line(answer: Answer | Failure, image_ms: float) -> Line:
    """The rest of a line: every method's answer, or why the picture has no prediction."""
    if not isinstance(answer, Failure):
        # A picture counts for all methods or for none, or they could not be compared.
        broken = {name: made for name, made in answer.items() if isinstance(made, Failure)}
        if not broken:
            return {"image_ms": round(image_ms, 3), "methods": answer}
        if OVERFLOW in broken.values():  # the tower's failure, and no method's
            return _describe_line(OVERFLOW, image_ms)
        first = next(iter(broken.values()))
        mark = " " if first is _UNSTABLE else ": "
        answer = Failure(first.type, f"{', '.join(broken)}{mark}{first.message}")
    return {"error": {"type": answer.type, "message": answer.message}}


def judge(
    features: Tensor, labels: Sequence[int], methods: Methods, plain: Tensor | None = None
) -> list[Answer]:
    """Every method's answers for B images, given their view features (B, N, E).

    Methods that encode pictures themselves are given `plain`, the plain views (B, 1, 3, H, W).

    Returns:
        For each image, by the method's name, its entry in a line, or why there is none.
    """
    answers: list[Answer] = [{} for _ in labels]
    for name, method in methods.items():
        started = time.perf_counter()
        entries = _run_method(method, features, labels, plain)
        ms = (time.perf_counter() - started) * 1e3 / len(labels)
        for answer, entry in zip(answers, entries, strict=True):
            answer[name] = entry if isinstance(entry, Failure) else entry | {"ms": round(ms, 3)}
    return answers


def _run_method(
    method: Method, features: Tensor, labels: Sequence[int], plain: Tensor | None
) -> list[dict[str, Any] | Failure]:
    """One method's entry for each image, less its time, or why there is none."""

    def work(places: Sequence[int]) -> list[dict[str, Any] | Failure]:
        part = features[list(places)] if len(places) < len(labels) else features
        part, sound = find_sound(part)
        if method.needs_pictures:
            assert plain is not None
            out = method.adapt(plain[list(places)])
        else:
            out = method.adapt_checked(part if method.reads_views else part[:, :1])
        out, (fine,) = fetch_outcome(out, sound)
        return [
            _summarise(out.image(number), labels[place], method) if fine[number] else OVERFLOW
            for number, place in enumerate(places)
        ]

    size = method.together or len(labels)
    return [
        entry
        for first in range(0, len(labels), size)
        for entry in settle(
            work,
            range(len(labels))[first : first + size],
            "The method",
            alone=method.keeps_state,
            whole=method.together is not None,
        )
    ]


def _summarise(out: Adapted, label: int, method: Method) -> dict[str, Any] | Failure:
    """One image's entry in a line, less its time."""
    if not out.is_finite:
        return _UNSTABLE
    raw = out.logits.double()
    logits = method.reading.scale(raw) if method.gives_probabilities else raw
    order = logits.argsort(descending=True, stable=True)
    best = order[:TOP].tolist()
    entry: dict[str, Any] = {"rank": int((order == label).nonzero())}
    if method.gives_probabilities:
        log_p = logits.log_softmax(-1)
        p = log_p.exp()
        entry["top"] = [[place, _round(p[place])] for place in best]
        entry["nll"] = _round(-log_p[label])
        entry["brier"] = _round(p.square().sum() - 2 * p[label] + 1)
        entry["energy"] = _round(method.reading.confidence(raw, "energy"))
    else:
        assert out.votes is not None
        entry["top"] = [[place, int(out.votes[place])] for place in best]
        entry |= {"votes": True, "nll": None, "brier": None}
    if out.entropy is not None:
        entry["entropy"] = [_round(out.entropy), _round(out.final_entropy)]
        kept = out.selected.tolist()
        entry["kept"] = kept
        entry["kept_entropy"] = [_round(out.view_entropy[place]) for place in kept]
    if out.adapted is not None and not bool(out.adapted):
        entry["skipped"] = True
    return entry


def _round(value: Tensor | None) -> float | None:
    return None if value is None else round(float(value), PLACES)
