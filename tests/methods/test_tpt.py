"""Test-time prompt tuning against a plain rendering of the paper, and when it forgets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import MethodError
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend

NAMES = ["cat", "dog", "golden retriever", "passenger_car", "ice cream"]


def random_vectors(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit_features(*shape: int, seed: int = 0) -> Tensor:
    """Features of images whose views resemble one another."""
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn((*shape[:-2], 1, shape[-1]), generator=rng)
    return F.normalize(own + torch.randn(shape, generator=rng), dim=-1)


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


@pytest.fixture(scope="module")
def conditional(golden: SimpleNamespace) -> tpt.PromptEngine:
    """An engine whose contexts a meta-network makes (CoCoOp)."""
    meta = MetaNet(
        random_vectors(5, 32, seed=3),
        random_vectors(5, seed=4),
        random_vectors(64, 5, seed=5),
        random_vectors(64, seed=6),
    )
    context = tpt.Context(random_vectors(4, 64), meta=meta)
    return tpt.PromptEngine(golden.clip, NAMES, context)


def shift_by_hand(context: tpt.Context, feature: Tensor) -> Tensor:
    """CoCoOp's context (M, D) for an image whose view 0 has the unit feature (E,)."""
    net = context.meta
    hidden = (net.weight_1 @ feature + net.bias_1).clamp(min=0)
    return context.vectors + net.weight_2 @ hidden + net.bias_2


