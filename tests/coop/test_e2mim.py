"""E2MIM: every term against itself written plainly, every switch, and pictures mixed in a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from torch import Tensor

import tpt
from coop.learners import E2MIM, Batch, CoCoOp, CoOp, E2MIMSettings
from coop.learners.e2mim import mix_within_classes
from coop.scoring import predict_logits
from tpt.errors import MethodError
from tpt.prompts.sentences import encode_templates

CLASSES = ("cat", "dog", "golden retriever", "ice cream", "truck")
TEMPLATES = ("a photo of a {}.", "a sketch of the {}.")
OFF = E2MIMSettings(alpha=1, mi_text=0, mi_image=0, mixup=0, critic=False)
LABELS = (0, 1, 2, 3, 4, 1, 0, 3, 3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_batch(clip: tpt.Clip, labels: Sequence[int] = LABELS, seed: int = 0) -> Batch:
    """A batch of the first five of an epoch's pictures."""
    features = F.normalize(torch.randn((len(labels), clip.embedding_width), generator=rng(3)))
    numbers = torch.tensor(labels)
    return Batch(features[:5], numbers[:5], features, numbers, rng(seed))


def make_learner(clip: tpt.Clip, settings: E2MIMSettings | None = None) -> E2MIM:
    """With a critic that does something, where there is one."""
    vectors = 0.2 * torch.randn((3, clip.width), generator=rng(1))
    learner = E2MIM(tpt.PromptEngine(clip, CLASSES, tpt.Context(vectors)), TEMPLATES, settings)
    if "critic" in learner.parameters:
        shape = learner.parameters["critic"].shape
        with torch.no_grad():
            learner.parameters["critic"].copy_(0.1 * torch.randn(shape, generator=rng(2)))
    return learner


def terms_of(learner: E2MIM, clip: tpt.Clip, seed: int = 0) -> dict[str, float]:
    loss = learner.loss(draw_batch(clip, seed=seed))
    values = {name: term.item() for name, term in loss.terms.items()}
    return {"total": loss.total.item(), **values}


def gradients(learner: E2MIM, batch: Batch) -> dict[str, Tensor | None]:
    learner.loss(batch).total.backward()
    return {name: tensor.grad for name, tensor in learner.parameters.items()}


# --- the terms ---


def plain_terms(learner: E2MIM, batch: Batch, mixed: Tensor) -> dict[str, float]:
    """The module's equations, number by number in Python's own floats."""
    alpha = learner.settings.alpha
    soft = learner.engine.class_features().double()
    hand = encode_templates(learner.engine.clip, CLASSES, TEMPLATES).double()
    both = [alpha * w + (1 - alpha) * h for w, h in zip(soft, hand, strict=True)]
    both = [t / t.norm() for t in both]
    matrix = learner.parameters["critic"].detach().double()
    tau = math.exp(learner.parameters["log_temperature"].item())

    def s(a: Tensor, b: Tensor) -> float:
        return ((a + matrix.T @ a) @ b / tau).item()

    def surprise(scores: list[float], place: int) -> float:
        """Minus the logarithm of one score's share under the softmax."""
        top = max(scores)
        return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[place]

    count = len(CLASSES)
    forth = [surprise([s(soft[c], hand[o]) for o in range(count)], c) for c in range(count)]
    back = [surprise([s(soft[o], hand[c]) for o in range(count)], c) for c in range(count)]
    scale = learner.engine.clip.logit_scale
    labels = batch.labels.tolist()
    pictures = list(zip(batch.features.double(), mixed.double(), labels, strict=True))
    fit = [surprise([scale * (f @ t).item() for t in both], y) for f, _, y in pictures]
    image = [surprise([s(x, t) for t in both], y) for _, x, y in pictures]
    return {
        "fit": sum(fit) / len(fit),
        "text": (sum(forth) + sum(back)) / 2 / count,
        "image": sum(image) / len(image),
    }


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_every_term_is_the_documented_one(golden: SimpleNamespace, alpha: float) -> None:
    settings = E2MIMSettings(alpha=alpha, mi_text=0.7, mi_image=1.3)
    learner = make_learner(golden.clip, settings)
    mixed = mix_within_classes(draw_batch(golden.clip, seed=4), settings.mixup)
    want = plain_terms(learner, draw_batch(golden.clip), mixed)
    got = terms_of(learner, golden.clip, seed=4)
    assert got.pop("total") == pytest.approx(
        want["fit"] + 0.7 * want["text"] + 1.3 * want["image"], rel=1e-4
    )
    assert got == pytest.approx(want, rel=1e-4)
    assert min(want.values()) > 0.05  # or nothing was compared


