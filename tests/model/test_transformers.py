"""Folders that `transformers` wrote: the same features, tokens and pictures as it gives itself."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from foreign_models import (
    build,
    class_names,
    make_processor,
    save,
    save_bert_words,
    save_gemma_words,
    transformers,
)
from open_clip import hf_model
from PIL import Image
from torch import Tensor

import tpt
from tpt.errors import ModelError
from tpt.model._building import _make, make_tokenizer
from tpt.model._config import ModelConfig
from tpt.model._folders import read_folder
from tpt.prompts.sentences import encode_sentences

KINDS = ("clip", "siglip", "chinese_clip")
NAMES = ["cat", "golden retriever", "naïve café", "猫", "x-ray of a knee"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of `transformers`, its folder, and what we load of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = build(request.param)
    clip = tpt.load_clip(save(model, folder), device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return SimpleNamespace(
        **{"kind": request.param, "model": model, "folder": folder, "clip": clip},
        tokenizer=tokenizer,
    )


def pictures(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def their_tokens(pair: Any, texts: list[str]) -> Any:
    return pair.tokenizer(
        texts,
        padding="max_length",
        max_length=pair.clip.context_length,
        truncation=True,
        return_tensors="pt",
        return_attention_mask=True,
    )


@torch.no_grad()
def their_text(pair: Any, texts: list[str]) -> Tensor:
    tokens = their_tokens(pair, texts)
    mask = None if pair.kind == "siglip" else tokens["attention_mask"]
    found = pair.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask)
    return found.pooler_output


# --- the same numbers ---


def test_image_features_text_features_and_logits_are_theirs(pair: Any) -> None:
    images = pictures()
    with torch.no_grad():
        theirs = pair.model.get_image_features(images).pooler_output
        ours = pair.clip.model.encode_image(images)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(pair.clip.encode_images(images), F.normalize(theirs, dim=-1))
    texts = [f"a photo of a {name}." for name in NAMES]
    text = their_text(pair, texts)
    assert (text[0] - text[1]).abs().max() > 1e-2  # a text that makes no difference proves nothing
    with torch.no_grad():
        ours = pair.clip.model.encode_text(pair.clip.tokenizer(texts))
    torch.testing.assert_close(ours, text, atol=1e-5, rtol=0)
    tokens = their_tokens(pair, texts)
    tokens.pop("token_type_ids", None)
    if pair.kind == "siglip":
        tokens.pop("attention_mask")
    with torch.no_grad():
        want = pair.model(pixel_values=images, **tokens).logits_per_image
    bias = getattr(pair.model, "logit_bias", torch.zeros(1))
    engine = tpt.PromptEngine(pair.clip, NAMES, tpt.Context.from_words(pair.clip, "a photo of a"))
    got = engine.logits(pair.clip.encode_images(images), engine.class_features()) + bias
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_two_thousand_names_have_the_same_tokens(pair: Any) -> None:
    names = class_names()
    assert len(names) == 2000
    theirs = their_tokens(pair, names)["input_ids"]
    assert torch.equal(pair.clip.tokenizer(names), theirs)
    copied = pickle.loads(pickle.dumps(pair.clip.tokenizer))  # as for another process
    assert torch.equal(copied(names[-9:]), theirs[-9:])


@pytest.mark.parametrize("size", [(32, 32), (75, 50), (41, 97), (20, 23), (250, 33)])
@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("squash", [False, True])
def test_pictures_are_prepared_as_theirs_to_a_grey_level(
    pair: Any, tmp_path: Path, size: tuple[int, int], resample: int, squash: bool
) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = make_processor(pair.kind, 32, resample=resample)
    if squash and pair.kind != "siglip":
        processor.size, processor.do_center_crop = {"height": 32, "width": 32}, False
    for file in pair.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "preprocessor_config.json").unlink()
    processor.save_pretrained(tmp_path)
    facts = read_folder_here(tmp_path)
    assert facts.resize_mode == ("squash" if squash or pair.kind == "siglip" else "shortest")
    clip = tpt.Clip(pair.clip.model, pair.clip.tokenizer)
    clip.preprocess = facts
    ours = tpt.Views(clip, n=1).plain([Image.fromarray(pixels)])[0, 0]
    theirs = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values[0]
    levels = (ours - theirs).abs() * torch.tensor(facts.std).view(3, 1, 1) * 255
    assert levels.max() < 1.01


def read_folder_here(folder: Path) -> Any:
    """The preprocessing of a folder of links, read from copies of its small files."""
    for file in list(folder.iterdir()):
        if file.is_symlink():
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
    return tpt.load_clip(f"local-dir:{folder}", device="cpu").preprocess


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_models_of_full_size_agree(kind: str, tmp_path: Path) -> None:
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {**large, "image_size": 224, "patch_size": 32, "num_hidden_layers": 12}
    text = {**large, "num_hidden_layers": 12}
    model = build(kind, vision=vision, text=text)
    name = save(model, tmp_path, max_shard_size="100MB")
    clip = tpt.load_clip(name, device="cpu")
    pair = SimpleNamespace(kind=kind, model=model, clip=clip)
    pair.tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        theirs = F.normalize(model.get_image_features(pictures(2, 224)).pooler_output, dim=-1)
    torch.testing.assert_close(clip.encode_images(pictures(2, 224)), theirs, atol=1e-5, rtol=0)
    texts = [f"a photo of a {name}." for name in NAMES]
    want = F.normalize(their_text(pair, texts), dim=-1)
    torch.testing.assert_close(encode_sentences(clip, texts), want, atol=1e-5, rtol=0)


# --- prompts ---


def test_context_vectors_enter_with_gradients_that_finite_differences_confirm(pair: Any) -> None:
    engine = tpt.PromptEngine(pair.clip, NAMES)
    weight = torch.randn(len(NAMES), engine.start_features().shape[1])

    def value(vectors: Tensor) -> Tensor:
        return (engine.class_features(vectors) * weight).sum()

    leaf = engine.start.requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    way = F.normalize(gradient, dim=(0, 1))
    ratios = []
    for size in (1e-2, 1e-3, 1e-4):  # large ones meet the curvature, small ones the rounding
        with torch.no_grad():
            measured = (value(leaf + size * way) - value(leaf - size * way)) / 2
        ratios.append(float(measured) / float((gradient * size * way).sum()))
    assert min(abs(ratio - 1) for ratio in ratios) < 2e-2, ratios


@pytest.mark.parametrize(
    "words", ["a photo of a", "a photo of a {} in the wild", "{} of the zebra", "the {} photo"]
)
def test_words_are_what_the_whole_sentence_is(pair: Any, words: str) -> None:
    engine = tpt.PromptEngine(pair.clip, NAMES, tpt.Context.from_words(pair.clip, words))
    template = words if "{}" in words else words + " {}"
    sentences = [template.format(name) + "." for name in NAMES]
    want = F.normalize(their_text(pair, sentences), dim=-1)
    torch.testing.assert_close(engine.class_features(), want, atol=1e-5, rtol=0)


def test_all_methods_run_on_them(pair: Any) -> None:
    engine = tpt.PromptEngine(pair.clip, NAMES)
    views = pictures(8).unsqueeze(0)
    out = tpt.TPT(engine, keep=0.5).adapt(views)
    assert not torch.equal(out.vectors[0], engine.start)
    assert out.logits.isfinite().all()


def write_twin(folder: Path, config: dict[str, Any], clip: tpt.Clip) -> str:
    """The same weights as open_clip keeps them."""
    folder.mkdir()
    preprocess = {"size": 32, "mean": clip.preprocess.mean, "std": clip.preprocess.std}
    found = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(found))
    state = {name: tensor.contiguous() for name, tensor in clip.model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def test_tpt_on_it_equals_tpt_on_the_open_clip_twin(tmp_path: Path) -> None:
    clip = tpt.load_clip(save(build("clip", seed=3), tmp_path), device="cpu")
    shape = {"width": 64, "layers": 2, "patch_size": 16, "image_size": 32, "head_width": 16}
    text = {"width": 32, "layers": 2, "heads": 4, "mlp_ratio": 3.125}
    config = {"embed_dim": 24, "quick_gelu": True, "text_cfg": text}
    config["vision_cfg"] = {**shape, "mlp_ratio": 3}
    twin = tpt.load_clip(write_twin(tmp_path / "twin", config, clip), device="cpu")
    assert type(twin.tokenizer).__name__ == "SimpleTokenizer"
    assert twin.digest == clip.digest
    picture = np.random.default_rng(0).integers(0, 256, (60, 48, 3), dtype=np.uint8)
    names = ["cat", "golden retriever", "naïve café"]
    outs = []
    for each in (clip, twin):
        method = tpt.TPT(tpt.PromptEngine(each, names), keep=0.25)
        outs.append(method.adapt(tpt.Views(each, n=16)([picture])))
    for name in ("logits", "vectors", "selected", "view_entropy", "loss"):
        assert torch.equal(getattr(outs[0], name), getattr(outs[1], name)), name
    tpt.Context.from_words(clip, "a photo of a").save(tmp_path / "prompt.safetensors")
    tpt.PromptEngine(twin, names, tpt.Context.load(tmp_path / "prompt.safetensors"))


@pytest.mark.parametrize(
    ("kind", "twin", "vision", "text"),
    [
        (
            *("siglip", "ViT-B-16-SigLIP"),
            {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
        ),
        (
            *("clip", "ViT-B-16-quickgelu"),
            {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
            {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12},
        ),
    ],
)
def test_weights_have_the_names_and_shapes_of_open_clips_twin(
    kind: str, twin: str, vision: dict[str, Any], text: dict[str, Any], tmp_path: Path
) -> None:
    """So the same numbers give the same digest, which is made of names, shapes and numbers."""
    vision |= {"image_size": 224, "patch_size": 16}
    config = {"model_type": kind, "vision_config": vision, "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with torch.device("meta"):
        ours = _make(read_folder(f"local-dir:{tmp_path}"), None).state_dict()
        config = open_clip.get_model_config(twin)
        custom = config.pop("custom_text", False)
        theirs = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


# --- what people's folders look like ---


def test_an_old_config_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    """Settings under a second name, an end token of 2, buffers among the weights, a pickle."""
    model = build("clip")
    save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config_dict"] = {k: config["text_config"].pop(k) for k in ("hidden_size",)}
    config["text_config_dict"] |= {
        k: config["text_config"][k]
        for k in ("intermediate_size", "num_hidden_layers", "num_attention_heads")
    } | {"eos_token_id": 2}
    config["text_config"]["hidden_size"] = 999
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    state = dict(model.state_dict())
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, tmp_path / "pytorch_model.bin")
    clip = tpt.load_clip(f"local-dir:{tmp_path}", device="cpu")
    with torch.no_grad():
        theirs = model.get_image_features(pictures()).pooler_output
    torch.testing.assert_close(clip.encode_images(pictures()), F.normalize(theirs, dim=-1))
    assert clip.text.pool == "argmax"


def test_an_end_token_in_the_middle_of_the_vocabulary_is_where_the_feature_is_read(
    tmp_path: Path,
) -> None:
    model = build("clip", text={"eos_token_id": 7})
    folder = save(model, tmp_path)
    clip = tpt.load_clip(folder, device="cpu")
    assert (clip.text.pool, clip.text.eos_id, clip.text.packable) == ("eos", 7, True)
    ids = torch.full((1, 77), 9)
    ids[0, 5] = 7
    with torch.no_grad():
        theirs = model.get_text_features(ids).pooler_output
        torch.testing.assert_close(clip.model.encode_text(ids), theirs, atol=1e-5, rtol=0)


def test_the_processors_file_holds_the_preprocessing_too(tmp_path: Path) -> None:
    save(build("clip"), tmp_path)
    facts = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    found = {"processor_class": "CLIPProcessor", "image_processor": {**facts, "resample": 2}}
    (tmp_path / "processor_config.json").write_text(json.dumps(found))
    clip = tpt.load_clip(f"local-dir:{tmp_path}", device="cpu")
    assert clip.preprocess.interpolation == "bilinear"


@pytest.mark.parametrize("act", ["gelu", "gelu_pytorch_tanh", "gelu_new", "quick_gelu"])
def test_activations_are_theirs(act: str, tmp_path: Path) -> None:
    model = build("clip", vision={"hidden_act": act}, text={"hidden_act": act})
    clip = tpt.load_clip(save(model, tmp_path), device="cpu")
    with torch.no_grad():
        theirs = model.get_image_features(pictures()).pooler_output
    torch.testing.assert_close(clip.model.encode_image(pictures()), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_patches_need_not_divide_the_picture(kind: str, tmp_path: Path) -> None:
    """As in SigLIP's 384 pixels with patches of 14."""
    model = build(kind, vision={"image_size": 40})
    clip = tpt.load_clip(save(model, tmp_path), device="cpu")
    with torch.no_grad():
        theirs = model.get_image_features(pictures(2, 40)).pooler_output
        ours = clip.model.encode_image(pictures(2, 40))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_files_of_older_tokenizers_give_the_same_tokens(tmp_path: Path) -> None:
    names = class_names()
    for kind in ("clip", "chinese_clip"):
        folder = tmp_path / kind
        name = save(build(kind), folder)
        want = tpt.load_clip(name, device="cpu").tokenizer(names)
        (folder / "tokenizer.json").unlink()
        assert torch.equal(tpt.load_clip(name, device="cpu").tokenizer(names), want)


