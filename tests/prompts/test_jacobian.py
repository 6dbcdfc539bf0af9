"""The start's Jacobian: the gradients of the graph, built part by part, and when it pays."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import open_clip
import pytest
import torch
from conftest import build_seeded_model
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
    assert shown == [0, 2, 4, 5]
    assert not engine.start_point()[1].requires_grad  # nothing large is held for nothing
    assert engine._start_graph is None


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
    pull = random(2, len(NAMES), clip.embedding_width)
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
    with pytest.raises(PromptError, match=r"Jacobian of 100,000 classes would hold 4e\+04 GB"):
        _jacobian._allocate(torch.zeros(1), (10**5, 10**4, 10**4), torch.float32)


def test_gradients_of_another_shape_are_refused(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    for shape in ((5, 32), (1, 4, 32), (1, 5, 31)):
        with pytest.raises(PromptError, match=r"expected as \(B, 5, 32\)"):
            engine.pull_back(random(*shape))


def test_others_may_use_the_engine_while_it_is_built(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    pull, seen = random(1, len(NAMES), 32), []

    def use(done: int) -> None:
        assert engine.start_graph()[1].requires_grad
        seen.append(engine.pull_back(pull))

    engine.build_jacobian(use)
    engine.build_jacobian(use)  # it is there
    assert len(seen) == 4
    torch.testing.assert_close(engine.pull_back(pull), seen[0], atol=1e-6, rtol=1e-5)


def test_autocast_outside_has_no_say(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    pull = random(1, len(NAMES), 32)
    for build in (lambda: None, engine.build_jacobian):
        build()
        want = engine.pull_back(pull)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(engine.pull_back(pull), want)


def test_a_coarse_image_tower_leaves_the_matrix_as_fine_as_the_text_tower() -> None:
    clip = tpt.Clip(build_seeded_model(), open_clip.get_tokenizer("ViT-B-16"))
    clip.model.visual.half()
    engine = tpt.PromptEngine(clip, NAMES)
    assert (clip.dtype, clip.text_dtype) == (torch.float16, torch.float32)
    pull = 1e-8 * random(1, len(NAMES), 32)
    want = engine.pull_back(pull)
    engine.build_jacobian()
    got = engine.pull_back(pull)
    assert (got - want).norm() < 1e-4 * want.norm()
