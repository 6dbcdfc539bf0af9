"""Passes that are computed again for their gradient: the same numbers, bounded memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import tpt
from tpt.prompts import _passes

NAMES = [f"{kind} number {number}" for kind in ("cat", "dog") for number in range(8)]


def kept_bytes(engine: tpt.PromptEngine, vectors: Tensor) -> tuple[int, Tensor, Tensor]:
    """What a forward pass keeps for its gradient, the features, and the gradient."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    leaf = vectors.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = engine.class_features(leaf)
    held = sum(kept.values())
    weight = torch.linspace(-1, 1, features.numel()).view(features.shape)
    for _ in range(2):  # a graph that is kept serves every image
        (gradient,) = torch.autograd.grad((features * weight).sum(), leaf, retain_graph=True)
    return held, features.detach(), gradient


@pytest.mark.parametrize("path", ["full", "packed"])
def test_passes_give_the_same_numbers_and_keep_little(
    golden: SimpleNamespace, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, path=path)
    vectors = engine.start.expand(4, -1, -1)
    whole, features, gradient = kept_bytes(engine, vectors)
    monkeypatch.setattr(_passes, "MOST_BYTES", whole // 8)
    held, again, its_gradient = kept_bytes(engine, vectors)
    assert held < whole / 4
    torch.testing.assert_close(again, features, atol=2e-6, rtol=0)
    assert (its_gradient - gradient).norm() < 1e-5 * gradient.norm()


def test_tuning_in_passes_agrees(golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.nn.functional.normalize(torch.randn(2, 10, 32), dim=-1)
    expected = tpt.TPT(tpt.PromptEngine(golden.clip, NAMES, path="full")).adapt_features(features)
    monkeypatch.setattr(_passes, "MOST_BYTES", 2**16)
    method = tpt.TPT(tpt.PromptEngine(golden.clip, NAMES, path="full"))
    for _ in range(2):
        out = method.adapt_features(features)
        torch.testing.assert_close(out.logits, expected.logits, atol=1e-3, rtol=0)


def test_what_a_graph_holds_is_estimated_high_enough(golden: SimpleNamespace) -> None:
    for path in ("full", "packed"):
        engine = tpt.PromptEngine(golden.clip, NAMES * 8, path=path)
        held, *_ = kept_bytes(engine, engine.start)
        encoder = engine._encode
        told = len(NAMES) * 8 * encoder.bytes_a_row if path == "full" else encoder.bytes_a_context
        assert 0.5 * told < held < 1.5 * told, path
