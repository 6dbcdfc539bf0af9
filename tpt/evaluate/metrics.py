"""How good the predictions of several methods on the same images are, with intervals.

Accuracy, calibration and the comparison with a baseline are computed here and nowhere else. Point
values come from well-tested libraries. They need a few numbers an image (`ImageScores`), not whole
probability vectors, so that 50,000 images x 1,000 classes x 8 methods fit:

    accuracy                sklearn.metrics.accuracy_score
    mean per-class recall   sklearn.metrics.recall_score, averaged over the classes that have images
    calibration error       torchmetrics.functional.classification.binary_calibration_error
    McNemar's p             scipy.stats.binomtest

For top-5 accuracy, negative log-likelihood and Brier score the libraries need every class's
probability; here these are means of columns of `ImageScores`.

    columns = collect_scores(rows, ("zero-shot", "tpt"), classes=7)
    measured = measure_set(columns, "zero-shot")
    measured["tpt"].metrics["acc1"], measured["tpt"].intervals["acc1"]

Intervals are percentile bootstrap intervals over images (`tpt.evaluate.bootstrap`). Gaps between a
clean set and a shifted one compare two sets and are not computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tpt.errors import MethodError, suggest
from tpt.evaluate.bootstrap import (
    Floats,
    Statistic,
    binned_gap_of,
    mean_of,
    mean_recall_of,
    percentile_interval,
    resample,
)
from tpt.evaluate.image_scores import ImageScores, check_pairing, check_scores

METRICS = ("acc1", "acc5", "mean_per_class_recall", "nll", "brier", "ece15", "ece20")
"""The keys of `SetMetrics.metrics` and `SetMetrics.intervals`, in this order."""

BINS = (15, 20)
"""Numbers of equal bins of the calibration error: 15 as in Guo et al., 20 as in other papers."""

FEWEST_FOR_TOP5 = 6
"""With five classes or fewer the top five are all of them."""


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
    put_right: int  # images where the baseline is wrong and the method right
    put_wrong: int  # images where the baseline is right and the method wrong


@dataclass(frozen=True)
class SetMetrics:
    """One method on one set; `measure_set` gives the formulas.

    `metrics` and `intervals` have the keys of `METRICS`; both are None at the same keys.
    """

    images: int
    metrics: dict[str, float | None]  # shares in [0, 1]; nll in nats, brier in [0, 2]
    intervals: dict[str, tuple[float, float] | None]  # low, high
    reliability: dict[int, Reliability] | None  # by number of bins; None: votes, or no images
    versus: Versus | None  # None: the baseline itself, or no images


# --- measuring ---


def measure_set(
    columns: Mapping[str, ImageScores],
    baseline: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, SetMetrics]:
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
      Networks", 2017, 1706.04599). Bins are closed on the left, as in torchmetrics, and not on
      the right, as in the paper; the last bin holds 1.0 too.

    For a method that votes (`score`, `nll`, `brier` None), metrics that need probabilities are
    None.

    Intervals are percentile bootstrap intervals over images; all methods and metrics see the same
    draws. A draw averages recall over the classes it holds. Two limits: if every image is right,
    the interval has no width; and resampling makes a calibration error larger, because it sums
    absolute values, so its interval lies high and, for a well-calibrated method, may not contain
    the point value.

    `versus` has the difference in acc1, its interval over the same draws (paired bootstrap), and
    McNemar's exact test ("Note on the sampling error of the difference between correlated
    proportions or percentages", 1947): if the method were no better or worse than the baseline,
    each of the b + c images on which exactly one of them is right would fall to either with
    probability 1/2; p is the two-sided binomial p, and 1 where b + c = 0.

    Args:
        columns: what each method gave for the same images in the same order, by method name.
        baseline: the method to compare with, one of `columns`.
        resamples: bootstrap draws, at least one.
        seed: of the draws; the same seed gives the same intervals.
        level: the share of draws inside an interval, between 0 and 1.

    Returns:
        One `SetMetrics` a method, in the order of `columns`. With no images at all, every metric,
        interval, reliability and comparison is None.

    Raises:
        MethodError: no such baseline; methods that did not see the same images; impossible
            labels, probabilities, ranks or losses (such as an infinite loss); `resamples` below
            1; `level` outside of 0 to 1.
    """
    if baseline not in columns:
        raise MethodError(
            f'The baseline "{baseline}" is not among the methods that were run: '
            f"{', '.join(columns) or 'none'}. Name one of them.{suggest(baseline, columns)}"
        )
    for name, own in columns.items():
        check_scores(name, own)
        check_pairing(name, own, baseline, columns[baseline])
    images = len(columns[baseline].label)
    if images == 0:
        nothing = dict.fromkeys(METRICS)
        return {name: SetMetrics(0, {**nothing}, {**nothing}, None, None) for name in columns}
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
        measured[name] = SetMetrics(
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


def _compute_metrics(own: ImageScores) -> dict[str, float | None]:
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


def _describe_statistics(own: ImageScores) -> dict[str, Statistic]:
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


def _compare(own: ImageScores, baseline: ImageScores, interval: tuple[float, float]) -> Versus:
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
    return np.clip(scores.astype(np.float64), 0, np.nextafter(1, 0))


def _find_bins(scores: Floats, count: int) -> npt.NDArray[np.intp]:
    """The bin of each clipped score, (n,), with exactly torchmetrics' edges."""
    edges = torch.linspace(0, 1, count + 1, dtype=torch.float64).numpy()
    return np.searchsorted(edges, scores, side="right") - 1


def _measure_calibration(own: ImageScores, scores: npt.NDArray[Any], count: int) -> float:
    """Top-label calibration error: the binary one of "the prediction is right"."""
    from torchmetrics.functional.classification import binary_calibration_error

    right = torch.from_numpy((own.predicted == own.label).astype(np.int64))
    confidence = torch.from_numpy(_clip_scores(scores))
    return float(binary_calibration_error(confidence, right, n_bins=count, norm="l1"))


def _bin_reliability(own: ImageScores, scores: npt.NDArray[Any], count: int) -> Reliability:
    clipped = _clip_scores(scores)
    bins = _find_bins(clipped, count)
    images = np.bincount(bins, minlength=count).tolist()

    def average(values: npt.NDArray[Any]) -> tuple[float | None, ...]:
        sums = np.bincount(bins, weights=values, minlength=count).tolist()
        return tuple(total / n if n else None for total, n in zip(sums, images, strict=True))

    return Reliability(tuple(images), average(clipped), average(own.predicted == own.label))
