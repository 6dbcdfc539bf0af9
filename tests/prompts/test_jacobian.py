"""The start's Jacobian: the gradients of the graph, built part by part, and when it pays."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts import _jacobian
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend

NAMES = ["cat", "dog", "golden retriever", "passenger_car", "ice cream"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts, the last of which is smaller."""
    monkeypatch.setattr(_jacobian, "_CLASSES", 2)
    monkeypatch.setattr(_jacobian, "_DIRECTIONS", 7)


@pytest.mark.parametrize("shape", [(4, 64), (5, 4, 64)])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_the_gradients_of_the_graph(
    golden: SimpleNamespace, shape: tuple[int, ...], position: str, path: str, batch: int
) -> None:
    blend = Blend(("a drawing of a {}.",), 0.3) if position == "end" else None
    context = tpt.Context(random(*shape), position=position, blend=blend)
    engine = tpt.PromptEngine(golden.clip, NAMES, context, path=path)
    pull = random(batch, len(NAMES), 32, seed=1)
    by_graph = engine.pull_back(pull)
    shown: list[int] = []
    engine.build_jacobian(shown.append)
    by_product = engine.pull_back(pull)
    assert by_product.shape == by_graph.shape == (batch, *shape)
    assert (by_product - by_graph).norm() < 1e-5 * by_graph.norm()
    assert shown == [2, 4, 5]
    assert not engine.start_graph()[1].requires_grad  # nothing large is held for nothing


def test_every_method_that_tunes_the_context_answers_as_before(golden: SimpleNamespace) -> None:
    features = torch.nn.functional.normalize(random(3, 16, 32), dim=-1)
    plain, quick = (tpt.PromptEngine(golden.clip, NAMES) for _ in range(2))
    quick.build_jacobian()
    for kind in (tpt.TPT, tpt.CTPT, tpt.RTPT):
        want, got = (kind(e, steps=2).adapt_features(features) for e in (plain, quick))
        torch.testing.assert_close(got.gradient, want.gradient, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(got.logits, want.logits, atol=2e-3, rtol=0)


def test_a_run_that_carries_its_context_starts_by_it(golden: SimpleNamespace) -> None:
    features = torch.nn.functional.normalize(random(3, 16, 32), dim=-1)
    plain, quick = (tpt.PromptEngine(golden.clip, NAMES) for _ in range(2))
    quick.build_jacobian()
    for want, got in zip(
        *([tpt.TPT(e, reset="never").adapt_features(f) for f in features] for e in (plain, quick)),
        strict=True,
    ):
        torch.testing.assert_close(got.logits, want.logits, atol=2e-3, rtol=0)


@pytest.mark.parametrize("wrapped", [torch.no_grad, torch.inference_mode])
def test_it_is_built_whatever_surrounds_it(golden: SimpleNamespace, wrapped: type) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    pull = random(2, len(NAMES), 32)
    want = engine.pull_back(pull)
    torch.set_default_dtype(torch.float64)
    try:
        with wrapped():
            engine.build_jacobian()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(engine.pull_back(pull), want, atol=1e-6, rtol=1e-5)
    again = pickle.loads(pickle.dumps(engine))
    assert torch.equal(again.pull_back(pull), engine.pull_back(pull))


def test_it_is_as_precise_as_the_weights(golden: SimpleNamespace) -> None:
    clip = tpt.load_clip("tiny", precision="bf16", device="cpu")
    engine = tpt.PromptEngine(clip, NAMES)
    pull = random(2, len(NAMES), clip.text.token_embedding.weight.shape[1])
    pull = pull[..., : engine.start_features().shape[-1]]
    want = engine.pull_back(pull)
    engine.build_jacobian()
    got = engine.pull_back(pull)
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.05 * want.norm()


def test_a_conditional_context_has_none(golden: SimpleNamespace) -> None:
    meta = MetaNet(random(5, 32), random(5), random(64, 5), random(64))
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random(4, 64), meta=meta))
    with pytest.raises(PromptError, match="no Jacobian that all share"):
        engine.build_jacobian()


def test_a_matrix_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match=r"would hold 4,000,000,000\.0 GB"):
        _jacobian._allocate(torch.zeros(1), (10**6, 10**6, 10**6), torch.float32)
