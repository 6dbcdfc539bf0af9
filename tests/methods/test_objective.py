"""Entropy, selection, marginal entropy, dispersion against their formulas in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tpt.methods.objective import (
    count_kept,
    dispersion,
    entropy,
    marginal_entropy,
    select_confident,
)


def random_logits(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def entropy_of(p: Tensor) -> Tensor:
    """-sum p log p of probabilities, with 0 log 0 = 0."""
    return -torch.special.xlogy(p, p).sum(-1)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 5, 7), (3, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_entropy_is_the_formula(shape: tuple[int, ...], scale: float) -> None:
    logits = random_logits(*shape, scale=scale)
    expected = entropy_of(logits.double().softmax(-1)).float()
    torch.testing.assert_close(entropy(logits), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 7), (2, 4, 7), (1, 7), (4, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_marginal_entropy_is_the_entropy_of_the_mean(shape: tuple[int, ...], scale: float) -> None:
    logits = random_logits(*shape, scale=scale)
    expected = entropy_of(logits.double().softmax(-1).mean(-2)).float()
    torch.testing.assert_close(marginal_entropy(logits), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_marginal_entropys_gradient_is_that_of_the_formula(scale: float) -> None:
    logits = random_logits(3, 5, 7, scale=scale).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    (got,) = torch.autograd.grad(marginal_entropy(logits).sum(), logits)
    (want,) = torch.autograd.grad(entropy_of(exact.softmax(-1).mean(-2)).sum(), exact)
    torch.testing.assert_close(got, want.float(), atol=1e-5, rtol=1e-4)


def test_equal_logits_have_the_greatest_entropy() -> None:
    logits = torch.zeros(4, 10)
    assert marginal_entropy(logits).item() == pytest.approx(math.log(10), rel=1e-6)
    assert entropy(logits).tolist() == pytest.approx([math.log(10)] * 4, rel=1e-6)


def test_one_view_has_its_own_entropy_as_marginal_entropy() -> None:
    logits = random_logits(1, 9)
    torch.testing.assert_close(marginal_entropy(logits), entropy(logits)[0])


def test_confident_views_that_disagree_have_a_high_marginal_entropy() -> None:
    logits = 100 * torch.eye(4)
    assert entropy(logits).max() < 1e-6
    assert marginal_entropy(logits).item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize("peak", [1e2, 1e4, 1e10, 1e30, 3e38])
@pytest.mark.parametrize("agree", [True, False])
def test_extremely_peaked_logits_stay_finite(peak: float, agree: bool) -> None:
    logits = torch.zeros(4, 6)
    logits[torch.arange(4), 0 if agree else torch.arange(4)] = peak
    logits.requires_grad_()
    loss = marginal_entropy(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0 if agree else math.log(4), abs=1e-5)
    assert gradient.isfinite().all()
    assert entropy(logits).isfinite().all()


def test_a_class_that_no_view_can_be_takes_no_part() -> None:
    logits = random_logits(4, 6)
    expected = marginal_entropy(logits[:, 1:])
    logits[:, 0] = -float("inf")
    torch.testing.assert_close(marginal_entropy(logits), expected)


def test_a_large_common_offset_changes_nothing() -> None:
    logits = random_logits(3, 5)
    shifted = (logits.double() + 1e4).float()
    torch.testing.assert_close(
        marginal_entropy(shifted), marginal_entropy(logits), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    ("views", "keep", "count"),
    [
        (64, 0.1, 6),
        (64, 0.5, 32),
        (64, 1.0, 64),
        (64, 0.01, 1),
        (10, 0.1, 1),
        (9, 0.1, 1),
        (20, 0.1, 2),
        (19, 0.1, 1),
        (10, 0.3, 3),
        (1, 0.1, 1),
        (1, 1.0, 1),
    ],
)
def test_the_floor_of_the_share_is_kept_and_at_least_one(
    views: int, keep: float, count: int
) -> None:
    assert count_kept(views, keep) == count
    assert select_confident(torch.rand(views), keep).shape == (count,)


def test_the_most_confident_views_come_first() -> None:
    values = torch.tensor([[0.5, 0.1, 0.9, 0.3], [0.2, 0.8, 0.1, 0.0]])
    assert select_confident(values, 0.75).tolist() == [[1, 3, 0], [3, 2, 0]]


@pytest.mark.parametrize("views", [4, 64, 1000])
def test_where_entropies_tie_the_lower_view_comes_first(views: int) -> None:
    same = torch.full((2, views), 0.25)
    assert select_confident(same, 0.5).tolist() == [list(range(views // 2))] * 2
    pairs = torch.arange(views // 2, 0, -1.0).repeat(2)  # view i and i + views / 2 are equal
    best = select_confident(pairs, 1.0).tolist()
    assert best[:4] == [views // 2 - 1, views - 1, views // 2 - 2, views - 2]


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8), (1, 8)])
def test_dispersion_is_the_mean_distance_to_the_mean(shape: tuple[int, ...]) -> None:
    features = random_logits(*shape)
    exact = features.double()
    expected = (exact - exact.mean(-2, keepdim=True)).square().sum(-1).sqrt().mean(-1)
    torch.testing.assert_close(dispersion(features), expected.float())


def test_dispersion_has_a_gradient_where_all_features_are_the_same() -> None:
    features = torch.ones(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(dispersion(features), features)
    assert gradient.tolist() == torch.zeros(3, 4).tolist()
