"""A method's results on n images as a few numbers an image: what metrics are computed from.

Whole probability vectors of 50,000 images x 1,000 classes x 8 methods would not fit in memory;
these do, at eight bytes a number.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tpt.errors import MethodError, OutputError


@dataclass(frozen=True, eq=False)
class ImageScores:
    """One method's results on n images of one set; every array is (n,)."""

    label: npt.NDArray[Any]  # the true class, 0 to classes - 1
    predicted: npt.NDArray[Any]  # the class put first
    rank: npt.NDArray[Any]  # the place of the true class, 0 where the prediction is right
    score: npt.NDArray[Any] | None  # probability of the predicted class; None: the method votes
    nll: npt.NDArray[Any] | None  # -ln of the true class's probability, nats
    brier: npt.NDArray[Any] | None  # sum over classes of (probability - one-hot)^2, 0 to 2
    classes: int  # how many classes could be chosen


# --- checks ---


def check_scores(name: str, own: ImageScores) -> None:
    """Refuse impossible numbers.

    Raises:
        MethodError: naming the first such number and its image.
    """
    places = {"label": own.label, "predicted": own.predicted, "rank": own.rank}
    found = {"score": own.score, "nll": own.nll, "brier": own.brier}
    numbers = {key: column for key, column in found.items() if column is not None}
    for key, column in (places | numbers).items():
        if column.shape != (len(own.label),):
            raise MethodError(
                f'"{name}" has a column "{key}" of shape {column.shape}, but expected one entry '
                f"for each of the {len(own.label)} labels. Give all columns for the same images."
            )
    for key, column in numbers.items():
        wrong = np.flatnonzero(~np.isfinite(column))
        if len(wrong):
            raise MethodError(
                f'"{name}" has a "{key}" that is not a finite number ({column[wrong[0]]}) for '
                f"image {wrong[0]}, so its mean says nothing. Compute it from log-probabilities in "
                "float64."
            )
    for key, column in places.items():
        wrong = np.flatnonzero((column < 0) | (column >= own.classes))
        if len(wrong):
            raise MethodError(
                f'"{name}" has "{key}" {column[wrong[0]]} for image {wrong[0]}, but expected 0 to '
                f"{own.classes - 1} with {own.classes} classes. Check the set's class list."
            )
    if own.score is not None and len(own.score):
        low, high = float(np.min(own.score)), float(np.max(own.score))
        if low < 0 or high > 1 + 1e-6:  # a softmax in float32 may end a little above 1
            raise MethodError(
                f'"{name}" has scores from {low:g} to {high:g}, but expected probabilities from 0 '
                "to 1. Give none for a method that votes."
            )
    wrong = np.flatnonzero((own.rank == 0) != (own.predicted == own.label))
    if len(wrong):
        place = int(wrong[0])
        raise MethodError(
            f'"{name}" contradicts itself at image {place}: the true class {own.label[place]} has '
            f"rank {own.rank[place]}, but class {own.predicted[place]} is predicted. Expected rank "
            "0 exactly where the prediction is right; break ties in one way for both."
        )


def check_pairing(name: str, own: ImageScores, baseline: str, other: ImageScores) -> None:
    """Refuse two methods that did not see the same images.

    Raises:
        MethodError: naming how they differ.
    """
    if own.classes != other.classes or not np.array_equal(own.label, other.label):
        raise MethodError(
            f'"{name}" ({len(own.label)} images, {own.classes} classes) and "{baseline}" '
            f"({len(other.label)} images, {other.classes} classes) have different labels, so they "
            "cannot be compared image by image. Run both on the same images in the same order."
        )


# --- from lines of predictions.jsonl ---


class _Growing:
    """One method's columns while they grow: 8 bytes a number, no Python object a number."""

    def __init__(self) -> None:
        self.predicted, self.rank = array("q"), array("q")
        self.numbers = {key: array("d") for key in ("score", "nll", "brier")}
        self.missing: set[str] = set()

    def append(self, made: Mapping[str, Any]) -> None:
        winner, score = made["top"][0]
        self.predicted.append(winner)
        self.rank.append(made["rank"])
        found = {
            "score": None if made.get("votes") else score,
            "nll": made["nll"],
            "brier": made["brier"],
        }
        for key, value in found.items():
            if value is None:
                self.missing.add(key)
            self.numbers[key].append(0.0 if value is None else value)

    def finish(self, label: npt.NDArray[Any], classes: int) -> ImageScores:
        numbers = {
            key: None if key in self.missing else np.asarray(column)
            for key, column in self.numbers.items()
        }
        return ImageScores(
            label, np.asarray(self.predicted), np.asarray(self.rank), classes=classes, **numbers
        )


def collect_scores(
    rows: Iterable[Mapping[str, Any]], methods: Sequence[str], classes: int
) -> dict[str, ImageScores]:
    """The columns of several methods from the parsed lines of one set, in one pass.

    Args:
        rows: lines of predictions.jsonl of one set, each image once:
            `{"key": ..., "label": ..., "methods": {name: {"top": [[class, probability], ...],
            "rank": ..., "nll": ..., "brier": ...}}}`; with "votes": true the second number of
            `top` is a count of votes. Lines with "error" are skipped; the caller counts them.
        methods: names of the methods to take; every line has them all.
        classes: how many classes the set has.

    Returns:
        One `ImageScores` a method, images in the order of the lines. `score` is None if any image
        was voted on, `nll` and `brier` if any line has null: a mean over some of the images could
        not be compared with the other methods' means.

    Raises:
        OutputError: a line without one of the methods or without its numbers.
    """
    labels = array("q")
    growing = {name: _Growing() for name in methods}
    for place, row in enumerate(rows):
        if "error" in row:
            continue
        name = None
        try:
            labels.append(row["label"])
            made = row["methods"]
            for name, columns in growing.items():
                columns.append(made[name])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            what = "its label and methods" if name is None else f'what "{name}" predicted'
            raise OutputError(
                f'Line {place + 1} of the set\'s predictions (picture "{row.get("key")}") lacks '
                f"{what}: expected label, and top, rank, nll and brier of every method of this "
                "run. Use a new output folder, or the methods that the folder was made with."
            ) from error
    label = np.asarray(labels)
    return {name: columns.finish(label, classes) for name, columns in growing.items()}
