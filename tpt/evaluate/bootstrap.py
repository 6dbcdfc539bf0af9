"""Bootstrap of many statistics of the same images at once, with the same draws for all of them.

Bradley Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979): draw as many images as
there are, with replacement; compute the statistic; repeat. The middle 95 percent of the results is
the percentile interval. All statistics of all methods see the same draws, so the difference of two
of them, draw by draw, is the paired bootstrap. `scipy.stats.bootstrap` draws anew for each
statistic, so its differences would not be paired.

A draw is a vector of counts: how often each image was drawn. Everything measured here is a simple
function of a few weighted sums over images (`Statistic`), so a block of draws is one product with a
matrix of counts (images, draws), and memory does not grow with the number of draws.

Intervals are not bias-corrected. An interval says how much another choice of images from the same
source would change the figure, not what another source or another seed would.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tpt.errors import MethodError

Floats: TypeAlias = npt.NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

BLOCK = 32
"""Draws at a time: 50,000 images x 32 draws x 8 bytes is 13 MB."""


@dataclass(frozen=True, eq=False)
class Statistic:
    """A function of weighted sums over images; an image drawn twice has weight 2."""

    terms: Any  # (k, images) array or scipy.sparse array: what each image adds to the k sums
    finish: Callable[[Floats], Floats]  # sums (k, draws) -> the statistic of each draw (draws,)


def mean_of(values: npt.NDArray[Any]) -> Statistic:
    """The mean of one number an image, `values` (images,)."""
    images = len(values)

    def finish(sums: Floats) -> Floats:
        return sums[0] / images

    return Statistic(np.asarray(values, dtype=np.float64)[None], finish)


def binned_gap_of(gaps: npt.NDArray[Any], bins: npt.NDArray[Any], count: int) -> Statistic:
    """Sum over `count` bins of |sum of the bin's gaps| / images: an expected calibration error.

    Args:
        gaps: right (0 or 1) minus confidence, (images,).
        bins: the bin of each image, 0 to count - 1, (images,).
    """
    from scipy.sparse import csr_array

    images = len(gaps)
    terms = csr_array((gaps, (bins, np.arange(images))), shape=(count, images))

    def finish(sums: Floats) -> Floats:
        return np.abs(sums).sum(axis=0) / images

    return Statistic(terms, finish)


def mean_recall_of(labels: npt.NDArray[Any], right: npt.NDArray[Any]) -> Statistic:
    """The mean over classes of the share that is right; a draw counts the classes it holds.

    Args:
        labels: the true class of each image, (images,).
        right: whether its prediction is right, (images,).
    """
    from scipy.sparse import csr_array, vstack

    present, places = np.unique(labels, return_inverse=True)
    shape = (len(present), len(labels))
    hits = np.flatnonzero(right)
    terms = vstack(
        [
            csr_array((np.ones(len(hits)), (places[hits], hits)), shape=shape),
            csr_array((np.ones(len(labels)), (places, np.arange(len(labels)))), shape=shape),
        ],
        format="csr",
    )

    def finish(sums: Floats) -> Floats:
        hit, drawn = sums[: len(present)], sums[len(present) :]  # (classes, draws) each
        recalls = (hit / np.maximum(drawn, 1)).sum(axis=0)  # a class not drawn adds 0
        return recalls / (drawn > 0).sum(axis=0)

    return Statistic(terms, finish)


def draw_counts(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn: blocks (images, up to BLOCK draws) of whole numbers.

    Every column sums to `images`. The draws depend on `images` and `seed` alone: fewer resamples
    are the first of more.
    """
    random = np.random.default_rng(seed if seed >= 0 else (1, -seed))  # numpy takes no negatives
    for start in range(0, resamples, BLOCK):
        counts = np.empty((images, min(BLOCK, resamples - start)))
        for column in range(counts.shape[1]):
            drawn = random.integers(0, images, images)
            counts[:, column] = np.bincount(drawn, minlength=images)
        yield counts


def resample(
    statistics: Mapping[Key, Statistic], images: int, *, resamples: int, seed: int
) -> dict[Key, Floats]:
    """Each statistic in each draw, (resamples,); entry i of all of them is of the same draw.

    Args:
        statistics: what to compute, by keys of the caller's choice; all of the same images.
        images: how many images there are, at least one.
        resamples: how many draws, at least one.
        seed: of the draws; the same seed gives the same result.

    Raises:
        MethodError: no images, or no resamples.
    """
    if images < 1 or resamples < 1:
        raise MethodError(
            f"A bootstrap needs at least one image and one resample, but got {images} images and "
            f"{resamples} resamples. Ask for 1,000 resamples, of a set that has images."
        )
    parts: dict[Key, list[Floats]] = {key: [] for key in statistics}
    for counts in draw_counts(images, resamples, seed):
        for key, statistic in statistics.items():
            parts[key].append(statistic.finish(statistic.terms @ counts))
    return {key: np.concatenate(part) for key, part in parts.items()}


def percentile_interval(values: npt.NDArray[Any], level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the resampled `values`: from quantile (1 - level) / 2 to its mirror.

    Raises:
        MethodError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise MethodError(
            f"The level of an interval is a share between 0 and 1, but got {level}. "
            "Write 0.95 for 95 percent."
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