def test_a_clip_without_tokenizer_files_has_clips_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("clip")
    model.save_pretrained(tmp_path)
    clip = tpt.load_clip(f"local-dir:{tmp_path}", device="cpu")
    assert type(clip.tokenizer).__name__ == "SimpleTokenizer"
    assert clip.preprocess.mean == (0.48145466, 0.4578275, 0.40821073)
    assert clip.preprocess.size == (32, 32)
    assert "has no preprocessor_config.json" in caplog.text


def test_bf16_keeps_the_features_close(pair: Any) -> None:
    half = tpt.load_clip(f"local-dir:{pair.folder}", device="cpu", precision="bf16")
    assert half.dtype == torch.bfloat16
    assert half.digest == pair.clip.digest
    for ours, exact in (
        (half.encode_images(pictures()), pair.clip.encode_images(pictures())),
        (encode_sentences(half, NAMES), encode_sentences(pair.clip, NAMES)),
    ):
        assert F.cosine_similarity(ours, exact).min() > 0.99


@pytest.mark.slow
def test_they_load_where_transformers_is_not_installed(tmp_path: Path) -> None:
    names = [save(build(kind), tmp_path / kind) for kind in KINDS]
    program = (
        "import sys; sys.modules['transformers'] = None; import tpt\n"
        f"for name in {names}: print(tpt.load_clip(name, device='cpu').digest)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    digests = [tpt.load_clip(name, device="cpu").digest for name in names]
    assert done.stdout.split() == digests, done.stderr


# --- the hub ---


def test_a_hub_repository_is_recognised_and_its_shards_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("clip")
    save(model, tmp_path, max_shard_size="1MB")
    assert not (tmp_path / "model.safetensors").exists()
    asked = []

    def fetch(repository: str, filename: str | None = None) -> str:
        assert repository == "org/repo"
        asked.append(filename)
        if not (tmp_path / str(filename)).exists():
            raise FileNotFoundError(f"Failed to download file ({filename})")
        return str(tmp_path / str(filename))

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", fetch)
    clip = tpt.load_clip("hf-hub:org/repo", device="cpu")
    assert clip.name == "hf-hub:org/repo"
    assert clip.digest == tpt.load_clip(f"local-dir:{tmp_path}", device="cpu").digest
    shards = {file.name for file in tmp_path.glob("*.safetensors")}
    assert len(shards) > 1
    assert shards < set(asked)


# --- hostile and broken folders ---


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        tpt.load_clip(f"local-dir:{folder}", device="cpu")
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    return message


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(build("clip"), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in saved.iterdir():
        os.link(file, copy / file.name)
    return copy


def change(path: Path, **changes: Any) -> None:
    """Write settings into a JSON file; a name with a dot is of a table in it."""
    found = json.loads(path.read_text())
    for key, value in changes.items():
        table = found
        *parents, last = key.split("__")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    path.unlink()  # it is shared with the other tests' folders
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_type": "siglip2"}, "is of the kind 'siglip2'; expected a CLIPModel"),
        ({"model_type": "llama"}, "is of the kind 'llama'"),
        ({"model_type": None}, "No open_clip_config.json"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "names Python code of its own (auto_map)"),
        ({"text_config__auto_map": {"A": "evil.B"}}, "of its own (text_config.auto_map)"),
        ({"text_config": "evil"}, "sets \"text_config\" to 'evil'"),
        ({"text_config__hidden_act": "os.system"}, 'sets "text_config.hidden_act"'),
        ({"text_config__hidden_size": 10**9}, 'sets "text_config.hidden_size" to 1000000000'),
        ({"text_config__hidden_size": "32"}, 'sets "text_config.hidden_size"'),
        ({"text_config__num_attention_heads": 0}, "with 0 heads"),
        ({"text_config__num_attention_heads": 5}, "with 5 heads"),
        ({"text_config__hidden_act": "gelu"}, "have different activations (gelu and quick_gelu)"),
        ({"vision_config__patch_size": 0}, "32 pixels wide with patches of 0"),
        ({"vision_config__patch_size": 33}, "32 pixels wide with patches of 33"),
        ({"vision_config__num_channels": 4}, 'sets "vision_config.num_channels" to 4'),
        ({"projection_dim": [1]}, 'sets "projection_dim"'),
        ({"projection_dim": 25}, "text_projection has the shape (32, 24) where the config"),
        ({"text_config__vocab_size": 4_000_000}, "the config describes a model of 128,"),
        ({"text_config__vocab_size": 49_000}, "token_embedding.weight has the shape (49408, 32)"),
        ({"text_config__num_hidden_layers": 3}, "it lacks: transformer.resblocks.2.attn"),
        ({"text_config__num_hidden_layers": 1}, "it holds unknown tensors: transformer"),
    ],
)
def test_a_config_that_is_not_read_is_refused(
    folder: Path, changes: dict[str, Any], text: str
) -> None:
    change(folder / "config.json", **changes)
    assert text in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"auto_map": {"AutoImageProcessor": "evil.E"}}, "names Python code"),
        ({"size": {"shortest_edge": 40}}, "resizes to {'shortest_edge': 40}"),
        ({"crop_size": {"height": 30, "width": 30}}, "crops to {'height': 30, 'width': 30}"),
        ({"do_resize": False}, 'sets "do_resize or do_rescale"'),
        ({"rescale_factor": 1}, 'sets "rescale_factor" to 1'),
        ({"do_pad": True}, 'sets "do_pad" to True'),
        ({"size": {"longest_edge": 32}}, "resizes to {'longest_edge': 32}"),
        (
            {"size": {"shortest_edge": 32}, "do_center_crop": False},
            "expected a resize of the short",
        ),
        ({"resample": 0}, 'sets "resample" to 0'),
        ({"resample": [3]}, 'sets "resample"'),
        ({"image_mean": [0.5]}, 'sets "image_mean"'),
        ({"image_std": [0.0, 1, 1]}, 'sets "image_std"'),
    ],
)
def test_preprocessing_that_is_not_read_is_refused(
    folder: Path, changes: dict[str, Any], text: str
) -> None:
    change(folder / "preprocessor_config.json", **changes)
    assert text in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("config.json", "{", '"config.json" of "local-dir:'),
        ("config.json", "[1]", "it is not a table of settings"),
        ("config.json", " " * 2**20 + "{}", "it is larger than 1,048,576 bytes"),
        ("config.json", "[" * 100_000, "it is nested too deeply"),
        ("preprocessor_config.json", "{", '"preprocessor_config.json" of'),
        ("tokenizer_config.json", "{", '"tokenizer_config.json" of'),
        ("tokenizer_config.json", '{"auto_map": {"A": "b.C"}}', "(auto_map), which is never run"),
        ("tokenizer.json", "{", "The tokenizer of"),
        ("tokenizer.json", '{"model": {"type": "Evil"}}', "The tokenizer of"),
        ("model.safetensors", "none", "could not be loaded"),
        ("model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{" + " " * 200_000, "could not be"),
    ],
)
def test_a_damaged_file_is_an_error(folder: Path, file: str, content: str, text: str) -> None:
    (folder / file).unlink()
    if file == "model.safetensors":
        # As large as the config says, so that the reader looks into it.
        data = content.encode("latin-1")
        (folder / file).write_bytes(data.ljust(8_000_000))
    else:
        (folder / file).write_text(content)
    assert text in refusal(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "vocab.json").unlink()
    change_vocabulary = json.loads((folder / "config.json").read_text())
    assert change_vocabulary["text_config"]["vocab_size"] == 49408
    vocabulary = {"<|startoftext|>": 60_000, "<|endoftext|>": 60_001, "a": 0, "a</w>": 1}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").unlink()
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert "knows words up to number 60,001, but its model has 49,408" in refusal(folder)


