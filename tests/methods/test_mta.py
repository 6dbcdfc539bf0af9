"""MTA against a plain double-precision rendering of its equations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.methods.mta import find_bandwidths

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


def unit_features(views: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(1, 32, generator=rng)
    return F.normalize(own + torch.randn(views, 32, generator=rng), dim=-1)


def find_mode_by_hand(f: Tensor, p: Tensor, lambda_y: float, lambda_q: float) -> Tensor:
    count = len(f)
    width = []
    for i in range(count):
        squared = sorted(float((f[i] - f[j]).square().sum()) for j in range(count) if j != i)
        nearest = squared[: int(0.3 * (count - 1))]
        width.append(sum(nearest) / len(nearest) / 2)
    h2, affinity = torch.tensor(width, dtype=f.dtype), p @ p.T
    y, m = torch.full((count,), 1 / count, dtype=f.dtype), f[0]

    def kernel() -> Tensor:
        return torch.exp(-(f - m).square().sum(-1) / (2 * h2))

    for _ in range(5):
        k = kernel()
        for _ in range(5):
            old, y = y, ((k + lambda_q * affinity @ y) / lambda_y).softmax(-1)
            if (old - y).norm() < 1e-6:
                break
        for _ in range(5):
            old, m = m, F.normalize((kernel() * y) @ f, dim=0)
            if (old - m).norm() < 1e-6:
                break
    return m


@pytest.mark.parametrize("views", [5, 16, 64])
@pytest.mark.parametrize(("lambda_y", "lambda_q"), [(0.2, 4.0), (0.05, 0.0), (1.0, 10.0)])
def test_it_is_the_method_of_the_paper(
    golden: SimpleNamespace, views: int, lambda_y: float, lambda_q: float
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    features = unit_features(views, seed=views)
    classes = engine.class_features().double()
    f = features.double()
    mode = find_mode_by_hand(f, (100 * f @ classes.T).softmax(-1), lambda_y, lambda_q)
    out = tpt.MTA(engine, lambda_y, lambda_q).adapt_features(features)
    torch.testing.assert_close(out.logits, (100 * classes @ mode).float(), atol=2e-3, rtol=0)
    assert sorted(out.selected.tolist()) == list(range(views))


def test_an_outlier_counts_less_than_in_the_mean(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    method = tpt.MTA(engine)
    features = unit_features(16, seed=2)
    clean = method.adapt_features(features).logits
    features[7] = -features[7]
    spoilt = method.adapt_features(features).logits
    mean = tpt.VTE(engine, keep=1.0).adapt_features(features).logits
    assert (spoilt - clean).norm() < 0.5 * (mean - clean).norm()


def test_bandwidths_are_half_the_mean_squared_distance_to_the_nearest() -> None:
    corners = torch.eye(5).unsqueeze(0)  # every corner at squared distance 2 from every other
    assert find_bandwidths(corners)[0].tolist() == pytest.approx([1.0] * 5)
    assert find_bandwidths(corners[:, :1]).tolist() == [[1.0]]
