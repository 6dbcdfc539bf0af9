"""Fitting a temperature and a threshold; the order of pictures; telling outside ones apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

import tpt
from tpt.data.labelled_sets import LabelledSet, Sample
from tpt.errors import MethodError, PromptError
from tpt.evaluate.calibration import (
    as_scores,
    choose_threshold,
    fit_temperature,
    measure_calibration,
)
from tpt.evaluate.image_scores import check_scores
from tpt.evaluate.order import order_set
from tpt.evaluate.outside import separate
from tpt.prompts.calibration import Calibration


def noisy(count: int = 400, scale: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, 5) whose softmax at `scale` is the truth that labels are drawn from."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=rng, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng).squeeze(1)
    return logits * scale, labels


@pytest.mark.parametrize("scale", [0.2, 1.0, 8.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = noisy(4000, scale)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=0.1)


def test_the_temperature_has_the_least_loss() -> None:
    logits, labels = noisy(scale=3.0)
    best = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return float(F.cross_entropy(logits / temperature, labels))

    assert all(loss(best) <= loss(best * factor) + 1e-9 for factor in (0.9, 0.99, 1.01, 1.1))


def test_pictures_that_are_all_right_or_all_wrong_have_a_bounded_temperature() -> None:
    logits = torch.eye(5, dtype=torch.float64) * 3
    assert fit_temperature(logits, torch.arange(5)) == pytest.approx(1e-3)
    assert fit_temperature(logits, torch.arange(5).roll(1)) == pytest.approx(1e3)


def test_calibration_is_measured_on_the_half_that_was_not_fitted() -> None:
    logits, labels = noisy(1000, 5.0)
    measured = measure_calibration(logits, labels)
    before, after = (measured[name].metrics for name in ("before", "after"))
    assert before["acc1"] == after["acc1"]
    assert after["ece15"] < before["ece15"] / 3
    assert after["nll"] < before["nll"]
    assert before["nll"] == pytest.approx(float(F.cross_entropy(logits, labels)))


def test_of_equal_classes_the_first_is_predicted() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]], dtype=torch.float64)
    scores = as_scores(logits, torch.tensor([1, 1]))
    check_scores("tied", scores)
    assert scores.predicted.tolist() == [0, 1]
    assert scores.rank.tolist() == [1, 0]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_threshold_rejects_no_more_than_the_share(share: float) -> None:
    confidence = torch.rand(200, generator=torch.Generator().manual_seed(0))
    threshold = choose_threshold(confidence, share)
    rejected = float((confidence < threshold).float().mean())
    assert share - 0.01 < rejected <= share + 1e-6


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("sign", [1, -1])  # energies may be negative
def test_another_rounding_rejects_the_same_pictures(share: float, sign: int) -> None:
    confidence = sign * torch.rand(12, dtype=torch.float64, generator=torch.Generator())
    threshold = choose_threshold(confidence, share)
    for moved in (confidence.float().double(), confidence * (1 - 1e-7), confidence * (1 + 1e-7)):
        assert int((moved < threshold).sum()) == 12 * share


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(MethodError, match=r"in \[0, 1\); got 1.0"):
        choose_threshold(torch.ones(3), 1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"rule": "x"}, {"threshold": "a"}],
)
def test_a_calibration_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="Run `tpt calibrate` again"):
        Calibration("tpt", **wrong)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_calibration_is_saved_with_its_prompt(
    golden: SimpleNamespace, tmp_path: Path, suffix: str
) -> None:
    made = Calibration("tpt", {"keep": 0.1, "views": 8}, 1.7, "energy", 25.5, 0.05, 300)
    context = replace(tpt.Context.from_words(golden.clip, "a photo of a"), calibration=made)
    path = tmp_path / f"p{suffix}"
    context.save(path)
    again = tpt.Context.load(path)
    assert again.calibration == made
    assert again.sha256 == context.sha256


# --- the order of pictures ---


def make_set() -> LabelledSet:
    samples = tuple(Sample.of_file(f"{k}/{n}.png", k) for k in range(3) for n in range(7))
    return LabelledSet("set", "", "set", ("a", "b", "c"), ("a", "b", "c"), samples)


@pytest.mark.parametrize("order", ["shuffled", "sorted", "blocks:3", "blocks:100"])
def test_an_order_keeps_every_picture_and_is_in_the_name(order: str) -> None:
    whole = make_set()
    made = order_set(whole, order)
    assert made.name == f"set ({order})"
    assert sorted(s.key for s in made.samples) == sorted(s.key for s in whole.samples)
    assert made.samples == order_set(whole, order).samples
    turned = replace(whole, samples=whole.samples[::-1])
    assert [s.key for s in order_set(turned, order).samples] == [s.key for s in made.samples]


def test_orders_are_what_they_say() -> None:
    labels = {
        order: [s.label for s in order_set(make_set(), order).samples]
        for order in ("shuffled", "sorted", "blocks:3")
    }
    assert labels["sorted"] == sorted(labels["sorted"])
    assert labels["shuffled"] != labels["sorted"]

    def changes(order: str) -> int:
        return sum(a != b for a, b in zip(labels[order], labels[order][1:], strict=False))

    assert changes("sorted") < changes("blocks:3") < changes("shuffled")
    assert order_set(make_set(), "shuffled", 1).samples != order_set(make_set(), "shuffled").samples


@pytest.mark.parametrize("order", ["", "random", "blocks", "blocks:0", "blocks:x", "sorted:2"])
def test_an_unknown_order_is_refused(order: str) -> None:
    with pytest.raises(MethodError, match="expected shuffled, sorted or blocks:N"):
        order_set(make_set(), order)


# --- outside pictures ---


def test_auroc_is_the_librarys_and_fpr_is_at_95_percent() -> None:
    rng = np.random.RandomState(0)
    inside, outside = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    auroc, fpr = separate(inside, outside)
    truth = np.r_[np.ones(300), np.zeros(200)]
    assert auroc == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]))
    bound = np.sort(inside)[15]
    assert (inside >= bound).mean() >= 0.95
    assert fpr == pytest.approx((outside >= bound).mean())


def test_sides_that_are_far_apart_are_told_apart() -> None:
    assert separate(np.ones(5), np.zeros(4)) == (1.0, 0.0)
    assert separate(np.zeros(5), np.ones(4)) == (0.0, 1.0)
    assert separate(np.ones(5), np.ones(4)) == (0.5, 1.0)
    assert math.isclose(separate(np.array([0.5]), np.array([0.5, 0.2]))[0], 0.75)


def test_a_side_without_pictures_is_told() -> None:
    with pytest.raises(MethodError, match="at least one of each is needed"):
        separate(np.ones(3), np.zeros(0))
