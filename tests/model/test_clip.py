"""`Clip`: the facts it reads from a model, and the features it gives."""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch import nn

import tpt
from tpt.errors import ModelError
from tpt.model._text_tower import find_text_tower
from tpt.model.clip import read_preprocess

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def small_model(**preprocess: object) -> nn.Module:
    model = open_clip.model.CLIP(**SMALL)
    if preprocess:
        default = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
        open_clip.model.set_model_preprocess_cfg(model, default | preprocess)
    return model


def wrap(model: nn.Module, **options: object) -> tpt.Clip:
    return tpt.Clip(model, open_clip.get_tokenizer("ViT-B-16"), **options)


# --- facts ---


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"size": 48}, {"size": (48, 48)}),
        ({"size": (48, 48)}, {"size": (48, 48)}),
        ({"size": [24, 48]}, {"size": (24, 48)}),
        ({"mean": [0.5] * 3, "std": [0.25] * 3}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"interpolation": "bicubic"}, {"interpolation": "bicubic"}),
        ({"interpolation": "random"}, {"interpolation": "bicubic"}),
        ({"resize_mode": "squash"}, {"resize_mode": "squash"}),
        ({"resize_mode": "longest", "fill_color": 7}, {"resize_mode": "longest", "fill": 7}),
    ],
)
def test_preprocessing_facts_are_those_stored_with_the_model(stored: dict, expected: dict) -> None:
    facts = wrap(small_model(**stored)).preprocess
    assert {key: getattr(facts, key) for key in expected} == expected


def test_a_model_without_stored_facts_is_preprocessed_as_the_published_clips() -> None:
    facts = read_preprocess(small_model())
    assert facts.size == (32, 32)
    assert facts.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert facts.std == pytest.approx(open_clip.OPENAI_DATASET_STD)
    assert (facts.interpolation, facts.resize_mode, facts.fill) == ("bicubic", "shortest", 0)


def test_the_embedded_models_facts(tiny: tpt.Clip) -> None:
    assert tiny.preprocess.size == (64, 64)
    assert (tiny.width, tiny.context_length) == (128, 77)
    assert tiny.device == torch.device("cpu")
    assert tiny.dtype == torch.float32
    assert tiny.text.packable
    assert tiny.logit_scale == pytest.approx(float(tiny.model.logit_scale.exp()))
    assert repr(tiny).startswith("Clip(tiny, no tag, 64x64, width 128, shared-prefix text, cpu")


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize(
    ("text", "packable"),
    [({}, True), ({"no_causal_mask": True}, False), ({"pool_type": "last"}, False)],
)
def test_the_text_path_follows_from_the_tower(text: dict, packable: bool, custom: bool) -> None:
    build = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    clip = wrap(build(**{**SMALL, "text_cfg": SMALL["text_cfg"] | text}))
    assert clip.text.packable is packable
    assert ("shared-prefix" if packable else "full-length") in repr(clip)


def test_a_cpu_has_no_cuda_graphs() -> None:
    with pytest.raises(tpt.ModelError, match=r"this model is on cpu.*\(no --cuda-graphs\)"):
        tpt.Clip(small_model(), open_clip.get_tokenizer("ViT-B-16"), cuda_graphs=True)


@pytest.mark.parametrize(
    ("embed_dim", "text"), [(24, {}), (24, {"proj_bias": True}), (16, {"proj_type": "none"})]
)
def test_the_embedding_width_is_that_of_the_features(embed_dim: int, text: dict) -> None:
    config = {**SMALL, "embed_dim": embed_dim, "text_cfg": SMALL["text_cfg"] | text}
    clip = wrap(open_clip.model.CustomTextCLIP(**config))
    assert clip.embedding_width == embed_dim
    assert clip.encode_images(torch.zeros(1, 3, 32, 32)).shape == (1, embed_dim)
    assert tpt.PromptEngine(clip, ["cat"]).class_features().shape == (1, embed_dim)


def test_the_model_is_frozen_and_evaluates() -> None:
    model = small_model().train()
    wrap(model)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("size", "expected"), [(8, 256), (32, 196), (224, 4), (448, 1)])
def test_the_default_micro_batch_shrinks_with_the_pictures(size: int, expected: int) -> None:
    assert wrap(small_model(size=size)).micro_batch == expected


# --- features ---


def test_image_features_are_unit_float32_without_a_graph(golden: SimpleNamespace) -> None:
    features = golden.clip.encode_images(golden.views(1, 5))
    assert features.shape == (5, 32)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(5))


def test_image_features_are_open_clips_own(golden: SimpleNamespace) -> None:
    views = golden.views(1, 5)
    with torch.no_grad():
        expected = golden.clip.model.encode_image(views, normalize=True)
    torch.testing.assert_close(golden.clip.encode_images(views), expected)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 7, 100])
def test_the_micro_batch_leaves_the_features_as_they_are(
    golden: SimpleNamespace, micro_batch: int
) -> None:
    clip = tpt.Clip(golden.clip.model, golden.clip.tokenizer, micro_batch=micro_batch)
    views = golden.views(2, 7)
    torch.testing.assert_close(
        clip.encode_images(views), golden.clip.encode_images(views), atol=1e-6, rtol=0
    )


def test_a_batch_of_views_gives_the_bits_of_each_image_alone(golden: SimpleNamespace) -> None:
    views = torch.stack([golden.views(seed, 6) for seed in (1, 2, 3)])
    features = golden.clip.encode_views(views)
    assert features.shape == (3, 6, 32)
    for image, alone in zip(features, views, strict=True):
        assert torch.equal(image, golden.clip.encode_images(alone))


@pytest.mark.parametrize(("micro_batch", "passes"), [(100, [6] * 3), (4, [3] * 6), (1, [1] * 18)])
def test_a_pass_never_mixes_images_on_a_cpu(
    golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, micro_batch: int, passes: list[int]
) -> None:
    clip = tpt.Clip(golden.clip.model, golden.clip.tokenizer, micro_batch=micro_batch)
    seen = []
    encode = clip._encode

    def count(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return encode(images)

    monkeypatch.setattr(clip, "_encode", count)
    clip.encode_views(torch.zeros(3, 6, 3, 32, 32))
    assert seen == passes


# --- models that cannot be used ---


class OtherLibrary(nn.Module):
    """OpenAI's own class keeps its parts under the same names, but is not open_clip's."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Identity()
        self.transformer = nn.Identity()
        self.token_embedding = nn.Embedding(4, 4)


class Wrapped(nn.Module):
    """open_clip's `CustomTextCLIP` around a Hugging Face tower."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Identity()
        self.text = OtherTower()


class OtherTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Identity()


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Linear(2, 2), "Linear is a Linear"),
        (OtherLibrary(), "OtherLibrary is a OtherLibrary"),
        (Wrapped(), "Wrapped is a OtherTower"),
        (open_clip.transformer.TextTransformer(vocab_size=9, width=8, heads=1), "TextTransformer"),
    ],
)
def test_an_unsupported_model_object_is_refused_by_name(model: nn.Module, named: str) -> None:
    with pytest.raises(ModelError, match=named) as caught:
        wrap(model)
    assert "`tpt models`" in str(caught.value)


def test_a_refused_model_is_left_as_it_was() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ModelError):
        wrap(model)
    assert model.training
    assert model.weight.requires_grad


def test_the_text_towers_parts_are_the_models_own(golden: SimpleNamespace) -> None:
    tower = find_text_tower(golden.clip.model)
    assert tower.token_embedding is golden.clip.model.token_embedding
    assert tower.transformer is golden.clip.model.transformer
    assert tower.context_length == 77
