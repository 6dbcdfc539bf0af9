"""TPS against torch's own AdamW on a plain rendering, and what it must not touch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def unit_features(views: int = 16, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(1, 32, generator=rng)
    return F.normalize(own + torch.randn(views, 32, generator=rng), dim=-1)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("lr", [1e-3, 5e-3])
def test_it_is_the_method_of_the_paper(engine: tpt.PromptEngine, steps: int, lr: float) -> None:
    features = unit_features()
    classes = engine.class_features().double()
    f = features.double()
    first: list[int] = []
    shift = torch.zeros_like(classes, requires_grad=True)
    optimizer = torch.optim.AdamW([shift], lr=lr, weight_decay=0.01)
    losses, gradient = [], None
    for _ in range(steps + 1):
        shifted = F.normalize(classes + shift, dim=-1)
        each = (100 * f @ shifted.T).softmax(-1)
        kept = (-(each * each.log()).sum(-1)).argsort()[:4].tolist()  # chosen anew in each step
        first = first or kept
        p = each[kept if len(losses) < steps else first].mean(0)
        losses.append(-(p * p.log()).sum())
        if len(losses) <= steps:
            optimizer.zero_grad()
            losses[-1].backward()
            gradient = shift.grad.clone() if gradient is None else gradient
            optimizer.step()
    want = (100 * shifted @ f[0]).detach().float()
    out = tpt.TPS(engine, keep=0.25, steps=steps, lr=lr).adapt_features(features)
    assert out.selected.tolist() == first
    torch.testing.assert_close(out.loss, losses[0].detach().float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.final_loss, losses[-1].detach().float(), atol=1e-3, rtol=1e-2)
    assert (out.gradient - gradient).norm() < 1e-3 * gradient.norm()
    torch.testing.assert_close(out.logits, want, atol=5e-2, rtol=0)


def test_the_first_step_is_adamws_by_hand(engine: tpt.PromptEngine) -> None:
    out = tpt.TPS(engine, lr=0.01).adapt_features(unit_features())
    by_hand = -0.01 * out.gradient / (out.gradient.abs() + 1e-8)  # nothing there to decay
    torch.testing.assert_close(out.shift, by_hand, atol=1e-6, rtol=1e-4)


def test_shifting_lowers_the_marginal_entropy(engine: tpt.PromptEngine) -> None:
    out = tpt.TPS(engine, lr=1e-3).adapt_features(unit_features(64))
    assert out.final_loss < out.loss
    assert torch.equal(out.entropy, out.loss)
    assert torch.equal(out.final_entropy, out.final_loss)


def test_the_text_tower_is_not_run_for_an_image(
    engine: tpt.PromptEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tpt.TPS(engine, steps=2)
    expected = method.adapt_features(unit_features()).logits
    cached = method.start_classes(unit_features()[:1]).clone()
    monkeypatch.setattr(engine, "_encode", None)
    assert torch.equal(method.adapt_features(unit_features()).logits, expected)
    assert torch.equal(method.start_classes(unit_features()[:1]), cached)
