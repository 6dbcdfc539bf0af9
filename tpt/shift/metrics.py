"""How good the predictions of several methods on the same images are, with intervals.

Accuracy, calibration and the comparison with a baseline are computed here and nowhere else. Point
values come from libraries that others check, from a few numbers an image (`Columns`) instead of
whole probability vectors, so that 50,000 images x 1,000 classes x 8 methods fit:

    accuracy                sklearn.metrics.accuracy_score
    mean per-class recall   sklearn.metrics.recall_score, averaged over the classes that have images
    calibration error       torchmetrics.functional.classification.binary_calibration_error
    McNemar's p             scipy.stats.binomtest

scikit-learn and torchmetrics want every class's probability for top-5 accuracy, negative
log-likelihood and Brier score; here those are means of what each image already carries.

    columns = columns_of(rows, ("zero-shot", "tpt"), classes=7)
    measured = measure_set(columns, "zero-shot")
    measured["tpt"].metrics["acc1"], measured["tpt"].intervals["acc1"]

Intervals are percentile bootstrap intervals over images (`tpt.shift.bootstrap`). Gaps between a
clean set and a shifted one compare two sets and are not computed here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tpt.errors import MethodError, OutputError, suggest
from tpt.shift.bootstrap import (
    Floats,
    Statistic,
    binned_gap_of,
    mean_of,
    mean_recall_of,
    percentile_interval,
    resample,
)

METRICS = ("acc1", "acc5", "mean_per_class_recall", "nll", "brier", "ece15", "ece20")
"""The keys of `Measured.metrics` and `Measured.intervals`, in this order."""

BINS = (15, 20)
"""Numbers of equal bins of the calibration error: 15 as in Guo et al., 20 as in other papers."""

FEWEST_FOR_TOP5 = 6
"""With five classes or fewer the top five are all of them."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What n images of one set got from one method; every array is (n,)."""

    label: npt.NDArray[Any]  # the true class, 0 to classes - 1
    predicted: npt.NDArray[Any]  # the class put first
    rank: npt.NDArray[Any]  # the place of the true class, 0 where the prediction is right
    score: npt.NDArray[Any] | None  # probability of the predicted class; None: the method votes
    nll: npt.NDArray[Any] | None  # -ln of the true class's probability, nats
    brier: npt.NDArray[Any] | None  # sum over classes of (probability - one-hot)^2, 0 to 2
    classes: int  # how many classes could be chosen


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram draws; one entry a bin, from the least confident to the most.

    Bin b of B holds confidences from b / B up to, not including, (b + 1) / B; the last holds 1 too.
    The sum of count * |accuracy - confidence| / images is the expected calibration error.
    """

    count: tuple[int, ...]  # images
    confidence: tuple[float | None, ...]  # mean probability of the predicted class; None: no images
    accuracy: tuple[float | None, ...]  # share that is right; None: no images


@dataclass(frozen=True)
class Versus:
    """A method against the baseline on the same images."""

    difference: float  # its acc1 minus the baseline's, -1 to 1
    interval: tuple[float, float]  # of the difference, paired bootstrap
    mcnemar_p: float  # exact, two-sided; 1 where the two are right on the same images
    put_right: int  # images that the baseline has wrong and the method right
    put_wrong: int  # images that the baseline has right and the method wrong


@dataclass(frozen=True)
class Measured:
    """One method on one set; `measure_set` has the formulas.

    `metrics` and `intervals` have the keys of `METRICS`; both are None at the same keys.
    """

    images: int
    metrics: dict[str, float | None]  # shares in [0, 1]; nll in nats, brier in [0, 2]
    intervals: dict[str, tuple[float, float] | None]  # low, high
    reliability: dict[int, Reliability] | None  # by number of bins; None: votes, or no images
    versus: Versus | None  # None: the baseline itself, or no images


# --- measuring ---


def measure_set(
    columns: Mapping[str, Columns],
    baseline: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Measured]:
    """Every metric of every method on one set, with intervals, and each against the baseline.

    For n images, true class y_i, predicted class c_i and its probability s_i:

    - acc1: the share of images with c_i = y_i.
    - acc5: the share with y_i among the five most probable; None with fewer than 6 classes.
    - mean_per_class_recall: the share that is right within each class, averaged over the classes
      that have images (balanced accuracy).
    - nll: mean of -ln p_i(y_i), in nats.
    - brier: mean of the sum over classes k of (p_i(k) - [k = y_i])^2, from 0 to 2 (Glenn Brier,
      "Verification of Forecasts Expressed in Terms of Probability", 1950; half of it is also in
      use for two classes).
    - ece15, ece20: expected calibration error, sum over bins b of |B_b| / n * |acc(B_b) -
      conf(B_b)|, over 15 and 20 equal bins of s_i (Guo et al., "On Calibration of Modern Neural
      Networks", 2017, 1706.04599). Bins are closed on the left, as torchmetrics has them, and not
      on the right, as the paper has them; the last bin holds 1.0 too.

    Where a method votes (`score`, `nll`, `brier` None) what needs probabilities is None.

    Intervals are percentile bootstrap intervals over images; all methods and metrics see the same
    draws. A draw averages recall over the classes it holds. Two limits: where every image is
    right, every draw is too, and the interval has no width; and a calibration error sums absolute
    values, which drawing again makes larger, so that its interval lies high and, for a
    well-calibrated method, may leave out the point value.

    `versus` has the difference in acc1, the interval of the difference over the same draws (paired
    bootstrap), and McNemar's exact test ("Note on the sampling error of the difference between
    correlated proportions or percentages", 1947): of the b + c images on which exactly one of the
    two is right, were the method no better or worse, each would fall to either with probability
    1/2; p is the two-sided binomial p, and 1 where b + c = 0.

    Args:
        columns: what each method gave for the same images in the same order, by method name.
        baseline: the method to compare with, one of `columns`.
        resamples: bootstrap draws, at least one.
        seed: of the draws; the same seed gives the same intervals.
        level: the share of draws inside an interval, between 0 and 1.

    Returns:
        One `Measured` a method, in the order of `columns`. With no images at all, every metric,
        interval, reliability and comparison is None.

    Raises:
        MethodError: no such baseline; methods that did not see the same images; labels,
            probabilities, ranks or losses that cannot be (a loss that is not finite among them);
            `resamples` below 1; `level` outside of 0 to 1.
    """
    if baseline not in columns:
        raise MethodError(
            f'The baseline "{baseline}" is not among the methods that were run: '
            f"{', '.join(columns) or 'none'}. Name one of them.{suggest(baseline, columns)}"
        )
    for name, own in columns.items():
        _check_columns(name, own)
        _check_pairing(name, own, baseline, columns[baseline])
    images = len(columns[baseline].label)
    if images == 0:
        return {name: _measure_nothing() for name in columns}
    drawn = resample(
        {
            (name, metric): statistic
            for name, own in columns.items()
            for metric, statistic in _describe_statistics(own).items()
        },
        images,
        resamples=resamples,
        seed=seed,
    )
    measured = {}
    for name, own in columns.items():
        spread = {key: drawn[name, key] for key in METRICS if (name, key) in drawn}
        versus = None
        if name != baseline:
            difference = spread["acc1"] - drawn[baseline, "acc1"]
            versus = _compare(own, columns[baseline], percentile_interval(difference, level))
        measured[name] = Measured(
            images=images,
            metrics=_compute_metrics(own),
            intervals={
                key: percentile_interval(spread[key], level) if key in spread else None
                for key in METRICS
            },
            reliability=None
            if own.score is None
            else {count: _bin_reliability(own, own.score, count) for count in BINS},
            versus=versus,
        )
    return measured


def _measure_nothing() -> Measured:
    return Measured(0, dict.fromkeys(METRICS), dict.fromkeys(METRICS), None, None)


def _compute_metrics(own: Columns) -> dict[str, float | None]:
    from sklearn.metrics import accuracy_score, recall_score

    metrics: dict[str, float | None] = dict.fromkeys(METRICS)
    metrics["acc1"] = float(accuracy_score(own.label, own.predicted))
    if own.classes >= FEWEST_FOR_TOP5:
        metrics["acc5"] = float(np.mean(own.rank < 5))
    # What balanced_accuracy_score computes, which warns of predictions outside of these classes.
    present = np.unique(own.label)
    metrics["mean_per_class_recall"] = float(
        recall_score(own.label, own.predicted, labels=present, average="macro")
    )
    if own.nll is not None:
        metrics["nll"] = float(np.mean(own.nll, dtype=np.float64))
    if own.brier is not None:
        metrics["brier"] = float(np.mean(own.brier, dtype=np.float64))
    if own.score is not None:
        for count in BINS:
            metrics[f"ece{count}"] = _measure_calibration(own, own.score, count)
    return metrics


def _describe_statistics(own: Columns) -> dict[str, Statistic]:
    """The metrics that are not None, as sums over images for the bootstrap."""
    right = own.predicted == own.label
    statistics = {"acc1": mean_of(right), "mean_per_class_recall": mean_recall_of(own.label, right)}
    if own.classes >= FEWEST_FOR_TOP5:
        statistics["acc5"] = mean_of(own.rank < 5)
    if own.nll is not None:
        statistics["nll"] = mean_of(own.nll)
    if own.brier is not None:
        statistics["brier"] = mean_of(own.brier)
    if own.score is not None:
        scores = _clip_scores(own.score)
        for count in BINS:
            statistics[f"ece{count}"] = binned_gap_of(
                right - scores, _find_bins(scores, count), count
            )
    return statistics


def _compare(own: Columns, baseline: Columns, interval: tuple[float, float]) -> Versus:
    from scipy.stats import binomtest

    right, before = own.predicted == own.label, baseline.predicted == baseline.label
    put_right = int(np.sum(right & ~before))
    put_wrong = int(np.sum(before & ~right))
    changed = put_right + put_wrong
    return Versus(
        difference=(put_right - put_wrong) / len(own.label),
        interval=interval,
        mcnemar_p=float(binomtest(put_right, changed, 0.5).pvalue) if changed else 1.0,
        put_right=put_right,
        put_wrong=put_wrong,
    )


# --- calibration ---


def _clip_scores(scores: npt.NDArray[Any]) -> Floats:
    """Probabilities just below 1 at most: torchmetrics puts exactly 1.0 in a bin of its own."""
    clipped: Floats = np.clip(scores.astype(np.float64), 0, np.nextafter(1, 0))
    return clipped


def _find_bins(scores: Floats, count: int) -> npt.NDArray[np.intp]:
    """The bin of each clipped score, (n,), at the very edges torchmetrics uses."""
    edges = torch.linspace(0, 1, count + 1, dtype=torch.float64).numpy()
    bins: npt.NDArray[np.intp] = np.searchsorted(edges, scores, side="right") - 1
    return bins


def _measure_calibration(own: Columns, scores: npt.NDArray[Any], count: int) -> float:
    """Top-label calibration error: the binary one of "the prediction is right"."""
    from torchmetrics.functional.classification import binary_calibration_error

    right = torch.from_numpy((own.predicted == own.label).astype(np.int64))
    confidence = torch.from_numpy(_clip_scores(scores))
    return float(binary_calibration_error(confidence, right, n_bins=count, norm="l1"))


def _bin_reliability(own: Columns, scores: npt.NDArray[Any], count: int) -> Reliability:
    clipped = _clip_scores(scores)
    bins = _find_bins(clipped, count)
    images = np.bincount(bins, minlength=count).tolist()

    def average(values: npt.NDArray[Any]) -> tuple[float | None, ...]:
        sums = np.bincount(bins, weights=values, minlength=count).tolist()
        return tuple(total / n if n else None for total, n in zip(sums, images, strict=True))

    return Reliability(tuple(images), average(clipped), average(own.predicted == own.label))


# --- checks ---


def _check_columns(name: str, own: Columns) -> None:
    """Raise MethodError where the numbers of one method cannot be."""
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
    _check_scores(name, own)
    _check_ranks(name, own)


def _check_scores(name: str, own: Columns) -> None:
    if own.score is None or len(own.score) == 0:
        return
    low, high = float(np.min(own.score)), float(np.max(own.score))
    if low < 0 or high > 1 + 1e-6:  # a softmax in float32 may end a little above 1
        raise MethodError(
            f'"{name}" has scores from {low:g} to {high:g}, but expected probabilities from 0 to '
            "1. Give none for a method that votes."
        )


def _check_ranks(name: str, own: Columns) -> None:
    wrong = np.flatnonzero((own.rank == 0) != (own.predicted == own.label))
    if len(wrong):
        place = int(wrong[0])
        raise MethodError(
            f'"{name}" contradicts itself at image {place}: the true class {own.label[place]} has '
            f"rank {own.rank[place]}, but class {own.predicted[place]} is predicted. Expected rank "
            "0 exactly where the prediction is right; break ties in one way for both."
        )


def _check_pairing(name: str, own: Columns, baseline: str, other: Columns) -> None:
    """Raise MethodError where two methods did not see the same images."""
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

    def finish(self, label: npt.NDArray[Any], classes: int) -> Columns:
        numbers = {
            key: None if key in self.missing else np.asarray(column)
            for key, column in self.numbers.items()
        }
        return Columns(
            label, np.asarray(self.predicted), np.asarray(self.rank), classes=classes, **numbers
        )


def columns_of(
    rows: Iterable[Mapping[str, Any]], methods: Sequence[str], classes: int
) -> dict[str, Columns]:
    """The columns of several methods from the parsed lines of one set, in one pass.

    Args:
        rows: lines of predictions.jsonl of one set, each image once:
            `{"key": ..., "label": ..., "methods": {name: {"top": [[class, probability], ...],
            "rank": ..., "nll": ..., "brier": ..., "votes": true where the second number of `top`
            is a count of votes}}}`. Lines with "error" are left out; the caller counts them.
        methods: names of the methods to take; every line has them all.
        classes: how many classes the set has.

    Returns:
        One `Columns` a method, images in the order of the lines. `score` is None where any image
        was voted on, `nll` and `brier` where any line has null: a mean over part of the images
        could not be compared with the others'.

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
