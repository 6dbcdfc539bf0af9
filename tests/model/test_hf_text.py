"""Text towers of `transformers` in open_clip's models: open_clip's own features, and gradients."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from open_clip import hf_model
from torch import Tensor

import tpt
from tpt.errors import ModelError
from tpt.model import _hf_text
from tpt.model.convert import convert_model
from tpt.model.load import list_models

SMALL = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "vocab_size": 500, "d_model": 32, "d_ff": 64, "d_kv": 8},
    **{"num_layers": 2, "num_heads": 4, "encoder_layers": 2, "encoder_ffn_dim": 64},
    "encoder_attention_heads": 4,
}
VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
LISTED = [
    name
    for name in open_clip.list_models()
    if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]
]
NAMES = ["cat", "golden retriever", "naïve café on the corner"]


class Words:
    """A tokenizer without files: a word is a number; start, end and padding as the tower's."""

    def __init__(self, name: str, context_length: int = 77, **options: Any) -> None:
        tower = {"microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract": "bert"}.get(name, name)
        self.pad = 0 if tower in ("bert", "model") or "mt5" in name else 1
        self.context_length = context_length

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        length = context_length or self.context_length
        ids = torch.full((len(texts), length), self.pad)
        for row, text in enumerate(texts):
            words = [3, *(10 + sum(map(ord, w)) % 480 for w in text.split()), 2][:length]
            ids[row, : len(words)] = torch.tensor(words)
        return ids


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The towers that open_clip lists, of small sizes, beside a small image tower."""
    for name, (kind, changes) in _hf_text.KNOWN.items():
        sizes = {key: SMALL.get(key, value) for key, value in changes.items()}
        sizes |= {k: v for k, v in SMALL.items() if k in _hf_text.DEFAULTS[kind]}
        monkeypatch.setitem(_hf_text.KNOWN, name, (kind, sizes))
    for name in LISTED:
        config = copy.deepcopy(open_clip.get_model_config(name))
        output = config["vision_cfg"].get("output_tokens")
        config["vision_cfg"] = {**VISION, **({"output_tokens": output} if output else {})}
        config["embed_dim"] = 24
        if "multimodal_cfg" in config:
            config["multimodal_cfg"] |= {"width": 32, "heads": 4, "layers": 1}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    monkeypatch.setattr(open_clip.factory, "HFTokenizer", Words)


def build(name: str) -> tpt.Clip:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = tpt.load_clip(name, "random", device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for key, weight in clip.model.text.named_parameters():  # type: ignore[union-attr]
            weight.data += (0.3 if weight.ndim > 1 else 0.1) * torch.randn_like(weight)
            if "embed" in key and weight.ndim > 1:
                weight.data = 0.5 * torch.randn_like(weight)
    return clip


def their_tower(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """open_clip's tower, built by open_clip of the config that it would download."""
    from transformers import AutoConfig

    text = open_clip.get_model_config(name)["text_cfg"]
    facts = _hf_text.find_facts(text["hf_model_name"], None, name)
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    monkeypatch.setattr(hf_model.AutoConfig, "from_pretrained", lambda _: config)
    return hf_model.HFTextEncoder(
        text["hf_model_name"],
        output_dim=24,
        proj_type=text.get("hf_proj_type", "mlp"),
        pooler_type=text.get("hf_pooler_type", "mean_pooler"),
        pretrained=False,
    ).eval()


@pytest.mark.parametrize("name", LISTED)
def test_text_features_are_open_clips_and_gradients_those_of_finite_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = build(name)
    tower = their_tower(name, monkeypatch)
    tower.load_state_dict(clip.model.text.state_dict())  # type: ignore[union-attr]
    ids = clip.tokenizer([f"a photo of a {name} ." for name in NAMES])
    with torch.no_grad():
        theirs = F.normalize(tower(ids), dim=-1)
        ours = F.normalize(clip.model.encode_text(ids), dim=-1)  # type: ignore[operator]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2
    words = [f"{name} ." for name in NAMES]  # the tokenizer above knows no punctuation
    engine = tpt.PromptEngine(clip, words, tpt.Context.from_words(clip, "a photo of a"))
    assert engine.path == "full"
    sentences = [f"a photo of a {word}." for word in words]
    with torch.no_grad():
        theirs = F.normalize(tower(clip.tokenizer(sentences)), dim=-1)
    torch.testing.assert_close(engine.class_features(), theirs, atol=1e-5, rtol=0)
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))

    def value(vectors: Tensor) -> Tensor:
        return (engine.class_features(vectors) * weight).sum()

    leaf = engine.start.requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = F.normalize(gradient, dim=(0, 1)) * 1e-2
    with torch.no_grad():
        measured = (value(leaf + step) - value(leaf - step)) / 2
    assert measured == pytest.approx(float((gradient * step).sum()), rel=2e-2)


def test_the_list_says_their_width_and_path() -> None:
    rows = {row.name: row for row in list_models()}
    for name in LISTED:
        assert (rows[name].width, rows[name].text_path) == (32, "full-length")


