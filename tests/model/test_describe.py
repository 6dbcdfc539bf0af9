"""What a model is said to be, and the folder of open_clip's format that is written of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from foreign_models import build, save
from safetensors.torch import load_file

import tpt
from tpt.errors import ModelError, OutputError
from tpt.model.convert import convert_model
from tpt.model.describe import describe_model
from tpt.prompts.sentences import encode_sentences

NAMES = ["cat", "golden retriever"]


def load(kind: str, folder: Path, **changes: Any) -> tpt.Clip:
    return tpt.load_clip(save(build(kind, **changes), folder), device="cpu")


def test_a_card_holds_the_facts_of_the_model(tmp_path: Path) -> None:
    card = describe_model(load("clip", tmp_path))
    assert card.kind == "transformers CLIPModel"
    assert card.image_tower == "VisionTransformer, 2 layers, width 64, patches of 16"
    assert card.text_tower == "Transformer, 2 layers, 4 heads, width 32, causal"
    assert (card.width, card.embedding_width, card.context_length) == (32, 24, 77)
    assert (card.image_size, card.resize, card.interpolation) == ((32, 32), "shortest", "bicubic")
    assert (card.text_path, card.precision) == ("shared-prefix", "float32")
    total = sum(p.numel() for p in build("clip").parameters())
    assert card.image_parameters + card.text_parameters == total


def test_operations_are_those_of_the_matrix_products(tmp_path: Path) -> None:
    """Two blocks of width 64 on five tokens, the second for the class token alone."""
    patches = 2 * 4 * (3 * 16 * 16) * 64
    first = 2 * 5 * 64 * (4 * 64 + 2 * 192) + 4 * 5 * 5 * 64
    last = 2 * 5 * 64 * (2 * 64) + 2 * 64 * (2 * 64 + 2 * 192) + 4 * 5 * 64
    card = describe_model(load("clip", tmp_path))
    assert card.operations == 64 * (patches + first + last + 2 * 64 * 24)


@pytest.mark.parametrize(
    ("kind", "image", "text", "path"),
    [
        ("siglip", "VisionTransformer with attention pooling, 2", "Transformer, 2", "full-length"),
        ("chinese_clip", "VisionTransformer, 2", "BERT, 2", "full-length"),
    ],
)
def test_other_kinds_are_named(kind: str, image: str, text: str, path: str, tmp_path: Path) -> None:
    card = describe_model(load(kind, tmp_path))
    assert card.image_tower.startswith(image)
    assert card.text_tower.startswith(text)
    assert card.text_path == path
    assert card.operations > 0


def test_the_embedded_model_and_an_object_have_cards(lite: tpt.Clip) -> None:
    assert describe_model(lite).image_tower == "timm tf_efficientnet_lite0"
    card = describe_model(tpt.Clip(lite.model, lite.tokenizer))
    assert (card.name, card.kind) == (type(lite.model).__name__, "open_clip")


# --- conversion ---


def same_answers(first: tpt.Clip, second: tpt.Clip) -> None:
    images = torch.randn(2, 3, *first.preprocess.size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encode_images(images), second.encode_images(images))
    assert torch.equal(encode_sentences(first, NAMES), encode_sentences(second, NAMES))
    assert first.preprocess == second.preprocess
    assert first.digest == second.digest


def test_a_converted_clip_is_the_same_model_here_and_in_open_clip(tmp_path: Path) -> None:
    clip = load("clip", tmp_path / "source")
    notes = convert_model(clip, tmp_path / "target")
    assert [file.name for file in sorted((tmp_path / "target").iterdir())] == [
        *("open_clip_config.json", "open_clip_model.safetensors")
    ]
    assert "cuts the centre of some pictures one pixel further" in notes[0]
    name = f"local-dir:{tmp_path / 'target'}"
    converted = tpt.load_clip(name, device="cpu")
    same_answers(clip, converted)
    tpt.Context.from_words(clip, "a photo of a").save(tmp_path / "prompt.safetensors")
    tpt.PromptEngine(converted, NAMES, tpt.Context.load(tmp_path / "prompt.safetensors"))
    theirs, _, _ = open_clip.create_model_and_transforms(name)
    with torch.no_grad():
        want = theirs.eval().encode_image(torch.ones(1, 3, 32, 32), normalize=True)
        text = theirs.encode_text(open_clip.get_tokenizer(name)(NAMES), normalize=True)
    torch.testing.assert_close(clip.encode_images(torch.ones(1, 3, 32, 32)), want)
    torch.testing.assert_close(encode_sentences(clip, NAMES), text, atol=1e-6, rtol=0)


def test_numbers_of_few_bits_are_written_as_fp16(tiny: tpt.Clip, tmp_path: Path) -> None:
    convert_model(tiny, tmp_path / "target")
    state = load_file(tmp_path / "target/open_clip_model.safetensors")
    assert {t.dtype for t in state.values()} == {torch.float16}
    same_answers(tiny, tpt.load_clip(f"local-dir:{tmp_path / 'target'}", device="cpu"))


def test_chinese_clip_becomes_a_wrapped_bert(tmp_path: Path) -> None:
    clip = load("chinese_clip", tmp_path / "source")
    notes = convert_model(clip, tmp_path / "target")
    assert any("config.json beside" in note for note in notes)
    converted = tpt.load_clip(f"local-dir:{tmp_path / 'target'}", device="cpu")
    assert converted.digest == clip.digest
    torch.testing.assert_close(
        encode_sentences(converted, NAMES), encode_sentences(clip, NAMES), atol=1e-6, rtol=0
    )


def test_siglip_of_a_size_that_open_clip_cannot_name_is_refused(tmp_path: Path) -> None:
    clip = load("siglip", tmp_path / "source")
    with pytest.raises(ModelError, match="2 layers of width 64, patches of 16 and 32 pixels has"):
        convert_model(clip, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_siglip_keeps_its_activation_in_a_converted_folder(tmp_path: Path) -> None:
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {**large, "image_size": 224, "num_hidden_layers": 12}
    clip = load("siglip", tmp_path / "source", vision=vision)
    notes = convert_model(clip, tmp_path / "target")
    assert any("exact GELU" in note for note in notes)
    config = json.loads((tmp_path / "target/open_clip_config.json").read_text())
    name = config["model_cfg"]["vision_cfg"]["timm_model_name"]
    assert name == "vit_base_patch16_siglip_224"
    same_answers(clip, tpt.load_clip(f"local-dir:{tmp_path / 'target'}", device="cpu"))
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'target'}").eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = theirs.encode_image(images, normalize=True)
    assert F.cosine_similarity(clip.encode_images(images), want).min() > 0.999


def test_what_cannot_be_converted_is_refused(tiny: tpt.Clip, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(OutputError, match="is not empty"):
        convert_model(tiny, tmp_path)
    with pytest.raises(OutputError, match="could not be written"):
        convert_model(tiny, tmp_path / "a file")
    with pytest.raises(ModelError, match="not a model object"):
        convert_model(tpt.Clip(tiny.model, tiny.tokenizer), tmp_path / "new")
    half = tpt.load_clip("tiny", device="cpu", precision="bf16")
    with pytest.raises(ModelError, match='precision="fp32"'):
        convert_model(half, tmp_path / "new")
    assert not (tmp_path / "new").exists()
