"""Logits and accuracies of contexts on pictures whose features are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from coop import scoring as evaluate
from coop.scoring import Score, harmonic_mean, predict_logits, score, template_logits
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend
from tpt.prompts.sentences import encode_templates

CLASSES = ("cat", "dog", "golden retriever", "truck")


def draw_features(clip: tpt.Clip, count: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn((count, clip.embedding_width), generator=rng), dim=-1)


def make_engine(
    clip: tpt.Clip, conditional: bool = False, blend: Blend | None = None
) -> tpt.PromptEngine:
    rng = torch.Generator().manual_seed(1)
    vectors = 0.2 * torch.randn((3, clip.width), generator=rng)
    meta = MetaNet.draw(clip.embedding_width, clip.width, rng) if conditional else None
    return tpt.PromptEngine(clip, CLASSES, tpt.Context(vectors, meta=meta, blend=blend))


# --- logits ---


def test_a_fixed_contexts_logits_are_scaled_cosines(golden: SimpleNamespace) -> None:
    engine, features = make_engine(golden.clip), draw_features(golden.clip, 7)
    got = predict_logits(engine, features)
    cosine = F.cosine_similarity(features.unsqueeze(1), engine.class_features(), dim=-1)
    torch.testing.assert_close(got, 100 * cosine, atol=1e-3, rtol=0)
    assert not got.requires_grad


@pytest.mark.parametrize("most", [4096, 8, 1])  # prompts a pass, of 4 an image
def test_a_conditional_contexts_logits_are_those_of_the_images_one_by_one(
    golden: SimpleNamespace, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_PROMPTS_A_PASS", most)
    engine, features = make_engine(golden.clip, conditional=True), draw_features(golden.clip, 7)
    passes = []
    encode = engine.class_features
    monkeypatch.setattr(
        engine, "class_features", lambda vectors: passes.append(len(vectors)) or encode(vectors)
    )
    got = predict_logits(engine, features)
    assert passes == {4096: [7], 8: [2, 2, 2, 1], 1: [1] * 7}[most]
    for image, logits in zip(features, got, strict=True):
        classes = encode(engine.start_for(image.unsqueeze(0))[0])
        torch.testing.assert_close(logits, engine.logits(image, classes), atol=1e-3, rtol=0)
    fixed = predict_logits(make_engine(golden.clip), features)
    assert (got - fixed).abs().max() > 0.05  # the meta-network has a say


@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_that_are_none_have_no_logits(golden: SimpleNamespace, conditional: bool) -> None:
    engine = make_engine(golden.clip, conditional)
    assert predict_logits(engine, draw_features(golden.clip, 0)).shape == (0, len(CLASSES))


def test_templates_are_averaged_and_the_engines_context_has_no_say(
    golden: SimpleNamespace,
) -> None:
    engine, features = make_engine(golden.clip), draw_features(golden.clip, 7)
    templates = ("a photo of a {}.", "a sketch of the {}.")
    hand = encode_templates(golden.clip, CLASSES, templates)
    got = template_logits(engine, features, templates)
    torch.testing.assert_close(got, 100 * features @ hand.T, atol=1e-3, rtol=0)
    other = template_logits(make_engine(golden.clip, conditional=True), features, templates)
    assert torch.equal(got, other)


def test_a_blend_of_templates_alone_predicts_what_the_templates_predict(
    golden: SimpleNamespace,
) -> None:
    features, templates = draw_features(golden.clip, 7), ("a photo of a {}.",)
    engine = make_engine(golden.clip, blend=Blend(templates, 0.0))
    want = template_logits(engine, features, templates)
    torch.testing.assert_close(predict_logits(engine, features), want, atol=1e-3, rtol=0)


# --- accuracies ---


def test_the_score_is_the_share_of_right_top_classes() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 9.0, 8.0], [1.0, 2.0, 0.5], [5.0, 4.0, 6.0]])
    assert score(logits, torch.tensor([0, 1, 2, 2])) == Score(0.75, 4)
    assert score(logits, torch.tensor([1, 0, 0, 0])) == Score(0.0, 4)


@pytest.mark.parametrize(
    ("base", "new", "want"),
    [
        (0.8269, 0.6322, 0.71657),  # CoOp's averages as CoCoOp's paper has them: H 71.66
        (0.8047, 0.7169, 0.75827),  # CoCoOp's: H 75.83
        (0.5, 0.5, 0.5),
        (1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_the_harmonic_mean_of_base_and_new(base: float, new: float, want: float) -> None:
    got = harmonic_mean(Score(base, 10), Score(new, 90))  # however many pictures each has
    assert got == pytest.approx(want, abs=1e-4)


def test_the_harmonic_mean_needs_both() -> None:
    assert harmonic_mean(None, Score(0.5, 4)) is None
    assert harmonic_mean(Score(0.5, 4), None) is None
    assert harmonic_mean(None, None) is None