def test_the_critic_starts_as_the_cosine_over_the_temperature(golden: SimpleNamespace) -> None:
    vectors = tpt.Context(torch.randn((3, golden.clip.width), generator=rng(1)))
    engine = tpt.PromptEngine(golden.clip, CLASSES, vectors)
    with_critic = E2MIM(engine, TEMPLATES)
    without = E2MIM(engine, TEMPLATES, E2MIMSettings(critic=False))
    assert with_critic.parameters["log_temperature"].exp().item() == pytest.approx(0.07)
    assert terms_of(with_critic, golden.clip) == terms_of(without, golden.clip)


@pytest.mark.parametrize("critic", [True, False])
def test_blind_scores_cost_the_logarithm_of_the_number_of_classes(
    golden: SimpleNamespace, critic: bool
) -> None:
    """log K - InfoNCE bounds the information, so blind scores must leave nothing of it."""
    learner = make_learner(golden.clip, E2MIMSettings(critic=critic, temperature=1e8))
    got = terms_of(learner, golden.clip)
    assert got["text"] == pytest.approx(math.log(len(CLASSES)), rel=1e-5)
    assert got["image"] == pytest.approx(math.log(len(CLASSES)), rel=1e-5)


def test_views_that_agree_and_classes_that_differ_cost_nothing(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip, E2MIMSettings(critic=False, temperature=1e-4))
    learner.hand = learner.engine.class_features()
    assert terms_of(learner, golden.clip)["text"] < 1e-3
    learner.hand = learner.hand.roll(1, 0)  # every class now agrees best with another
    assert terms_of(learner, golden.clip)["text"] > 10


def test_minimising_the_text_term_makes_the_two_prompts_agree(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip, replace(OFF, mi_text=1))
    start = terms_of(learner, golden.clip)["text"]
    for _ in range(5):
        learner.loss(draw_batch(golden.clip)).terms["text"].backward()
        with torch.no_grad():
            vectors = learner.parameters["vectors"]
            assert vectors.grad is not None
            vectors -= 1e-2 * vectors.grad
            vectors.grad = None
    assert terms_of(learner, golden.clip)["text"] < start


# --- the switches ---


@pytest.mark.parametrize("switch", [{"mi_text": 0.0}, {"mi_image": 0.0}])
def test_a_terms_zero_removes_that_term_alone(
    golden: SimpleNamespace, switch: dict[str, Any]
) -> None:
    gone = next(iter(switch)).removeprefix("mi_")
    whole = terms_of(make_learner(golden.clip), golden.clip)
    part = terms_of(make_learner(golden.clip, E2MIMSettings(**switch)), golden.clip)
    assert set(whole) - set(part) == {gone}
    assert part["total"] == pytest.approx(whole["total"] - whole[gone], rel=1e-5)
    del whole["total"], whole[gone], part["total"]
    assert part == whole


def test_without_mixup_pictures_are_taken_as_they_are(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip, E2MIMSettings(mixup=0))
    batch = draw_batch(golden.clip)
    want = plain_terms(learner, batch, batch.features)
    got = terms_of(learner, golden.clip)
    assert got["image"] == pytest.approx(want["image"], rel=1e-4)
    mixed = terms_of(make_learner(golden.clip), golden.clip)
    assert mixed["image"] != pytest.approx(want["image"], rel=1e-3)
    assert (mixed["fit"], mixed["text"]) == (got["fit"], got["text"])


