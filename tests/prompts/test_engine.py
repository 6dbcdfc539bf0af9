"""The prompt engine: what it computes, and which contexts and class names it refuses."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import PromptError
from tpt.prompts.checks import check_names, check_templates
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend, PromptInfo
from tpt.prompts.sentences import encode_sentences, encode_templates

NAMES = ["cat", "golden retriever", "passenger_car"]
CLEAN = [name.replace("_", " ") for name in NAMES]
TEMPLATES = ("itap of my {}", "a {} in a video game.")


def random_vectors(*shape: int, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def message_of(clip: tpt.Clip, classes: object, context: tpt.Context | None = None) -> str:
    with pytest.raises(PromptError) as caught:
        tpt.PromptEngine(clip, classes, context)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def named(clip: tpt.Clip, name: str | None, pretrained: str | None = None) -> tpt.Clip:
    """The same model under another name."""
    return tpt.Clip(clip.model, clip.tokenizer, name=name, pretrained=pretrained)


def encode_text(clip: tpt.Clip, template: str) -> Tensor:
    """Unit class features (K, E) of a template, by open_clip alone."""
    ids = clip.tokenizer([template.replace("{}", name) for name in CLEAN])
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(ids), dim=-1)


def average(clip: tpt.Clip, templates: tuple[str, ...]) -> Tensor:
    each = [encode_text(clip, template) for template in templates]
    return F.normalize(torch.stack(each).mean(0), dim=-1)


def conditional_context(feature_width: int = 32, width: int = 64) -> tpt.Context:
    meta = MetaNet(
        random_vectors(5, feature_width, seed=3),
        random_vectors(5, seed=4),
        random_vectors(width, 5, seed=5),
        random_vectors(width, seed=6),
    )
    return tpt.Context(random_vectors(4, width), meta=meta)


# --- class features ---


@pytest.mark.parametrize("path", ["auto", "packed", "full"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("class_specific", [False, True])
def test_class_features_have_the_documented_shapes(
    golden: SimpleNamespace, class_specific: bool, count: int, path: str
) -> None:
    shape = (len(NAMES), count, 64) if class_specific else (count, 64)
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random_vectors(*shape)), path=path)
    features = engine.class_features(random_vectors(*shape, seed=1))
    assert features.shape == (3, 32)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))
    for batch in (1, 2, 3):
        vectors = random_vectors(batch, *shape, seed=2)
        together = engine.class_features(vectors)
        assert together.shape == (batch, 3, 32)
        for one, alone in zip(together, vectors, strict=True):
            torch.testing.assert_close(one, engine.class_features(alone), atol=1e-5, rtol=0)


def test_without_vectors_the_start_context_is_meant(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, NAMES)
    assert torch.equal(engine.class_features(), engine.class_features(engine.start))
    assert engine.context.info.words == "a photo of a"


def test_class_features_of_words_are_those_of_the_sentence(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, NAMES)
    sentences = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    with torch.no_grad():
        expected = F.normalize(tiny.model.encode_text(tiny.tokenizer(sentences)), dim=-1)
    torch.testing.assert_close(engine.class_features(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encode_sentences(tiny, sentences), expected, atol=1e-5, rtol=0)


def test_the_same_classes_in_another_order_give_the_same_features(tiny: tpt.Clip) -> None:
    one = tpt.PromptEngine(tiny, NAMES).class_features()
    other = tpt.PromptEngine(tiny, NAMES[::-1]).class_features()
    torch.testing.assert_close(other.flip(0), one, atol=1e-5, rtol=0)


def test_an_underscore_in_a_name_is_a_space(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, ["passenger_car", "passenger car"])
    first, second = engine.class_features()
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    assert engine.classes == ("passenger_car", "passenger car")


def test_the_same_name_may_stand_twice(tiny: tpt.Clip) -> None:
    features = tpt.PromptEngine(tiny, ["crane", "cat", "crane"]).class_features()
    torch.testing.assert_close(features[0], features[2], atol=1e-6, rtol=0)
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize(
    "names",
    [
        ["X"],
        ["Model X", "Tesla Model X", "cat"],
        ["photo", "X"],
        ["a photo of the X", "x-ray"],
        ["the", "zebra"],
        ["cat's cradle", 'the "quoted" one', "rock & roll!", "1950s; 3/4", "100%"],
        ["🦩", "naïve café", "猫"],
        ["Dr. No", "e.g.", "..."],
        ["{}", "a {} b"],
    ],
)
def test_awkward_names_give_what_the_model_gives_for_the_whole_sentence(
    tiny: tpt.Clip, names: list[str], position: str
) -> None:
    template = {"end": "an old {}", "middle": "an old {} here", "front": "{} from here"}[position]
    engine = tpt.PromptEngine(tiny, names, tpt.Context.from_words(tiny, template))
    head, tail = template.split("{}")
    sentences = [f"{head}{name}{tail}." for name in names]
    with torch.no_grad():
        expected = F.normalize(tiny.model.encode_text(tiny.tokenizer(sentences)), dim=-1)
    torch.testing.assert_close(engine.class_features(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("shape", [(4, 64), (2, 4, 64), (3, 4, 64), (2, 3, 4, 64)])
def test_the_gradient_is_the_slope_along_any_direction(
    golden: SimpleNamespace, shape: tuple[int, ...], path: str
) -> None:
    start = (3, 4, 64) if shape[-3:] == (3, 4, 64) else (4, 64)
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random_vectors(*start)), path=path)
    vectors = random_vectors(*shape).requires_grad_()
    weight = random_vectors(*shape[: len(shape) - len(start)], 3, 32, seed=1)

    def value(at: Tensor) -> Tensor:
        return (engine.class_features(at) * weight).double().sum()

    (gradient,) = torch.autograd.grad(value(vectors), vectors)
    for seed in (2, 3):
        # Random directions are nearly at right angles to the gradient: lean them towards it.
        direction = random_vectors(*shape, seed=seed)
        direction = direction / direction.norm() + gradient / gradient.norm()
        step = 2e-3 * direction
        with torch.no_grad():
            rise = value(vectors + step) - value(vectors - step)
        slope = (gradient.double() * step).sum() * 2
        assert rise.item() == pytest.approx(slope.item(), rel=0.02)


def test_logits_are_scaled_cosines(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    features = F.normalize(random_vectors(2, 5, 32), dim=-1)
    classes = F.normalize(random_vectors(2, 3, 32, seed=1), dim=-1)
    expected = 100 * torch.einsum("bne,bke->bnk", features, classes)
    torch.testing.assert_close(engine.logits(features, classes), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(engine.logits(features[0], classes[0]), expected[0])


@pytest.mark.parametrize(
    ("start", "given"),
    [
        ((4, 64), (3, 64)),
        ((4, 64), (4, 32)),
        ((4, 64), (64,)),
        ((4, 64), (2, 2, 4, 64)),
        ((3, 4, 64), (4, 64)),
        ((3, 4, 64), (2, 4, 64)),
        ((3, 4, 64), (3, 5, 64)),
    ],
)
def test_vectors_of_another_shape_are_refused(
    golden: SimpleNamespace, start: tuple[int, ...], given: tuple[int, ...]
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random_vectors(*start)))
    with pytest.raises(PromptError) as caught:
        engine.class_features(random_vectors(*given))
    expected = ", ".join(map(str, start))
    assert f"have shape {given}" in str(caught.value)
    assert f"expects ({expected}), or (B, {expected}) for a batch" in str(caught.value)


# --- a context for each image (CoCoOp) ---


def test_every_image_has_a_start_context_of_its_own(golden: SimpleNamespace) -> None:
    context = conditional_context()
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    features = F.normalize(random_vectors(3, 32, seed=1), dim=-1)
    starts = engine.start_for(features)
    assert engine.conditional
    assert starts.shape == (3, 4, 64)
    net = context.meta
    for start, feature in zip(starts, features, strict=True):
        hidden = (net.weight_1 @ feature + net.bias_1).clamp(min=0)
        shift = net.weight_2 @ hidden + net.bias_2
        for vector, base in zip(start, context.vectors, strict=True):
            torch.testing.assert_close(vector, base + shift)
    assert (starts[0] - starts[1]).norm() > 0.1 * starts[0].norm()


@pytest.mark.parametrize("shape", [(4, 64), (3, 4, 64)])
def test_where_images_share_a_context_it_is_everyones_start(
    golden: SimpleNamespace, shape: tuple[int, ...]
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(random_vectors(*shape)))
    starts = engine.start_for(random_vectors(2, 32))
    assert not engine.conditional
    assert starts.shape == (2, *shape)
    assert all(torch.equal(start, engine.start) for start in starts)


@pytest.mark.parametrize("path", ["packed", "full"])
def test_images_contexts_in_one_call_are_each_ones_own(golden: SimpleNamespace, path: str) -> None:
    context = conditional_context()
    engine = tpt.PromptEngine(golden.clip, NAMES, context, path=path)
    plain = tpt.PromptEngine(golden.clip, NAMES, tpt.Context(context.vectors))
    starts = engine.start_for(F.normalize(random_vectors(3, 32, seed=1), dim=-1))
    for classes, start in zip(engine.class_features(starts), starts, strict=True):
        expected = plain.class_features(start)
        torch.testing.assert_close(classes, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(engine.class_features(start), expected, atol=1e-5, rtol=0)


def test_class_features_of_a_conditional_context_need_vectors(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, conditional_context())
    with pytest.raises(PromptError, match=r"This context is conditional \(CoCoOp\)") as caught:
        engine.class_features()
    assert "the vectors that start_for(features) makes." in str(caught.value)


# --- blends with templates ---


@pytest.mark.parametrize("count", [1, 2])
def test_templates_are_averaged_word_for_word(golden: SimpleNamespace, count: int) -> None:
    templates = TEMPLATES[:count]
    features = encode_templates(golden.clip, NAMES, templates)
    torch.testing.assert_close(features, average(golden.clip, templates), atol=2e-6, rtol=0)
    assert not features.requires_grad


@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_blend_mixes_the_prompt_with_the_templates(
    golden: SimpleNamespace, count: int, weight: float, path: str
) -> None:
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    blended = replace(words, blend=Blend(TEMPLATES[:count], weight))
    engine = tpt.PromptEngine(golden.clip, NAMES, blended, path=path)
    soft = encode_text(golden.clip, "a photo of a {}.")
    hand = average(golden.clip, TEMPLATES[:count])
    expected = F.normalize(weight * soft + (1 - weight) * hand, dim=-1)
    torch.testing.assert_close(engine.class_features(), expected, atol=5e-6, rtol=0)
    assert (soft - hand).norm(dim=-1).min() > 0.1  # else any mixture would do


@pytest.mark.parametrize("shape", [(4, 64), (3, 4, 64)])
def test_a_blend_mixes_every_context_of_a_batch(
    golden: SimpleNamespace, shape: tuple[int, ...]
) -> None:
    context = tpt.Context(random_vectors(*shape))
    plain = tpt.PromptEngine(golden.clip, NAMES, context)
    engine = tpt.PromptEngine(golden.clip, NAMES, replace(context, blend=Blend(TEMPLATES, 0.7)))
    vectors = random_vectors(2, *shape, seed=1)
    hand = average(golden.clip, TEMPLATES)
    expected = F.normalize(0.7 * plain.class_features(vectors) + 0.3 * hand, dim=-1)
    torch.testing.assert_close(engine.class_features(vectors), expected, atol=5e-6, rtol=0)


def test_a_conditional_context_may_be_blended(golden: SimpleNamespace) -> None:
    context = conditional_context()
    plain = tpt.PromptEngine(golden.clip, NAMES, context)
    engine = tpt.PromptEngine(golden.clip, NAMES, replace(context, blend=Blend(TEMPLATES)))
    features = F.normalize(random_vectors(2, 32, seed=1), dim=-1)
    starts = engine.start_for(features)
    assert torch.equal(starts, plain.start_for(features))
    both = plain.class_features(starts) + average(golden.clip, TEMPLATES)
    expected = F.normalize(both, dim=-1)
    torch.testing.assert_close(engine.class_features(starts), expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("path", ["packed", "full"])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_gradient_of_a_blend_is_its_slope(
    golden: SimpleNamespace, weight: float, path: str
) -> None:
    context = tpt.Context(random_vectors(4, 64), blend=Blend(TEMPLATES, weight))
    engine = tpt.PromptEngine(golden.clip, NAMES, context, path=path)
    vectors = random_vectors(4, 64, seed=1).requires_grad_()
    against = random_vectors(3, 32, seed=2)
    (gradient,) = torch.autograd.grad((engine.class_features(vectors) * against).sum(), vectors)
    step = 2e-3 * gradient / gradient.norm()
    with torch.no_grad():
        above, below = (engine.class_features(vectors + sign * step) for sign in (1, -1))
    rise = ((above - below).double() * against).sum()
    assert rise.item() == pytest.approx(2 * (gradient.double() * step).sum().item(), rel=0.02)


def test_templates_alone_leave_nothing_to_tune(golden: SimpleNamespace) -> None:
    context = tpt.Context(random_vectors(4, 64), blend=Blend(TEMPLATES, 0))
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    vectors = engine.start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(engine.class_features(vectors)[0, 0], vectors)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(("template", "places"), [("a photo", 0), ("{} and {}", 2), ("", 0)])
def test_a_template_needs_exactly_one_place(
    golden: SimpleNamespace, template: str, places: int
) -> None:
    blended = tpt.Context(random_vectors(4, 64), blend=Blend(("a {}", template)))
    for refuse in (
        lambda: check_templates(["a {}", template]),
        lambda: encode_templates(golden.clip, NAMES, ["a {}", template]),
        lambda: tpt.PromptEngine(golden.clip, NAMES, blended),
    ):
        with pytest.raises(PromptError, match=r"expected exactly one \{\}") as caught:
            refuse()
        assert f'The template "{template}" holds {places} places' in str(caught.value)


def test_a_template_that_does_not_fit_is_an_error(tiny: tpt.Clip) -> None:
    context = tpt.Context(random_vectors(4, 128), blend=Blend(("very " * 80 + "{}",)))
    assert "reads at most 77" in message_of(tiny, NAMES, context)


# --- class names ---


def test_a_single_string_of_classes_is_refused(tiny: tpt.Clip) -> None:
    message = message_of(tiny, "cat, dog")
    assert 'the single string "cat, dog" came' in message


def test_no_class_is_refused(tiny: tpt.Clip) -> None:
    assert "at least one is needed" in message_of(tiny, [])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"cat", "dog"}, "a set came, which has no fixed order. Write sorted(names)."),
        (frozenset({"cat"}), "a frozenset came, which has no fixed order"),
        ({0: "cat"}, "Class name number 1 of 1 is 0 (int); expected text."),
        (None, 'but None came. Write ["cat", "dog"].'),
        (b"cat", "b'cat' (bytes) came."),
        (7, "7 (int) came."),
        (["cat", 7], "Class name number 2 of 2 is 7 (int); expected text."),
        ([b"cat"], "number 1 of 1 is b'cat' (bytes); expected text."),
        (["cat", float("nan")], "number 2 of 2 is nan (float); expected text."),
        (["cat", None, "dog"], "number 2 of 3 is None; expected text."),
        ([["cat"]], "number 1 of 1 is ['cat'] (list); expected text."),
    ],
)
def test_what_is_no_list_of_names_is_told_as_what_it_is(
    tiny: tpt.Clip, classes: Any, words: str
) -> None:
    assert words in message_of(tiny, classes)


def test_names_in_any_ordered_form_are_taken() -> None:
    for classes in (("a", "b"), iter(["a", "b"]), {"a": 1, "b": 2}.keys(), np.array(["a", "b"])):
        assert check_names(classes) == ("a", "b")


def test_invisible_characters_are_no_part_of_a_name() -> None:
    assert check_names(["ca\u200bt", "\ufeffdog"]) == ("cat", "dog")


@pytest.mark.parametrize("empty", ["", " ", "_", " _ ", "\t"])
def test_an_empty_name_is_refused_with_its_place(tiny: tpt.Clip, empty: object) -> None:
    assert f"number 2 of 3 is empty ({empty!r})" in message_of(tiny, ["cat", empty, "dog"])


def test_a_name_that_is_no_text_is_refused_with_its_place(tiny: tpt.Clip) -> None:
    assert "number 2 of 2 is not Unicode text ('caf\\udce9')" in message_of(
        tiny, ["cat", "caf\udce9"]
    )


def test_any_sequence_of_names_will_do(tiny: tpt.Clip) -> None:
    for classes in (["cat", "dog"], ("cat", "dog"), iter(["cat", "dog"]), {"cat": 0, "dog": 1}):
        assert tpt.PromptEngine(tiny, classes).classes == ("cat", "dog")


def test_a_name_that_does_not_fit_is_named_with_the_numbers(tiny: tpt.Clip) -> None:
    name = "very " * 80 + "long"
    message = message_of(tiny, ["cat", name], tpt.Context(random_vectors(16, 128)))
    assert f'class "{name}" has 100 tokens, of which 16 are context vectors' in message
    assert "reads at most 77" in message


# --- contexts that do not fit ---


def test_a_context_of_another_width_is_refused(tiny: tpt.Clip) -> None:
    message = message_of(tiny, NAMES, tpt.Context(random_vectors(4, 512)))
    assert "512 wide, but tiny has tokens of width 128" in message
    context = tpt.Context(random_vectors(4, 512), info=PromptInfo("ViT-B-16", "openai"))
    assert "It was made for ViT-B-16 (openai)." in message_of(tiny, NAMES, context)


@pytest.mark.parametrize(
    ("made_for", "used_with"),
    [
        (("ViT-B-16", "openai"), ("ViT-B-32", "openai")),
        (("ViT-B-16", "openai"), ("ViT-B-16", "laion2b_s34b_b88k")),
        (("ViT-B-16", "openai"), ("RN50", None)),
    ],
)
def test_a_context_of_another_model_is_refused_or_forced_with_a_warning(
    tiny: tpt.Clip, made_for: tuple, used_with: tuple
) -> None:
    clip = named(tiny, *used_with)
    context = tpt.Context(random_vectors(4, 128), info=PromptInfo(*made_for))
    message = message_of(clip, NAMES, context)
    for name, tag in (made_for, used_with):
        assert (f"{name} ({tag})" if tag else name) in message
    assert "--force" in message
    with pytest.warns(UserWarning, match="It is used because of --force") as caught:
        engine = tpt.PromptEngine(clip, NAMES, context, force=True)
    assert caught[0].filename == __file__
    assert engine.class_features().shape == (3, 128)


def test_a_meta_network_for_other_image_features_is_refused(tiny: tpt.Clip) -> None:
    context = conditional_context(feature_width=512, width=128)
    message = message_of(tiny, NAMES, context)
    assert "reads image features of width 512, but tiny gives width 128." in message
    assert "Use the model the prompt was made for." in message
    context = context.described(model="ViT-B-16", pretrained="openai")
    assert "It was made for ViT-B-16 (openai)." in message_of(tiny, NAMES, context)


def test_force_does_not_help_where_the_widths_differ(tiny: tpt.Clip) -> None:
    with pytest.raises(PromptError, match="512 wide"):
        tpt.PromptEngine(tiny, NAMES, tpt.Context(random_vectors(4, 512)), force=True)
    with pytest.raises(PromptError, match="image features of width 512"):
        tpt.PromptEngine(tiny, NAMES, conditional_context(512, 128), force=True)


@pytest.mark.parametrize("info", [PromptInfo(), PromptInfo("ViT-B-16", "openai")])
@pytest.mark.parametrize("name", [None, "ViT-B-16"])
def test_what_is_unknown_or_the_same_is_accepted_in_silence(
    tiny: tpt.Clip, info: PromptInfo, name: str | None
) -> None:
    clip = named(tiny, name, "openai" if name else None)
    context = tpt.Context(random_vectors(4, 128), info=info)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tpt.PromptEngine(clip, NAMES, context, force=True).classes == tuple(NAMES)


@pytest.mark.parametrize("count", [2, 4])
def test_a_class_specific_context_needs_its_number_of_classes(tiny: tpt.Clip, count: int) -> None:
    message = message_of(tiny, NAMES, tpt.Context(random_vectors(count, 4, 128)))
    assert f"class-specific for {count} classes, but 3 class names were given" in message


def test_a_class_specific_context_needs_its_classes_in_order(tiny: tpt.Clip) -> None:
    info = PromptInfo(classes=("cat", "golden retriever", "passenger car"))
    context = tpt.Context(random_vectors(3, 4, 128), info=info)
    assert tpt.PromptEngine(tiny, NAMES, context).class_features().shape == (3, 128)
    message = message_of(tiny, ["cat", "passenger_car", "golden retriever"], context)
    assert 'class number 2 is "golden retriever", but "passenger_car" was given there' in message


def test_a_unified_context_serves_any_classes(tiny: tpt.Clip) -> None:
    context = tpt.Context(random_vectors(4, 128), info=PromptInfo(classes=("bird", "fish")))
    assert tpt.PromptEngine(tiny, NAMES, context).class_features().shape == (3, 128)


def test_class_specific_vectors_belong_to_their_classes(tiny: tpt.Clip) -> None:
    vectors = random_vectors(3, 4, 128)
    together = tpt.PromptEngine(tiny, NAMES, tpt.Context(vectors)).class_features()
    for row, name in enumerate(NAMES):
        alone = tpt.PromptEngine(tiny, [name], tpt.Context(vectors[row])).class_features()
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


# --- text paths ---


def test_an_unknown_text_path_is_refused(tiny: tpt.Clip) -> None:
    with pytest.raises(PromptError, match="expected auto, packed or full"):
        tpt.PromptEngine(tiny, NAMES, path="fast")


def test_the_full_path_leaves_no_hook_behind_even_after_a_failure(
    golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, path="full")
    hooks = golden.clip.text.token_embedding._forward_hooks
    engine.class_features()
    assert not hooks

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(golden.clip.model, "encode_text", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.class_features()
    assert not hooks


def test_an_engine_can_be_copied_after_a_method_has_tuned_on_it(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, ["cat", "dog"])
    rng = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(8, tiny.embedding_width, generator=rng), dim=-1)
    method = tpt.TPT(engine)
    want = method.adapt_features(features).logits
    for copied in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert torch.equal(copied.adapt_features(features).logits, want)
