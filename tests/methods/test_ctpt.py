"""C-TPT: TPT's loss less the weighted dispersion of the class features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import MethodError
from tpt.methods.objective import dispersion, nearest_angle, orthogonality

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def unit_features(views: int = 16, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(1, 32, generator=rng)
    return F.normalize(own + torch.randn(views, 32, generator=rng), dim=-1)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("weight", [5.0, 50.0])
def test_it_is_the_method_of_the_paper(engine: tpt.PromptEngine, steps: int, weight: float) -> None:
    features = unit_features()
    full = tpt.PromptEngine(engine.clip, NAMES, engine.context, path="full")
    vectors = full.start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=1e-3, weight_decay=0.01)
    out = tpt.CTPT(engine, weight, keep=0.25, steps=steps, lr=1e-3).adapt_features(features)
    losses, gradient = [], None
    for _ in range(steps):
        t = full.class_features(vectors)
        p = (100 * features[out.selected] @ t.T).softmax(-1).mean(0)
        spread = torch.stack([(row - t.mean(0)).norm() for row in t]).mean()
        losses.append(-(p * p.log()).sum() - weight * spread)
        optimizer.zero_grad()
        losses[-1].backward()
        gradient = vectors.grad.clone() if gradient is None else gradient
        optimizer.step()
    torch.testing.assert_close(out.loss, losses[0].detach(), atol=1e-4, rtol=1e-4)
    assert (out.gradient - gradient).norm() < 1e-3 * gradient.norm()
    want = (100 * full.class_features(vectors) @ features[0]).detach()
    torch.testing.assert_close(out.logits, want, atol=5e-2, rtol=0)


def test_without_weight_it_is_tpt(engine: tpt.PromptEngine) -> None:
    features = unit_features()
    got = tpt.CTPT(engine, weight=0).adapt_features(features)
    want = tpt.TPT(engine).adapt_features(features)
    for name in ("logits", "loss", "gradient", "vectors", "final_loss"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name))


def test_the_loss_is_the_entropy_less_the_dispersion(engine: tpt.PromptEngine) -> None:
    out = tpt.CTPT(engine, weight=50.0).adapt_features(unit_features())
    before, after = engine.class_features(), engine.class_features(out.vectors)
    for loss, entropy, classes in (
        (out.loss, out.entropy, before),
        (out.final_loss, out.final_entropy, after),
    ):
        torch.testing.assert_close(loss, entropy - 50 * dispersion(classes), atol=1e-4, rtol=1e-4)
    assert out.loss < 0 < out.entropy


def test_the_class_features_end_further_apart_than_tpt_leaves_them(
    engine: tpt.PromptEngine,
) -> None:
    features = unit_features()
    spread = [
        dispersion(engine.class_features(method.adapt_features(features).vectors))
        for method in (tpt.TPT(engine), tpt.CTPT(engine, weight=50.0))
    ]
    assert spread[1] > spread[0]


def test_every_image_starts_afresh_from_one_first_pass(
    golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    method = tpt.CTPT(engine)
    passes = []
    encode = engine.class_features
    monkeypatch.setattr(
        engine, "class_features", lambda *given: passes.append(given) or encode(*given)
    )
    for seed in range(3):
        method.adapt_features(unit_features(seed=seed))
    assert len(passes) == 1 + 3  # the start once, and each image's prediction


# --- the relatives: O-TPT and A-TPT ---


def plain_orthogonality(t: Tensor) -> Tensor:
    return torch.stack([((t @ row).norm() - 1).abs() for row in t]).mean()


def plain_angle(t: Tensor) -> Tensor:
    angles = [
        min(torch.arccos((a @ b).clamp(-0.99999, 0.99999)) for j, b in enumerate(t) if j != i)
        for i, a in enumerate(t)
    ]
    return torch.stack(angles).mean()


PLAIN = {"orthogonal": (plain_orthogonality, 1, 18), "angular": (plain_angle, -1, 80)}


@pytest.mark.parametrize("penalty", PLAIN)
@pytest.mark.parametrize("batch", [False, True])
def test_a_penalty_is_its_papers(engine: tpt.PromptEngine, penalty: str, batch: bool) -> None:
    plain, sign, weight = PLAIN[penalty]
    method = tpt.CTPT(engine, penalty=penalty)
    assert method.settings.weight == weight  # the published one
    features = unit_features()
    out = method.adapt_features(features.unsqueeze(0) if batch else features)
    start = engine.class_features()
    want = out.entropy + sign * weight * plain(start)
    torch.testing.assert_close(out.loss, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("measure", [dispersion, orthogonality, nearest_angle])
def test_penalties_have_the_gradient_of_finite_differences(measure: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    t = torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)
    t = F.normalize(t, dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(measure, (t,))


def test_angles_grow_with_a_positive_weight_and_shrink_with_a_negative_one(
    engine: tpt.PromptEngine,
) -> None:
    start = nearest_angle(engine.class_features())
    ends = [
        nearest_angle(
            engine.class_features(
                tpt.CTPT(engine, weight, penalty="angular").adapt_features(unit_features()).vectors
            )
        )
        for weight in (80.0, -80.0)
    ]
    assert ends[1] < start < ends[0]


def test_equal_classes_have_no_angle_and_no_broken_gradient(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, ["cat", "cat", "dog"])
    assert tpt.CTPT(engine, penalty="angular").adapt_features(unit_features()).is_finite


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"penalty": "angle"}, 'Unknown penalty "angle". Did you mean "angular"?'),
        ({"penalty": "orthogonal", "weight": -1}, "how much orthogonality counts, a number from 0"),
        ({"penalty": "angular", "weight": float("nan")}, "how much the angle counts, a number"),
    ],
)
def test_a_penalty_that_cannot_be_is_refused(
    engine: tpt.PromptEngine, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.CTPT(engine, **options)
    assert words in str(caught.value)