def test_without_the_critic_there_is_no_matrix(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip, E2MIMSettings(critic=False))
    assert set(learner.parameters) == {"vectors", "log_temperature"}
    with_critic = make_learner(golden.clip)
    assert set(with_critic.parameters) == {"vectors", "log_temperature", "critic"}
    width = golden.clip.embedding_width
    assert with_critic.parameters["critic"].shape == (width, width)
    found = gradients(with_critic, draw_batch(golden.clip))
    assert all(gradient is not None and gradient.norm() > 0 for gradient in found.values())


def test_without_the_ensemble_the_hand_crafted_prompt_predicts_nothing(
    golden: SimpleNamespace,
) -> None:
    batch = draw_batch(golden.clip)
    learner = make_learner(golden.clip, E2MIMSettings(alpha=1))
    alone = CoOp(learner.engine).loss(batch)
    got = learner.loss(batch)
    torch.testing.assert_close(got.logits, alone.logits, atol=1e-4, rtol=0)
    both = make_learner(golden.clip).loss(draw_batch(golden.clip))
    assert (both.logits - alone.logits).abs().max() > 0.05
    torch.testing.assert_close(got.terms["text"], both.terms["text"])


def test_with_everything_off_it_is_coop(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip, OFF)
    batch = draw_batch(golden.clip)
    plain = CoOp(learner.engine)
    got, want = learner.loss(batch), plain.loss(batch)
    assert set(got.terms) == {"fit"}
    torch.testing.assert_close(got.total, want.total)
    want.total.backward()
    mine = gradients(learner, batch)
    assert mine["log_temperature"] is None
    gradient = plain.parameters["vectors"].grad
    assert gradient is not None
    assert mine["vectors"] is not None
    assert (mine["vectors"] - gradient).norm() <= 1e-4 * gradient.norm()


# --- pictures mixed inside their class ---


def mark_pictures(labels: Sequence[int], seed: int = 0) -> Batch:
    """Picture number n is the n-th unit vector, so that a mixture shows what it is made of."""
    numbers = torch.tensor(labels)
    marks = torch.eye(len(labels))
    return Batch(marks, numbers, marks, numbers, rng(seed))


def test_partners_are_pictures_of_the_same_class() -> None:
    labels = (0, 0, 1, 1, 1, 2, 0)
    partners: list[set[int]] = [set() for _ in labels]
    for seed in range(60):
        mixed = mix_within_classes(mark_pictures(labels, seed), 2.0)
        torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(len(labels)))
        for place, row in enumerate(mixed):
            parts = set(row.nonzero().flatten().tolist())
            assert len(parts) <= 2
            assert place in parts
            partners[place] |= parts
    same = [{n for n, other in enumerate(labels) if other == label} for label in labels]
    assert partners == same  # every one of them comes up, and no other


def test_partners_come_from_the_whole_epoch_not_from_the_batch_alone() -> None:
    whole = mark_pictures((0, 1, 0, 1))
    batch = replace(whole, features=whole.features[:2], labels=whole.labels[:2])
    assert bool((mix_within_classes(batch, 2.0)[:, 2:] > 0).any())


def draw_shares(a: float, count: int = 4000) -> Tensor:
    """lambda of many mixtures: all pictures point one way, all partners another."""
    ones = torch.zeros(count, dtype=torch.long)
    batch = Batch(
        torch.tensor([[1.0, 0.0]]).expand(count, 2),
        ones,
        torch.tensor([[0.0, 1.0]]),
        ones[:1],
        rng(),
    )
    mixed = mix_within_classes(batch, a)
    return mixed[:, 0] / mixed.sum(-1)


