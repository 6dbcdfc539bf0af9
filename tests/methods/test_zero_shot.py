"""Zero-shot prediction: plain CLIP on view 0, with one template or several."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend

NAMES = ["cat", "golden_retriever", "passenger car"]
CLEAN = [name.replace("_", " ") for name in NAMES]
TEMPLATES = ["a sketch of a {}.", "itap of my {}", "{}!", "a {} in a video game."]


@pytest.fixture
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def encode_text(clip: tpt.Clip, sentences: list[str]) -> Tensor:
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(clip.tokenizer(sentences)), dim=-1)


def unit_features(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def conditional(golden: SimpleNamespace) -> tpt.PromptEngine:
    rng = torch.Generator().manual_seed(3)
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    context = replace(words, meta=MetaNet.draw(32, 64, rng))
    return tpt.PromptEngine(golden.clip, NAMES, context)


def test_it_is_open_clips_own_zero_shot_prediction(
    engine: tpt.PromptEngine, golden: SimpleNamespace
) -> None:
    views = golden.views(1, 5)
    text = encode_text(golden.clip, [f"a photo of a {name}." for name in CLEAN])
    with torch.no_grad():
        image = golden.clip.model.encode_image(views[:1], normalize=True)
    out = tpt.ZeroShot(engine).adapt(views)
    torch.testing.assert_close(out.logits, (100 * image @ text.T)[0], atol=2e-3, rtol=0)
    assert torch.equal(out.initial_logits, out.logits)
    assert out.selected.tolist() == [0]
    assert out.vectors is out.gradient is out.loss is out.final_loss is None


@pytest.mark.parametrize("count", [1, 2, 4])
def test_templates_are_averaged_as_open_clip_averages_them(
    engine: tpt.PromptEngine, golden: SimpleNamespace, count: int
) -> None:
    each = [
        encode_text(golden.clip, [template.replace("{}", name) for name in CLEAN])
        for template in TEMPLATES[:count]
    ]
    expected = F.normalize(torch.stack(each).mean(0), dim=-1)
    method = tpt.ZeroShot(engine, TEMPLATES[:count])
    torch.testing.assert_close(method.class_features(), expected, atol=1e-5, rtol=0)
    features = unit_features(3, 32)
    logits = 100 * features[0] @ expected.T
    torch.testing.assert_close(method.adapt_features(features).logits, logits, atol=2e-3, rtol=0)


def test_class_features_are_computed_once(engine: tpt.PromptEngine) -> None:
    method = tpt.ZeroShot(engine, TEMPLATES)
    first = method.class_features()
    kept = first.clone()
    first.zero_()  # what is handed out is the caller's
    assert torch.equal(method.class_features(), kept)
    assert len(engine._template_features) == 1


@pytest.mark.parametrize("templates", [None, TEMPLATES])
def test_only_view_0_counts(engine: tpt.PromptEngine, templates: list[str] | None) -> None:
    method = tpt.ZeroShot(engine, templates)
    features = unit_features(2, 6, 32)
    other = torch.cat([features[:, :1], unit_features(2, 9, 32)], dim=1)
    assert torch.equal(method.adapt_features(features).logits, method.adapt_features(other).logits)
    assert not method.reads_views
    assert not method.keeps_state


def test_only_view_0_of_the_pictures_is_looked_at(
    engine: tpt.PromptEngine, golden: SimpleNamespace
) -> None:
    method = tpt.ZeroShot(engine)
    views = golden.views(1, 4)
    spoilt = views.clone()
    spoilt[1:] = float("nan")
    assert torch.equal(method.adapt(spoilt).logits, method.adapt(views).logits)


def test_earlier_images_leave_no_trace(engine: tpt.PromptEngine) -> None:
    method = tpt.ZeroShot(engine)
    first, second = unit_features(2, 3, 32)
    expected = method.adapt_features(second).logits
    method.start_stream()
    method.adapt_features(first)
    method.reset()
    assert torch.equal(method.adapt_features(second).logits, expected)


@pytest.mark.parametrize(("template", "places"), [("a photo", 0), ("{} and {}", 2), ("", 0)])
def test_a_template_needs_exactly_one_place(
    engine: tpt.PromptEngine, template: str, places: int
) -> None:
    with pytest.raises(PromptError, match=r"expected exactly one \{\}") as caught:
        tpt.ZeroShot(engine, ["a {}", template])
    assert f'The template "{template}" holds {places} places' in str(caught.value)


def test_a_single_string_of_templates_is_refused(engine: tpt.PromptEngine) -> None:
    with pytest.raises(PromptError, match=r'Write \["a photo of a \{\}."\]'):
        tpt.ZeroShot(engine, "a photo of a {}.")


def test_a_template_that_does_not_fit_is_an_error(engine: tpt.PromptEngine) -> None:
    method = tpt.ZeroShot(engine, ["very " * 80 + "{}"])
    with pytest.raises(PromptError, match="reads at most 77"):
        method.class_features()


# --- a context for each image (CoCoOp), a blend ---


def test_every_image_is_predicted_under_its_own_context(conditional: tpt.PromptEngine) -> None:
    features = unit_features(3, 2, 32)
    together = tpt.ZeroShot(conditional).adapt_features(features)
    for index, image in enumerate(features):
        vectors = conditional.start_for(image[:1])[0]  # of view 0 alone
        logits = 100 * image[0] @ conditional.class_features(vectors).T
        torch.testing.assert_close(together.logits[index], logits, atol=2e-3, rtol=0)
    assert together.logits.shape == (3, 3)
    assert together.view_entropy.shape == together.selected.shape == (3, 1)


def test_a_batch_gives_the_bits_of_each_image_alone(conditional: tpt.PromptEngine) -> None:
    method = tpt.ZeroShot(conditional)
    features = unit_features(4, 2, 32)
    together = method.adapt_features(features)
    for index, image in enumerate(features):
        alone = method.adapt_features(image)
        for name in ("logits", "initial_logits", "view_entropy", "selected"):
            assert torch.equal(getattr(together, name)[index], getattr(alone, name)), name


def test_only_view_0_makes_an_images_context(conditional: tpt.PromptEngine) -> None:
    method = tpt.ZeroShot(conditional)
    features = unit_features(2, 6, 32)
    other = torch.cat([features[:, :1], unit_features(2, 9, 32)], dim=1)
    assert torch.equal(method.adapt_features(features).logits, method.adapt_features(other).logits)


def test_images_that_have_their_own_context_share_no_class_features(
    conditional: tpt.PromptEngine,
) -> None:
    with pytest.raises(PromptError, match=r"conditional \(CoCoOp\)"):
        tpt.ZeroShot(conditional).class_features()


def test_templates_replace_a_conditional_context_too(
    conditional: tpt.PromptEngine, engine: tpt.PromptEngine
) -> None:
    features = unit_features(2, 3, 32)
    got, want = (
        tpt.ZeroShot(one, TEMPLATES).adapt_features(features).logits
        for one in (conditional, engine)
    )
    assert torch.equal(got, want)


def test_a_blend_is_what_predicts(golden: SimpleNamespace) -> None:
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    blended = replace(words, blend=Blend((TEMPLATES[0],), 0.25))
    soft, hand = (
        encode_text(golden.clip, [template.replace("{}", name) for name in CLEAN])
        for template in ("a photo of a {}.", TEMPLATES[0])
    )
    expected = F.normalize(0.25 * soft + 0.75 * hand, dim=-1)
    features = unit_features(3, 32)
    out = tpt.ZeroShot(tpt.PromptEngine(golden.clip, NAMES, blended)).adapt_features(features)
    torch.testing.assert_close(out.logits, 100 * features[0] @ expected.T, atol=2e-3, rtol=0)