def test_padding_is_cut_and_changes_nothing() -> None:
    clip = build("roberta-ViT-B-32")
    engine = tpt.PromptEngine(clip, NAMES)
    assert engine._encode.ids.shape[1] < 14
    uncut = copy.copy(engine._encode)
    uncut.ids = F.pad(uncut.ids, (0, 40), value=1)
    start = engine.start.unsqueeze(0)
    torch.testing.assert_close(uncut(start), engine._encode(start), atol=1e-6, rtol=0)


def test_tuning_prompt_files_and_precision_work(tmp_path: Path) -> None:
    clip = build("xlm-roberta-base-ViT-B-32")
    context = tpt.Context.from_words(clip, "a photo of a")
    context.save(tmp_path / "prompt.safetensors")
    engine = tpt.PromptEngine(clip, NAMES, tpt.Context.load(tmp_path / "prompt.safetensors"))
    out = tpt.TPT(engine, keep=0.5).adapt(torch.randn(2, 8, 3, 32, 32))
    assert (out.vectors - engine.start).abs().amax((1, 2)).min() > 1e-3
    half = tpt.load_clip("xlm-roberta-base-ViT-B-32", "random", device="cpu", precision="bf16")
    assert half.model.text.transformer.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert tpt.PromptEngine(half, NAMES).class_features().dtype == torch.float32


def test_a_model_object_of_open_clip_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "xlm-roberta-base-ViT-B-32"
    model = build(name).model
    clip = tpt.Clip(model, Words("xlm-roberta-base", 64))
    assert (clip.context_length, clip.width, clip.embedding_width) == (64, 32, 24)
    assert tpt.PromptEngine(clip, NAMES).class_features().shape == (3, 24)


# --- folders, as BiomedCLIP is one ---

BIOMED = {
    "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": 256,
}


def write_folder(folder: Path, **changes: Any) -> str:
    """BiomedCLIP's config, small, with random weights."""
    text = {**BIOMED, **changes}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    facts = {**_hf_text.DEFAULTS["bert"]}
    facts |= {key: value for key, value in SMALL.items() if key in facts}
    cfg = {**text, "hf_facts": {"model_type": "bert", **facts}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = _hf_text.build_text_tower(cfg, 24)
        visual = open_clip.CLIP(24, dict(VISION), {"width": 32, "layers": 1, "heads": 1})
    state = {f"text.{k}": v for k, v in tower.state_dict().items()}
    state |= {k: v for k, v in visual.state_dict().items() if k.startswith(("visual.", "logit"))}
    # Old files count positions among the weights.
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def test_a_folder_with_a_known_tower_is_loaded(tmp_path: Path) -> None:
    clip = tpt.load_clip(write_folder(tmp_path), device="cpu")
    assert (clip.context_length, clip.width) == (256, 32)
    assert tpt.PromptEngine(clip, NAMES).class_features().shape == (3, 24)


def test_a_converted_folder_needs_nothing_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    name = write_folder(source, hf_model_name="org/model")
    facts = {"model_type": "bert", **{k: v for k, v in SMALL.items() if "_" in k}}
    (source / "config.json").write_text(json.dumps(facts))
    clip = tpt.load_clip(name, device="cpu")
    convert_model(clip, target)
    assert (target / "tokenizer.json").is_file()
    assert tpt.load_clip(f"local-dir:{target}", device="cpu").digest == clip.digest


def test_another_tower_is_described_by_its_config_beside_or_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_folder(tmp_path, hf_model_name="org/model", hf_tokenizer_name="model")

    def refuse(*args: Any, **options: Any) -> None:
        raise FileNotFoundError("no network")

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", refuse)
    with pytest.raises(ModelError, match=r"put its config\.json beside open_clip_config\.json"):
        tpt.load_clip(name, device="cpu")
    facts = {"model_type": "bert", **{k: v for k, v in SMALL.items() if "_" in k}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    first = tpt.load_clip(name, device="cpu")
    asked = []
    (tmp_path / "config.json").rename(tmp_path / "elsewhere.json")

    def fetch(repository: str, filename: str | None = None) -> str:
        asked.append((repository, filename))
        return str(tmp_path / "elsewhere.json")

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", fetch)
    assert tpt.load_clip(name, device="cpu").digest == first.digest
    assert asked == [("org/model", "config.json")]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"model_type": "llama"}, "of the kind 'llama'; expected one of bert, roberta"),
        ({"model_type": ["bert"]}, "of the kind \\['bert'\\]"),
        ({"model_type": "bert", "hidden_size": 10**9}, 'sets "hidden_size" to 1000000000'),
        ({"model_type": "bert", "hidden_act": "os.system"}, 'sets "hidden_act"'),
        ({"model_type": "bert", "auto_map": {"AutoModel": "evil.E"}}, "names Python code"),
    ],
)
def test_a_towers_config_is_read_through_an_allow_list(
    tmp_path: Path, facts: dict[str, Any], text: str
) -> None:
    name = write_folder(tmp_path, hf_model_name="org/model")
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=text):
        tpt.load_clip(name, device="cpu")