@pytest.mark.parametrize("a", [0.1, 0.4, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(a: float) -> None:
    shares = draw_shares(a)
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.08)
    levels = torch.linspace(0.05, 0.95, 19)
    if a == 1:  # the uniform distribution
        torch.testing.assert_close(torch.quantile(shares, levels), levels, atol=0.03, rtol=0)


def test_a_share_so_uneven_that_it_rounds_to_nothing_is_still_a_number() -> None:
    shares = draw_shares(1e-4)
    assert bool(((shares >= 0) & (shares <= 1)).all())


@pytest.mark.parametrize("a", [0.4, 5.0])
def test_the_only_picture_of_a_class_stays_what_it_is(golden: SimpleNamespace, a: float) -> None:
    batch = draw_batch(golden.clip, labels=(0, 1, 2, 3, 4))
    torch.testing.assert_close(mix_within_classes(batch, a), batch.features)


def test_no_mixup_changes_nothing_and_draws_nothing(golden: SimpleNamespace) -> None:
    batch = draw_batch(golden.clip)
    assert torch.equal(mix_within_classes(batch, 0), batch.features)
    assert torch.equal(batch.rng.get_state(), rng().get_state())


def test_the_generator_decides_the_mixtures(golden: SimpleNamespace) -> None:
    torch.manual_seed(1)
    first = mix_within_classes(draw_batch(golden.clip, seed=7), 0.4)
    torch.manual_seed(2)  # the global generator has no say
    assert torch.equal(mix_within_classes(draw_batch(golden.clip, seed=7), 0.4), first)
    assert not torch.equal(mix_within_classes(draw_batch(golden.clip, seed=8), 0.4), first)


# --- what it leaves behind ---


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.0])
def test_the_learned_context_predicts_what_training_saw(
    golden: SimpleNamespace, alpha: float
) -> None:
    learner = make_learner(golden.clip, E2MIMSettings(alpha=alpha))
    with torch.no_grad():
        learner.parameters["vectors"] *= 1.1  # it has moved from its start
    context = learner.context()
    if alpha < 1:
        assert context.blend is not None
        assert (context.blend.templates, context.blend.weight) == (TEMPLATES, alpha)
    else:
        assert context.blend is None
    batch = draw_batch(golden.clip)
    want = learner.loss(batch).logits.detach()
    got = predict_logits(tpt.PromptEngine(golden.clip, CLASSES, context), batch.features)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=0)


def test_training_on_leaves_a_context_taken_before_as_it_was(golden: SimpleNamespace) -> None:
    learner = make_learner(golden.clip)
    taken = learner.context()
    start = learner.engine.start.clone()
    with torch.no_grad():
        learner.parameters["vectors"] += 1
    assert torch.equal(taken.vectors, start)


# --- what is refused ---


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"alpha": 0.0}, "alpha is the share of the soft prompt, in (0, 1]; got 0.0."),
        ({"alpha": 1.01}, "in (0, 1]; got 1.01. At 1 the hand-crafted prompt has no say"),
        ({"alpha": float("nan")}, "in (0, 1]; got nan."),
        ({"mi_text": -1.0}, "mi_text must be a number from 0 (off) on; got -1.0."),
        ({"mi_image": float("inf")}, "mi_image must be a number from 0 (off) on; got inf."),
        ({"mixup": -0.1}, "mixup must be a number from 0 (off) on; got -0.1."),
        ({"mixup": float("nan")}, "mixup must be a number from 0 (off) on; got nan."),
        ({"temperature": 0.0}, "temperature must be a positive number; got 0.0."),
        ({"temperature": float("inf")}, "temperature must be a positive number; got inf."),
    ],
)
def test_settings_out_of_their_range_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(MethodError, E2MIMSettings, **wrong)


def test_a_conditional_context_is_no_start(golden: SimpleNamespace) -> None:
    learned = CoCoOp(tpt.PromptEngine(golden.clip, CLASSES)).context()
    engine = tpt.PromptEngine(golden.clip, CLASSES, learned)
    with pytest.raises(MethodError, match="starts from a fixed context, but a CoCoOp context"):
        E2MIM(engine, TEMPLATES)
