"""The bootstrap draws the same images for every statistic, and its intervals hold what they say."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from sklearn.metrics import recall_score

from tpt.errors import MethodError
from tpt.evaluate.bootstrap import (
    BLOCK,
    binned_gap_of,
    draw_counts,
    mean_of,
    mean_recall_of,
    percentile_interval,
    resample,
)

IMAGES = 60


def list_draws(images: int, resamples: int, seed: int) -> list[np.ndarray]:
    """The drawn images themselves, (images,) of places, one array a draw."""
    columns = chain.from_iterable(counts.T for counts in draw_counts(images, resamples, seed))
    return [np.repeat(np.arange(images), counts.astype(int)) for counts in columns]


def test_sums_by_counts_equal_statistics_of_the_drawn_images() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 9, IMAGES)
    labels[labels == 4] = 5  # a class without images
    labels[0] = 8
    predicted = np.where(random.random(IMAGES) < 0.6, labels, labels[::-1])
    right, scores = predicted == labels, random.random(IMAGES)
    bins = (scores * 15).astype(int)
    resamples = BLOCK + 9  # a whole block and a part of one
    drawn = resample(
        {
            "mean": mean_of(scores),
            "gap": binned_gap_of(right - scores, bins, 15),
            "recall": mean_recall_of(labels, right),
        },
        IMAGES,
        resamples=resamples,
        seed=3,
    )
    draws = list_draws(IMAGES, resamples, seed=3)
    assert len(draws) == resamples
    for place, images in enumerate(draws):
        y, c, s, r, b = (x[images] for x in (labels, predicted, scores, right, bins))
        parts = [abs(r[b == i].mean() - s[b == i].mean()) * (b == i).mean() for i in np.unique(b)]
        recall = recall_score(y, c, labels=np.unique(y), average="macro")
        assert drawn["mean"][place] == pytest.approx(s.mean())
        assert drawn["gap"][place] == pytest.approx(sum(parts))
        assert drawn["recall"][place] == pytest.approx(recall)


def test_every_draw_has_as_many_images_as_the_set() -> None:
    for counts in draw_counts(IMAGES, 2 * BLOCK, seed=0):
        assert (counts.sum(axis=0) == IMAGES).all()
        assert len(np.unique(counts, axis=1).T) == BLOCK


def test_fewer_draws_are_the_first_of_more() -> None:
    statistics = {"mean": mean_of(np.random.default_rng(0).random(IMAGES))}
    few = resample(statistics, IMAGES, resamples=10, seed=1)["mean"]
    many = resample(statistics, IMAGES, resamples=2 * BLOCK, seed=1)["mean"]
    other = resample(statistics, IMAGES, resamples=10, seed=2)["mean"]
    assert few == pytest.approx(many[:10])
    assert few != pytest.approx(other)


def test_ninety_five_percent_intervals_hold_the_true_mean_in_about_95_of_100_sets() -> None:
    random = np.random.default_rng(0)
    sets, images, share = 300, 200, 0.7
    held = 0
    for seed in range(sets):
        right = random.random(images) < share
        drawn = resample({"acc1": mean_of(right)}, images, resamples=200, seed=seed)["acc1"]
        low, high = percentile_interval(drawn)
        held += low <= share <= high
    assert 0.91 <= held / sets <= 0.98


def test_an_interval_of_a_lower_level_lies_inside_that_of_a_higher_one() -> None:
    values = np.arange(1001) / 1000
    assert percentile_interval(values, 0.5) == pytest.approx((0.25, 0.75))
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize(("images", "resamples"), [(0, 10), (10, 0)])
def test_a_bootstrap_of_nothing_is_an_error(images: int, resamples: int) -> None:
    with pytest.raises(MethodError, match=r"at least one image and one resample, but got"):
        resample({"mean": mean_of(np.zeros(images))}, images, resamples=resamples, seed=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, float("nan")])
def test_a_level_that_is_no_share_is_an_error(level: float) -> None:
    with pytest.raises(MethodError, match=r"share between 0 and 1.*Write 0\.95"):
        percentile_interval(np.arange(10), level)


def test_a_seed_may_be_below_zero_and_is_one_of_its_own() -> None:
    minus, plus = (next(draw_counts(50, 4, seed)) for seed in (-3, 3))
    assert (minus.sum(axis=0) == 50).all()
    assert not np.array_equal(minus, plus)