@dataclass
class Plain:
    """The method one step at a time, with torch's own AdamW and the full-length text path."""

    engine: tpt.PromptEngine
    keep: float = 0.25
    steps: int = 1
    lr: float = 5e-3
    start: Tensor | None = None  # default: the engine's
    vectors: Tensor = field(init=False)

    def __post_init__(self) -> None:
        engine = self.engine
        self.full = tpt.PromptEngine(engine.clip, engine.classes, engine.context, path="full")
        self.reset()

    def reset(self) -> None:
        start = self.engine.start if self.start is None else self.start
        self.vectors = start.clone().requires_grad_()
        self.optimizer = torch.optim.AdamW(
            [self.vectors], lr=self.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
        )

    def logits(self, features: Tensor) -> Tensor:
        return self.engine.clip.logit_scale * features @ self.full.class_features(self.vectors).T

    def adapt(self, features: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            p = self.logits(features).softmax(-1)
            view_entropy = -(p * p.log()).sum(-1)
        kept = max(1, int(self.keep * len(features)))
        selected = sorted(range(len(features)), key=lambda i: (view_entropy[i].item(), i))[:kept]
        losses, gradient = [], None
        for _ in range(self.steps):
            p = self.logits(features[selected]).softmax(-1).mean(0)
            loss = -(p * p.log()).sum()
            self.optimizer.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            gradient = self.vectors.grad.clone() if gradient is None else gradient
            self.optimizer.step()
        with torch.no_grad():
            p = self.logits(features[selected]).softmax(-1).mean(0)
            return {
                "logits": self.logits(features[:1])[0],
                "selected": torch.tensor(selected),
                "view_entropy": view_entropy,
                "gradient": gradient,
                "loss": losses[0],
                "final_loss": -(p * p.log()).sum(),
                "vectors": self.vectors.detach().clone(),
            }


def as_dict(out: tpt.Adapted) -> dict[str, Tensor]:
    return {name: value for name, value in vars(out).items() if value is not None}


def assert_agrees(out: tpt.Adapted, want: dict[str, Tensor]) -> None:
    assert out.selected.tolist() == want["selected"].tolist()
    torch.testing.assert_close(out.view_entropy, want["view_entropy"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(out.loss, want["loss"], atol=1e-4, rtol=1e-3)
    gradient = want["gradient"]
    assert (out.gradient - gradient).norm() < 1e-3 * gradient.norm()
    # AdamW's first step is nearly lr * sign(gradient): unsure where the gradient is nearly zero.
    sure = gradient.abs() > 1e-3 * gradient.abs().max()
    assert sure.float().mean() > 0.9
    torch.testing.assert_close(out.vectors[sure], want["vectors"][sure], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(out.final_loss, want["final_loss"], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(out.logits, want["logits"], atol=5e-2, rtol=0)


# --- one image ---


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("lr", [1e-3, 2e-2])
def test_it_is_the_method_of_the_paper(
    engine: tpt.PromptEngine, keep: float, steps: int, lr: float
) -> None:
    features = unit_features(24, 32)
    out = tpt.TPT(engine, keep=keep, steps=steps, lr=lr).adapt_features(features)
    assert_agrees(out, Plain(engine, keep, steps, lr).adapt(features))


@pytest.mark.parametrize("shape", [(4, 64), (5, 4, 64)])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_it_tunes_any_kind_of_context(
    golden: SimpleNamespace, shape: tuple[int, ...], position: str
) -> None:
    context = tpt.Context(random_vectors(*shape), position=position)
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    features = unit_features(16, 32)
    out = tpt.TPT(engine, keep=0.25, steps=2).adapt_features(features)
    assert out.vectors.shape == out.gradient.shape == shape
    assert_agrees(out, Plain(engine, steps=2).adapt(features))


def test_the_first_step_is_adamws_by_hand(engine: tpt.PromptEngine) -> None:
    """m_hat / (sqrt(v_hat) + eps) is g / (|g| + eps) at the first step; the decay comes first."""
    out = tpt.TPT(engine, lr=0.01).adapt_features(unit_features(16, 32))
    step = out.gradient / (out.gradient.abs() + 1e-8)
    by_hand = engine.start * (1 - 0.01 * 0.01) - 0.01 * step
    torch.testing.assert_close(out.vectors, by_hand, atol=1e-6, rtol=1e-5)


def test_tuning_lowers_the_marginal_entropy(engine: tpt.PromptEngine) -> None:
    losses = []
    for steps in (1, 4):
        out = tpt.TPT(engine, steps=steps, lr=1e-3).adapt_features(unit_features(64, 32))
        assert out.final_loss < out.loss
        losses.append(out.final_loss.item())
    assert losses[1] < losses[0]


def test_the_defaults_are_the_published_ones(engine: tpt.PromptEngine) -> None:
    settings = tpt.TPT(engine).settings
    assert (settings.keep, settings.steps, settings.lr) == (0.1, 1, 5e-3)
    assert settings.reset == "image"
    assert len(tpt.TPT(engine).adapt_features(unit_features(64, 32)).selected) == 6


def test_initial_logits_are_those_of_zero_shot(engine: tpt.PromptEngine) -> None:
    features = unit_features(16, 32)
    plain = tpt.ZeroShot(engine).adapt_features(features)
    out = tpt.TPT(engine).adapt_features(features)
    torch.testing.assert_close(out.initial_logits, plain.logits, atol=1e-4, rtol=0)
    assert not torch.equal(out.logits, out.initial_logits)


def test_views_that_are_not_kept_change_nothing(engine: tpt.PromptEngine) -> None:
    method = tpt.TPT(engine, keep=0.25)
    features = unit_features(16, 32)
    out = method.adapt_features(features)
    left_out = [i for i in range(1, 16) if i not in out.selected.tolist()]
    middling = features[out.view_entropy.argmax()].clone()
    features[left_out] = middling
    again = method.adapt_features(features)
    assert again.selected.tolist() == out.selected.tolist()
    for name in ("gradient", "vectors", "logits", "final_loss"):
        torch.testing.assert_close(getattr(again, name), getattr(out, name), atol=1e-4, rtol=1e-4)


# --- a context for each image (CoCoOp), a blend ---


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_conditional_context_is_made_from_view_0_and_then_tuned(
    conditional: tpt.PromptEngine, steps: int, batch: int | None
) -> None:
    features = unit_features(*([batch] if batch else []), 16, 32)
    out = tpt.TPT(conditional, keep=0.25, steps=steps).adapt_features(features)
    for index in range(batch or 1):
        image, got = (features[index], out.image(index)) if batch else (features, out)
        start = shift_by_hand(conditional.context, image[0])
        assert_agrees(got, Plain(conditional, steps=steps, start=start).adapt(image))


def test_a_conditional_contexts_initial_logits_are_those_of_zero_shot(
    conditional: tpt.PromptEngine,
) -> None:
    features = unit_features(3, 16, 32)
    plain = tpt.ZeroShot(conditional).adapt_features(features)
    out = tpt.TPT(conditional).adapt_features(features)
    torch.testing.assert_close(out.initial_logits, plain.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("reset", ["stream", "never"])
def test_a_conditional_context_cannot_be_carried_on(
    conditional: tpt.PromptEngine, reset: str
) -> None:
    with pytest.raises(MethodError, match=f'reset="{reset}" carries one context') as caught:
        tpt.TPT(conditional, reset=reset)
    assert str(caught.value).endswith('Use reset="image".')


@pytest.mark.parametrize("steps", [1, 2])
def test_a_blend_stays_mixed_in_while_its_context_is_tuned(
    golden: SimpleNamespace, engine: tpt.PromptEngine, steps: int
) -> None:
    blended = replace(engine.context, blend=Blend(("itap of a {}.",), 0.6))
    mixed = tpt.PromptEngine(golden.clip, NAMES, blended)
    features = unit_features(16, 32)
    out = tpt.TPT(mixed, keep=0.25, steps=steps).adapt_features(features)
    assert_agrees(out, Plain(mixed, steps=steps).adapt(features))
    hand = tpt.ZeroShot(engine, ["itap of a {}."]).class_features()
    classes = F.normalize(0.6 * engine.class_features(out.vectors) + 0.4 * hand, dim=-1)
    torch.testing.assert_close(out.logits, 100 * features[0] @ classes.T, atol=2e-3, rtol=0)


# --- small cases ---


@pytest.mark.parametrize("keep", [0.01, 0.5, 1.0])
def test_one_view_is_kept_whatever_the_share(engine: tpt.PromptEngine, keep: float) -> None:
    features = unit_features(1, 32)
    out = tpt.TPT(engine, keep=keep).adapt_features(features)
    assert out.selected.tolist() == [0]
    torch.testing.assert_close(out.loss, out.view_entropy[0])
    assert_agrees(out, Plain(engine, keep).adapt(features))


def test_keep_1_keeps_every_view(engine: tpt.PromptEngine) -> None:
    out = tpt.TPT(engine, keep=1.0).adapt_features(unit_features(16, 32))
    assert sorted(out.selected.tolist()) == list(range(16))
    assert out.view_entropy[out.selected].diff().min() >= 0


def test_equal_views_are_kept_in_their_order(engine: tpt.PromptEngine) -> None:
    features = unit_features(1, 32).repeat(16, 1)
    assert tpt.TPT(engine, keep=0.5).adapt_features(features).selected.tolist() == list(range(8))


@pytest.mark.parametrize("reset", ["image", "stream"])
@pytest.mark.parametrize("steps", [1, 3])
def test_one_class_leaves_nothing_to_tune_but_works(
    golden: SimpleNamespace, steps: int, reset: str
) -> None:
    engine = tpt.PromptEngine(golden.clip, ["cat"])
    out = tpt.TPT(engine, steps=steps, reset=reset).adapt_features(unit_features(2, 16, 32))
    assert out.logits.shape == (2, 1)
    assert out.loss.abs().max() < 1e-6
    assert out.vectors.isfinite().all()
    assert out.selected.tolist() == [[0]] * 2


# --- batches ---


def assert_at_once_agrees(method: tpt.TPT, features: Tensor) -> None:
    """What a GPU runs, `is_grads_batched` and all; a CPU takes images one at a time."""
    together, single = method._tuner.adapt(features), method.adapt_features(features)
    assert torch.equal(together.selected, single.selected)
    for name in ("initial_logits", "view_entropy", "loss"):
        torch.testing.assert_close(
            getattr(together, name), getattr(single, name), atol=1e-5, rtol=1e-5
        )
    scale = single.gradient.norm(dim=(-2, -1))
    assert ((together.gradient - single.gradient).norm(dim=(-2, -1)) < 1e-4 * scale).all()
    sure = single.gradient.abs() > 1e-3 * single.gradient.abs().amax()
    torch.testing.assert_close(together.vectors[sure], single.vectors[sure], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.logits, single.logits, atol=2e-3, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("shape", [(4, 64), (5, 4, 64)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_images_adapted_at_once_agree_with_one_at_a_time(
    golden: SimpleNamespace, batch: int, shape: tuple[int, ...], path: str, steps: int
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random_vectors(*shape)), path=path)
    method = tpt.TPT(engine, keep=0.25, steps=steps, lr=1e-3)
    assert_at_once_agrees(method, unit_features(batch, 16, 32))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_conditional_images_adapted_at_once_agree_with_one_at_a_time(
    conditional: tpt.PromptEngine, batch: int, steps: int
) -> None:
    method = tpt.TPT(conditional, keep=0.25, steps=steps, lr=1e-3)
    assert_at_once_agrees(method, unit_features(batch, 16, 32))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", ["engine", "conditional"])
def test_a_batch_gives_the_bits_of_each_image_alone(
    kind: str, steps: int, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(kind)
    method = tpt.TPT(engine, keep=0.25, steps=steps)
    features = unit_features(4, 16, 32)
    together = method.adapt_features(features)
    reverse = method.adapt_features(features.flip(0))
    for index in range(4):
        alone = tpt.TPT(engine, keep=0.25, steps=steps).adapt_features(features[index])
        for name, value in as_dict(alone).items():
            assert torch.equal(getattr(together, name)[index], value), name
            assert torch.equal(getattr(reverse, name)[3 - index], value), name


# --- when it forgets ---


def run(method: Any, images: Tensor) -> list[dict[str, Tensor]]:
    return [as_dict(method.adapt_features(image)) for image in images]


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    for name, value in want.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize("kind", ["engine", "conditional"])
def test_reset_by_image_forgets_everything_at_once(
    kind: str, request: pytest.FixtureRequest
) -> None:
    method = tpt.TPT(request.getfixturevalue(kind))
    images = unit_features(3, 16, 32)
    forward, backward = run(method, images), run(method, images.flip(0))[::-1]
    assert not method.keeps_state
    for got, want in zip(backward, forward, strict=True):
        assert_same(got, want)


@pytest.mark.parametrize("reset", ["stream", "never"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_carried_context_goes_on_where_the_last_image_left_it(
    engine: tpt.PromptEngine, reset: str, steps: int
) -> None:
    """Context, AdamW's moments and its step count are carried; views are chosen with it."""
    method = tpt.TPT(engine, keep=0.25, steps=steps, reset=reset)
    plain = Plain(engine, steps=steps)
    assert method.keeps_state
    method.start_stream()
    for image in unit_features(5, 16, 32):
        # From the same point each time: what AdamW does where a gradient is nearly zero would
        # otherwise be carried along.
        if method._tuner._carried is not None:
            with torch.no_grad():
                plain.vectors.copy_(method._tuner._carried[0][0])
        assert_agrees(method.adapt_features(image), plain.adapt(image))


@pytest.mark.parametrize("reset", ["stream", "never"])
def test_a_carried_context_leaves_the_initial_logits_alone(
    engine: tpt.PromptEngine, reset: str
) -> None:
    images = unit_features(3, 16, 32)
    fresh = run(tpt.TPT(engine), images)
    carried = run(tpt.TPT(engine, reset=reset), images)
    for place, (got, want) in enumerate(zip(carried, fresh, strict=True)):
        assert torch.equal(got["initial_logits"], want["initial_logits"])
        assert torch.equal(got["logits"], want["logits"]) is (place == 0)
        assert torch.equal(got["view_entropy"], want["view_entropy"]) is (place == 0)


@pytest.mark.parametrize("reset", ["stream", "never"])
def test_a_batch_is_carried_through_in_its_order(engine: tpt.PromptEngine, reset: str) -> None:
    images = unit_features(4, 16, 32)
    together = tpt.TPT(engine, reset=reset).adapt_features(images)
    for index, want in enumerate(run(tpt.TPT(engine, reset=reset), images)):
        assert_same(as_dict(together.image(index)), want)


@pytest.mark.parametrize(
    ("reset", "call", "forgets"),
    [
        ("stream", "start_stream", True),
        ("stream", "reset", True),
        ("never", "start_stream", False),
        ("never", "reset", True),
    ],
)
def test_what_returns_a_carried_context_to_its_start(
    engine: tpt.PromptEngine, reset: str, call: str, forgets: bool
) -> None:
    images = unit_features(4, 16, 32)
    method = tpt.TPT(engine, reset=reset)
    first = run(method, images[:2])
    getattr(method, call)()
    again = run(method, images[:2])
    straight = run(tpt.TPT(engine, reset=reset), images[[0, 1, 0, 1]])
    for got, want in zip(again, first if forgets else straight[2:], strict=True):
        assert_same(got, want)


def test_what_was_given_out_is_not_changed_by_the_next_image(engine: tpt.PromptEngine) -> None:
    method = tpt.TPT(engine, reset="never")
    images = unit_features(2, 16, 32)
    out = method.adapt_features(images[0])
    before = {name: value.clone() for name, value in as_dict(out).items()}
    method.adapt_features(images[1])
    assert_same(as_dict(out), before)


# --- settings ---


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_share_outside_its_range_is_refused(engine: tpt.PromptEngine, keep: float) -> None:
    with pytest.raises(
        MethodError, match=r"keep is the share of views kept, in \(0, 1\]"
    ) as caught:
        tpt.TPT(engine, keep=keep)
    assert f"got {keep}." in str(caught.value)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_step_is_refused_in_favour_of_zero_shot(engine: tpt.PromptEngine, steps: int) -> None:
    with pytest.raises(MethodError, match=f"steps must be at least 1; got {steps}") as caught:
        tpt.TPT(engine, steps=steps)
    assert "tpt.ZeroShot" in str(caught.value)


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(engine: tpt.PromptEngine, lr: float) -> None:
    with pytest.raises(MethodError, match=f"lr must be a positive number; got {lr}"):
        tpt.TPT(engine, lr=lr)


@pytest.mark.parametrize("reset", ["", "Image", "always"])
def test_an_unknown_reset_is_refused(engine: tpt.PromptEngine, reset: str) -> None:
    with pytest.raises(
        MethodError, match=r"expected image \(the default\), stream or never"
    ) as caught:
        tpt.TPT(engine, reset=reset)
    assert f'"{reset}"' in str(caught.value)
