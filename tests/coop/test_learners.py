"""CoOp, CoCoOp and KgCoOp against the golden values and against their equations written plainly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import PARITY
from refusals import refusal
from torch import Tensor

import coop.loop
import tpt
from coop.learners import Batch, CoCoOp, CoOp, KgCoOp, Learner
from coop.learners.base import start_context
from coop.loop import LoopSettings, train
from coop.scoring import predict_logits
from tpt.errors import MethodError, PromptError
from tpt.prompts.meta_network import NAMES, MetaNet
from tpt.prompts.sentences import encode_templates

CASES = [
    case["name"]
    for case in json.loads((PARITY / "reference.json").read_text())["cases"]
    if case["kind"] == "coop"
]
CLASSES = ("cat", "dog", "golden retriever", "ice cream", "truck")
TEMPLATE = "a photo of a {}."


def read(golden: SimpleNamespace, name: str) -> tuple[SimpleNamespace, dict[str, Tensor]]:
    arrays = {
        key.split("/", 1)[1]: value
        for key, value in golden.values.items()
        if key.startswith(f"{name}/")
    }
    return SimpleNamespace(**golden.cases[name]), arrays


def make_batch(features: Tensor, labels: Tensor | Sequence[int]) -> Batch:
    labels = torch.as_tensor(labels).long()
    return Batch(features, labels, features, labels, torch.Generator().manual_seed(0))


def draw_batch(clip: tpt.Clip, labels: Sequence[int], seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn((len(labels), clip.embedding_width), generator=rng)
    return make_batch(F.normalize(features, dim=-1), labels)


def draw_engine(clip: tpt.Clip, *shape: int, position: str = "end") -> tpt.PromptEngine:
    """An engine whose context is random, large enough to tell the classes apart."""
    vectors = 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return tpt.PromptEngine(clip, CLASSES, tpt.Context(vectors, position))


def gradients(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    names = tuple(learner.parameters)
    found = torch.autograd.grad(learner.loss(batch).total, [learner.parameters[n] for n in names])
    return dict(zip(names, found, strict=True))


def step(learner: Learner, batch: Batch, lr: float) -> None:
    found = gradients(learner, batch)
    with torch.no_grad():
        for name, tensor in learner.parameters.items():
            tensor -= lr * found[name]


def assert_close_gradient(got: Tensor, want: Tensor) -> None:
    assert (got - want).norm() <= 1e-3 * want.norm()


# --- the public programs ---


@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("name", CASES)
def test_training_ends_with_the_public_programs_vectors(
    golden: SimpleNamespace, name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, want = read(golden, name)
    assert (case.momentum, case.weight_decay) == (coop.loop.MOMENTUM, coop.loop.WEIGHT_DECAY)
    # The golden steps share one rate.
    monkeypatch.setattr(coop.loop, "learning_rate", lambda epoch, epochs, lr: lr)
    context = tpt.Context(want["ctx_init"], position=case.position)
    learner = CoOp(tpt.PromptEngine(golden.clip, case.classes, context, path=path))
    features = golden.clip.encode_images(golden.views(case.views_seed, case.batch))
    labels = want["labels"].long()
    first = learner.loss(make_batch(features, labels))
    torch.testing.assert_close(first.logits, want["logits"], atol=2e-3, rtol=0)
    torch.testing.assert_close(first.total, want["loss"].view(()), atol=0, rtol=1e-4)

    settings = LoopSettings(epochs=case.steps, lr=case.lr, batch_size=case.batch, seed=1)
    losses = []
    for epoch in train(learner, lambda _: features, labels, settings):
        if epoch.number == 0:
            gradient = learner.parameters["vectors"].grad
            assert gradient is not None
            assert_close_gradient(gradient, want["grad"])
        losses.append(epoch.loss)
    assert losses[0] == pytest.approx(want["loss"].item(), rel=1e-4)
    assert losses[-1] == pytest.approx(want["loss_final"].item(), rel=1e-4)
    vectors = learner.context().vectors
    torch.testing.assert_close(vectors, want["ctx_final"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("path", ["packed", "full"])
def test_cocoops_loss_and_gradient_are_the_public_programs(
    golden: SimpleNamespace, path: str
) -> None:
    case, want = read(golden, "cocoop_words")
    net = {k.removeprefix("meta_net."): t for k, t in want.items() if k.startswith("meta_net.")}
    context = tpt.Context(want["ctx"], meta=MetaNet.from_tensors(net))
    learner = CoCoOp(tpt.PromptEngine(golden.clip, case.classes, context, path=path))
    features = golden.clip.encode_images(golden.views(case.views_seed, case.batch))
    batch = make_batch(features, want["labels"])
    loss = learner.loss(batch)
    torch.testing.assert_close(loss.logits, want["logits"], atol=2e-3, rtol=0)
    torch.testing.assert_close(loss.total, want["loss"].view(()), atol=0, rtol=1e-4)
    found = gradients(learner, batch)
    assert set(found) == {"vectors", *(key for key in want if key.startswith("meta_net."))}
    assert_close_gradient(found.pop("vectors"), want["grad_ctx"])
    for name, gradient in found.items():
        assert_close_gradient(gradient, want[f"grad_{name}"])


# --- CoCoOp ---


def test_a_cocoop_batch_is_the_mean_of_batches_of_one(golden: SimpleNamespace) -> None:
    learner = CoCoOp(draw_engine(golden.clip, 3, golden.clip.width), seed=5)
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 4, 0])
    singles = [
        make_batch(batch.features[place : place + 1], batch.labels[place : place + 1])
        for place in range(len(batch.labels))
    ]
    losses = torch.stack([learner.loss(single).total for single in singles])
    torch.testing.assert_close(learner.loss(batch).total, losses.mean(), atol=1e-4, rtol=1e-5)
    logits = torch.cat([learner.loss(single).logits for single in singles])
    torch.testing.assert_close(learner.loss(batch).logits, logits, atol=1e-3, rtol=0)
    each = [gradients(learner, single) for single in singles]
    for name, gradient in gradients(learner, batch).items():
        mean = torch.stack([found[name] for found in each]).mean(0)
        assert (gradient - mean).norm() <= 1e-4 * mean.norm()


def test_a_cocoop_image_has_class_features_of_its_own(golden: SimpleNamespace) -> None:
    """Equation 3 by hand, an image at a time: ctx_m(x) = v_m + pi(x)."""
    learner = CoCoOp(draw_engine(golden.clip, 3, golden.clip.width), seed=5)
    batch = draw_batch(golden.clip, [0, 1, 2])
    w1, b1, w2, b2 = (learner.parameters[f"meta_net.{n}"] for n in NAMES)
    for image, logits in zip(batch.features, learner.loss(batch).logits, strict=True):
        shift = w2 @ (w1 @ image + b1).clamp_min(0) + b2
        classes = learner.engine.class_features(learner.parameters["vectors"] + shift)
        plain = golden.clip.logit_scale * (classes @ image)
        torch.testing.assert_close(logits, plain, atol=1e-3, rtol=0)


def test_a_meta_network_that_came_with_the_context_is_the_start(golden: SimpleNamespace) -> None:
    net = MetaNet.draw(
        golden.clip.embedding_width, golden.clip.width, torch.Generator().manual_seed(9)
    )
    context = tpt.Context(torch.zeros(2, golden.clip.width), meta=net)
    learner = CoCoOp(tpt.PromptEngine(golden.clip, CLASSES, context), seed=1)
    for name, tensor in net.tensors().items():
        assert torch.equal(learner.parameters[f"meta_net.{name}"], tensor)


# --- KgCoOp ---


@pytest.mark.parametrize("weight", [8.0, 0.3])
def test_kgcoops_loss_is_the_published_one(golden: SimpleNamespace, weight: float) -> None:
    engine = draw_engine(golden.clip, 4, golden.clip.width)
    templates = [TEMPLATE, "a sketch of the {}."]
    learner = KgCoOp(engine, templates, weight)
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    loss = learner.loss(batch)

    soft = engine.class_features()
    hand = encode_templates(golden.clip, CLASSES, templates)
    cosine = F.cosine_similarity(soft, hand, dim=-1)
    fit = F.cross_entropy(golden.clip.logit_scale * (batch.features @ soft.T), batch.labels)
    torch.testing.assert_close(loss.total, fit + weight * (1 - cosine.mean()))
    torch.testing.assert_close(loss.terms["fit"], fit)
    torch.testing.assert_close(loss.terms["distance"], 1 - cosine.mean())
    assert loss.terms["distance"] > 0.01  # or nothing was compared


def test_the_published_weight_is_8(golden: SimpleNamespace) -> None:
    assert KgCoOp(draw_engine(golden.clip, 2, golden.clip.width), [TEMPLATE]).weight == 8


@pytest.mark.parametrize("shape", [(4,), (5, 4)])
def test_kgcoop_without_its_term_is_coop_to_the_last_bit(
    golden: SimpleNamespace, shape: tuple[int, ...]
) -> None:
    engine = draw_engine(golden.clip, *shape, golden.clip.width)
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    plain, guided = CoOp(engine), KgCoOp(engine, [TEMPLATE], weight=0)
    for _ in range(2):
        assert torch.equal(plain.loss(batch).total, guided.loss(batch).total)
        assert torch.equal(plain.loss(batch).logits, guided.loss(batch).logits)
        step(plain, batch, 1e-3)
        step(guided, batch, 1e-3)
    assert torch.equal(plain.parameters["vectors"], guided.parameters["vectors"])


def test_kgcoops_pull_is_towards_the_hand_crafted_features(golden: SimpleNamespace) -> None:
    engine = draw_engine(golden.clip, 4, golden.clip.width)
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    free, held = KgCoOp(engine, [TEMPLATE], 0), KgCoOp(engine, [TEMPLATE], 1e3)
    start = held.loss(batch).terms["distance"]
    for _ in range(5):
        step(free, batch, 1e-4)
        step(held, batch, 1e-4)
    assert held.loss(batch).terms["distance"] < 0.8 * start
    assert free.loss(batch).terms["distance"] > start  # cross-entropy alone leads away


# --- what all of them do ---

MAKERS = {
    "coop": CoOp,
    "cocoop": lambda engine: CoCoOp(engine, seed=2),
    "kgcoop": lambda engine: KgCoOp(engine, [TEMPLATE]),
}


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("method", list(MAKERS))
def test_a_learned_context_predicts_what_training_saw(
    golden: SimpleNamespace, method: str, position: str
) -> None:
    learner = MAKERS[method](draw_engine(golden.clip, 3, golden.clip.width, position=position))
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    before = learner.loss(batch).logits.detach()
    step(learner, batch, 1e-2)
    context = learner.context()
    assert context.position == position
    assert context.conditional == (method == "cocoop")
    got = predict_logits(tpt.PromptEngine(golden.clip, CLASSES, context), batch.features)
    torch.testing.assert_close(got, learner.loss(batch).logits.detach(), atol=1e-3, rtol=0)
    assert (got - before).abs().max() > 0.05


def test_a_class_specific_context_predicts_what_training_saw(golden: SimpleNamespace) -> None:
    learner = CoOp(draw_engine(golden.clip, len(CLASSES), 3, golden.clip.width))
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    step(learner, batch, 1e-2)
    engine = tpt.PromptEngine(golden.clip, CLASSES, learner.context())
    got = predict_logits(engine, batch.features)
    torch.testing.assert_close(got, learner.loss(batch).logits.detach(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", list(MAKERS))
def test_training_on_leaves_a_context_taken_before_as_it_was(
    golden: SimpleNamespace, method: str
) -> None:
    engine = draw_engine(golden.clip, 3, golden.clip.width)
    start = engine.start.clone()
    learner = MAKERS[method](engine)
    batch = draw_batch(golden.clip, [0, 1, 2, 3, 4, 1])
    taken = learner.context()
    step(learner, batch, 1e-2)
    assert torch.equal(taken.vectors, start)
    assert torch.equal(engine.start, start)  # the engine's own start, too
    if taken.meta is not None:
        moved = learner.context().meta
        assert moved is not None
        assert not torch.equal(taken.meta.bias_2, moved.bias_2)


def test_facts_about_the_context_are_kept(golden: SimpleNamespace) -> None:
    context = tpt.Context.from_words(golden.clip, "a photo of a {} in the wild")
    context = context.described(dataset="pets", shots=4)
    for make in MAKERS.values():
        learned = make(tpt.PromptEngine(golden.clip, CLASSES, context)).context()
        assert learned.info == context.info
        assert (learned.position, learned.before) == ("middle", 4)


@pytest.mark.parametrize("method", ["coop", "kgcoop"])
def test_a_conditional_context_is_no_start_for_a_fixed_one(
    golden: SimpleNamespace, method: str
) -> None:
    learner = CoCoOp(draw_engine(golden.clip, 3, golden.clip.width))
    engine = tpt.PromptEngine(golden.clip, CLASSES, learner.context())
    message = refusal(MethodError, MAKERS[method], engine)
    assert "starts from a fixed context, but a CoCoOp context came" in message


def test_cocoop_refuses_a_class_specific_context(golden: SimpleNamespace) -> None:
    engine = draw_engine(golden.clip, len(CLASSES), 3, golden.clip.width)
    message = refusal(MethodError, CoCoOp, engine)
    assert "class-specific contexts do not go with it" in message
    assert "Leave out --class-specific, or use --method coop" in message


# --- where training starts ---


def test_a_random_start_is_spread_as_published(golden: SimpleNamespace) -> None:
    vectors = start_context(golden.clip, 5, length=256, seed=1).vectors  # 16,384 numbers
    assert vectors.shape == (256, golden.clip.width)
    assert vectors.std().item() == pytest.approx(0.02, rel=0.03)
    assert vectors.mean().abs() < 1e-3
    assert 0.05 < vectors.abs().max() < 0.12  # a normal distribution has tails


def test_the_seed_decides_a_random_start(golden: SimpleNamespace) -> None:
    first, same, other = (start_context(golden.clip, 5, seed=s).vectors for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_class_specific_start_has_a_context_a_class(golden: SimpleNamespace) -> None:
    context = start_context(golden.clip, 5, length=3, class_specific=True, seed=1)
    assert context.vectors.shape == (5, 3, golden.clip.width)
    assert len({tuple(vectors.flatten().tolist()) for vectors in context.vectors}) == 5


@pytest.mark.parametrize(
    ("words", "position", "want", "before"),
    [
        (None, None, "end", 16),
        (None, "middle", "middle", 8),
        (None, "front", "front", 0),
        ("a photo of a", None, "end", 4),
        ("a photo of a", "front", "front", 0),
        ("a photo of a", "middle", "middle", 2),
        ("a photo of a {} in the wild", None, "middle", 4),
        ("a photo of a {} in the wild", "middle", "middle", 4),
        ("{} in the wild", "front", "front", 0),
    ],
)
def test_where_the_class_name_stands_at_the_start(
    golden: SimpleNamespace, words: str | None, position: str | None, want: str, before: int
) -> None:
    context = start_context(golden.clip, 5, words=words, position=position)
    assert (context.position, context.before) == (want, before)
    assert context.info.words == words
    if words is not None:
        assert torch.equal(context.vectors, tpt.Context.from_words(golden.clip, words).vectors)


def test_words_and_a_position_that_contradict_each_other_are_refused(
    golden: SimpleNamespace,
) -> None:
    words = "a photo of a {} in the wild"
    message = refusal(MethodError, start_context, golden.clip, 5, words=words, position="front")
    assert f'The words "{words}" put the class name at position middle' in message
    assert "position front was asked for. Leave out one of the two" in message


def test_words_for_a_class_specific_start_are_refused(golden: SimpleNamespace) -> None:
    message = refusal(
        MethodError, start_context, golden.clip, 5, words="a photo of a", class_specific=True
    )
    assert 'starts at random, but the words "a photo of a" were given' in message


def test_a_position_that_is_none_is_refused(golden: SimpleNamespace) -> None:
    message = refusal(PromptError, start_context, golden.clip, 5, position="top")
    assert 'Unknown position "top"' in message
