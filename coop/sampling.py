"""Which pictures a few-shot run sees, drawn reproducibly from its seed.

The draw is the public CoOp program's. Python's own generator, with the run's seed, draws k pictures
of each class, in the order in which the training list names the classes; then min(k, 4) of each for
validation. So with a split file the pictures are the published ones. Classes are split into base
and new after the draw, as published.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace

from tpt.data.labelled_sets import Sample
from tpt.data.training_sets import TrainingSet, check_training_set
from tpt.errors import MethodError, SourceError
from tpt.text import some

VALIDATION_SHOTS = 4  # at most
CLASS_SPLITS = ("all", "base", "new")


def draw_shots(
    dataset: TrainingSet, shots: int | None, seed: int, split: str = "all"
) -> TrainingSet:
    """Draw the pictures of a run; return the set with those alone, and notes on the draw.

    Args:
        dataset: what there is. Where it has no validation or test pictures of its own, they are
            taken from the training pictures that were not drawn: validation as above, test the
            rest.
        shots: pictures a class; None takes all.
        split: "all" classes, the "base" ones (the first ceil(n / 2)) or the "new" ones.

    Raises:
        MethodError: shots below 1, unknown split.
        SourceError: fewer than two classes, or one without training pictures.
    """
    if shots is not None and shots < 1:
        raise MethodError(f"shots must be at least 1; got {shots}. `all` takes every picture.")
    check_training_set(dataset)
    rng = random.Random(seed)
    train, few = _draw(dataset.train, shots, rng)
    rest = _without(dataset.train, train)
    count = VALIDATION_SHOTS if shots is None else min(shots, VALIDATION_SHOTS)
    val, _ = _draw(dataset.val or rest, count, rng)
    test = dataset.test or tuple(_without(rest, val))
    notes = _tell_few(dataset, few, shots)
    whole = replace(dataset, train=tuple(train), val=tuple(val), test=test, notes=notes)
    return choose_classes(whole, split)


def _draw(
    items: Iterable[Sample], shots: int | None, rng: random.Random
) -> tuple[list[Sample], dict[int, int]]:
    """(k pictures of each class, how many there are in each class that has fewer)."""
    by_label: dict[int, list[Sample]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    drawn: list[Sample] = []
    few: dict[int, int] = {}
    for label, group in by_label.items():
        if shots is None or len(group) < shots:
            drawn += group  # all of them, and no number drawn from the generator
            if shots is not None:
                few[label] = len(group)
        else:
            drawn += rng.sample(group, shots)
    return drawn, few


def _without(items: Iterable[Sample], taken: Iterable[Sample]) -> list[Sample]:
    gone = {item.path for item in taken}  # under whatever label it was listed
    return [item for item in items if item.path not in gone]


def _tell_few(dataset: TrainingSet, few: dict[int, int], shots: int | None) -> tuple[str, ...]:
    if not few:
        return ()
    named = [f"{dataset.classes[label]} ({count})" for label, count in few.items()]
    return (
        f"{len(few)} of {len(dataset.classes)} classes have fewer than {shots} pictures and give "
        f"all they have: {some(named)}.",
    )


def choose_classes(draw: TrainingSet, split: str) -> TrainingSet:
    """The base or the new half of a draw, relabelled from 0.

    Raises:
        MethodError: unknown split.
        SourceError: too few classes to halve.
    """
    if split not in CLASS_SPLITS:
        raise MethodError(f'Unknown split of the classes "{split}": expected all, base or new.')
    if split == "all":
        return draw
    half = math.ceil(len(draw.classes) / 2)
    start, stop = (0, half) if split == "base" else (half, len(draw.classes))
    if len(draw.classes) < 4:
        raise SourceError(
            f"Base and new classes need at least two classes each, but there are "
            f"{len(draw.classes)} in all. Use --classes-split all."
        )

    def keep(items: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(
            replace(item, label=item.label - start) for item in items if start <= item.label < stop
        )

    return replace(
        draw,
        classes=draw.classes[start:stop],
        train=keep(draw.train),
        val=keep(draw.val),
        test=keep(draw.test),
    )