def test_without_weights_or_tokenizer_it_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds a config but no weight file (model.safetensors," in refusal(folder)
    build("chinese_clip").save_pretrained(tmp_path / "chinese")
    assert "has no tokenizer file that can be read (tokenizer" in refusal(tmp_path / "chinese")
    save_bert_words(tmp_path / "chinese", as_json=False)
    tpt.load_clip(f"local-dir:{tmp_path / 'chinese'}", device="cpu")


def test_shards_that_are_missing_or_elsewhere_are_refused(tmp_path: Path) -> None:
    save(build("clip"), tmp_path, max_shard_size="1MB")
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    shard = next(iter(table["weight_map"].values()))
    (tmp_path / shard).rename(tmp_path.parent / "outside.safetensors")
    assert f"{shard} are missing" in refusal(tmp_path)
    (tmp_path / shard).symlink_to(tmp_path.parent / "outside.safetensors")
    assert "is a link to a file outside its model folder" in refusal(tmp_path)
    for evil in ("../outside.safetensors", "/etc/passwd", "sub/x.safetensors", 7):
        index.write_text(json.dumps({"weight_map": {"a": evil}}))
        assert "does not list the weight files beside it" in refusal(tmp_path)
    index.write_text("[]")
    assert "does not list the weight files beside it" in refusal(tmp_path)


def test_a_pickle_in_place_of_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    evil = {"logit_scale": Evil(tmp_path / "executed"), "a": torch.zeros(8_000_000)}
    torch.save(evil, folder / "pytorch_model.bin")
    assert "objects that would run code" in refusal(folder)
    assert not (tmp_path / "executed").exists()
    torch.save({"a": [torch.zeros(8_000_000)]}, folder / "pytorch_model.bin")
    assert "holds no table of tensors" in refusal(folder)


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "model.safetensors", "preprocessor_config.json"):
        (folder / file).rename(tmp_path / file)
        (folder / file).symlink_to(tmp_path / file)
        assert "is a link to a file outside its model folder" in refusal(folder)
        (folder / file).unlink()
        (tmp_path / file).rename(folder / file)


@pytest.mark.parametrize("kind", ["siglip", "chinese_clip"])
@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_without_transformers_open_clips_folders_have_the_same_tokens(
    kind: str, clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where their tokenizer is data; else the extra is named before anything is fetched."""
    {"siglip": save_gemma_words, "chinese_clip": save_bert_words}[kind](tmp_path)
    text = {"hf_tokenizer_name": "org/words", "context_length": 12, "vocab_size": 30_000}
    text["tokenizer_kwargs"] = {"clean": clean}
    config = ModelConfig({"text_cfg": text, "vision_cfg": {}}, {})
    theirs = make_tokenizer(config, tmp_path, "x")
    monkeypatch.setattr(hf_model, "transformers", None)
    ours = make_tokenizer(config, tmp_path, "x")
    assert (type(theirs).__name__, type(ours).__name__) == ("HFTokenizer", "FileTokenizer")
    names = class_names()[::7]
    assert torch.equal(ours(names), theirs(names))
    with pytest.raises(
        ModelError, match=r'The tokenizer of "ViT-B-16-SigLIP" needs transformers, .*\[hf\]'
    ):
        tpt.load_clip("ViT-B-16-SigLIP", "webli", device="cpu")
