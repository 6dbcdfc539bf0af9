"""The two text paths against each other and against open_clip's own `encode_text`."""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conftest import build_seeded_model, fill_from_seed

import tpt
from tpt.prompts.sentences import encode_sentences

NAMES = [
    "cat",
    "German short-haired pointer",
    "passenger_car",
    "ice cream",
    "X",
    "photo",
    "x-ray of the left knee, seen from the front",
    "cat's cradle",
    "naïve café",
    "dog",
]
SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SMALL_VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}


def random_vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both_engines(clip: tpt.Clip, names: list[str], context: tpt.Context) -> list[tpt.PromptEngine]:
    return [tpt.PromptEngine(clip, names, context, path=path) for path in ("packed", "full")]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("batch", [None, 3])
def test_packed_and_full_paths_agree_in_value_and_gradient(
    golden: SimpleNamespace, position: str, count: int, class_specific: bool, batch: int | None
) -> None:
    shape = (len(NAMES), count, 64) if class_specific else (count, 64)
    context = tpt.Context(random_vectors(*shape), position=position)
    packed, full = both_engines(golden.clip, NAMES, context)
    assert (packed.path, full.path) == ("packed", "full")
    vectors = random_vectors(*([batch] if batch else []), *shape, seed=1)
    weight = random_vectors(*([batch] if batch else []), len(NAMES), 32, seed=2)
    values, gradients = [], []
    for engine in (packed, full):
        leaf = vectors.clone().requires_grad_()
        features = engine.class_features(leaf)
        (gradient,) = torch.autograd.grad((features * weight).sum(), leaf)
        values.append(features.detach())
        gradients.append(gradient)
    assert values[0].shape == weight.shape
    torch.testing.assert_close(values[0], values[1], atol=2e-6, rtol=0)
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@pytest.mark.parametrize(
    "words", ["a photo of a", "a photo of a {} in the wild", "{}, a type of pet", "{} texture"]
)
@pytest.mark.parametrize("path", ["packed", "full"])
def test_words_give_what_encode_text_gives_for_the_sentence(
    golden: SimpleNamespace, words: str, path: str
) -> None:
    names = [name for name in NAMES if "," not in name]
    engine = tpt.PromptEngine(
        golden.clip, names, tpt.Context.from_words(golden.clip, words), path=path
    )
    template = words if "{}" in words else words + " {}"
    sentences = [template.format(name.replace("_", " ")) + "." for name in names]
    want = golden.clip.model.encode_text(golden.clip.tokenizer(sentences), normalize=True)
    torch.testing.assert_close(engine.class_features(), want, atol=2e-6, rtol=0)
    torch.testing.assert_close(encode_sentences(golden.clip, sentences), want, atol=2e-6, rtol=0)


@pytest.mark.parametrize("class_specific", [False, True])
def test_a_thousand_names_of_mixed_length_agree(
    golden: SimpleNamespace, class_specific: bool
) -> None:
    names = list(open_clip.IMAGENET_CLASSNAMES)
    names[::97] = [f"{name} {'very ' * (i % 17)}old {i}" for i, name in enumerate(names[::97])]
    shape = (1000, 4, 64) if class_specific else (4, 64)
    context = tpt.Context(random_vectors(*shape))
    packed, full = both_engines(golden.clip, names, context)
    with torch.no_grad():
        torch.testing.assert_close(
            packed.class_features(), full.class_features(), atol=3e-6, rtol=0
        )


def test_a_single_class_and_a_single_vector_work(golden: SimpleNamespace) -> None:
    for engine in both_engines(golden.clip, ["cat"], tpt.Context(random_vectors(1, 64))):
        assert engine.class_features().shape == (1, 32)


def test_prompts_may_fill_the_context_length_to_the_last_token(golden: SimpleNamespace) -> None:
    # 77 = start, end, ".", 4 vectors, 70 words
    fits = [" ".join(["dog"] * 70), "cat"]
    packed, full = both_engines(golden.clip, fits, tpt.Context(random_vectors(4, 64)))
    torch.testing.assert_close(packed.class_features(), full.class_features(), atol=2e-6, rtol=0)
    with pytest.raises(tpt.PromptError, match=r'"dog dog.*78 tokens.*at most 77'):
        tpt.PromptEngine(
            golden.clip, ["cat", " ".join(["dog"] * 71)], tpt.Context(random_vectors(4, 64))
        )


def build_custom(**text: object) -> open_clip.CustomTextCLIP:
    model = open_clip.CustomTextCLIP(32, SMALL_VISION, SMALL_TEXT | text)
    fill_from_seed(model)
    return model.eval()


def build_coca() -> open_clip.CoCa:
    model = open_clip.CoCa(
        32,
        multimodal_cfg={**SMALL_TEXT, "context_length": 76},
        text_cfg={**SMALL_TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        vision_cfg={**SMALL_VISION, "attentional_pool": True, "output_tokens": True},
    )
    fill_from_seed(model)
    return model.eval()


TOWERS = {
    "plain": (lambda: build_seeded_model(), "packed"),
    "custom text class": (lambda: build_custom(), "packed"),
    "layer scale": (lambda: build_custom(ls_init_value=0.1), "packed"),
    "projection with bias": (lambda: build_custom(proj_bias=True), "packed"),
    "no projection": (lambda: build_custom(proj_type="none", width=32), "packed"),
    "read at eos id": (lambda: build_custom(pool_type="eos", eos_id=49407), "packed"),
    "bidirectional": (lambda: build_custom(no_causal_mask=True), "full"),
    "bidirectional, last token": (
        lambda: build_custom(no_causal_mask=True, pool_type="last", proj_bias=True),
        "full",
    ),
    "normalised queries": (lambda: build_custom(qk_norm=True), "full"),
    "class token (CoCa)": (build_coca, "full"),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_every_kind_of_tower_takes_the_right_path_and_agrees_with_open_clip(kind: str) -> None:
    build, path = TOWERS[kind]
    model = build()
    length = 76 if "CoCa" in kind else 77
    tokenizer = open_clip.SimpleTokenizer(context_length=length)
    clip = tpt.Clip(model, tokenizer)
    engine = tpt.PromptEngine(clip, ["cat", "golden retriever"])
    assert engine.path == path
    ids = tokenizer(["a photo of a cat.", "a photo of a golden retriever."])
    want = F.normalize(model.encode_text(ids), dim=-1)
    torch.testing.assert_close(engine.class_features(), want, atol=2e-6, rtol=0)
    vectors = engine.start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(engine.class_features(vectors)[0, 0], vectors)
    assert gradient.norm() > 0
    if path == "full":
        with pytest.raises(tpt.PromptError, match="cannot share work"):
            tpt.PromptEngine(clip, ["cat"], path="packed")


def test_low_precision_weights_keep_the_features_close(golden: SimpleNamespace) -> None:
    model = build_seeded_model()
    open_clip.model.convert_weights_to_lp(model, torch.bfloat16)
    clip = tpt.Clip(model, golden.clip.tokenizer)
    assert clip.dtype == torch.bfloat16
    low = tpt.PromptEngine(clip, NAMES).class_features()
    high = tpt.PromptEngine(golden.clip, NAMES).class_features()
    assert low.dtype == torch.float32
    assert F.cosine_similarity(low, high).min() > 0.999
