"""Write any model that `load_clip` loads as a folder of open_clip's format.

The weights keep their numbers, so the digest and every prompt made for the model stay valid; they
are written as fp16 if that loses nothing. A model that open_clip's format cannot describe is
refused. Two facts are written as keys that this package reads and open_clip ignores: the activation
of SigLIP's image tower and the rule for a crop's half pixel.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from tpt.errors import ModelError, OutputError, why
from tpt.model._building import build_model
from tpt.model._config import ModelConfig, read_config
from tpt.model._folders import CONFIG_FILE
from tpt.model._hf_text import check_installed, with_text_facts
from tpt.model._hf_tokenizer import FILES, OLD_FILES, FileTokenizer
from tpt.model.clip import Clip, Preprocess
from tpt.runs.whole_files import replacing, write_whole

WEIGHTS_FILE = "open_clip_model.safetensors"
_SIGLIP = {(768, 12): "base", (1024, 24): "large", (1152, 27): "so400m", (1536, 40): "giantopt"}
_BERT = "bert-base-chinese"  # Chinese-CLIP's architecture; the folder's config.json has its facts


def convert_model(clip: Clip, target: Path) -> list[str]:
    """Write `clip` as the folder `target`.

    Args:
        clip: a model that `load_clip` loaded in fp32.
        target: a new or empty folder.

    Returns:
        What differs when open_clip itself reads the folder; often nothing.

    Raises:
        ModelError: open_clip's format cannot describe the model, or its text tower would need
            transformers, which is not installed.
        OutputError: the folder is not empty or cannot be written.
    """
    if clip.config is None:
        raise ModelError(
            "Only a model that tpt.load_clip loaded can be converted, not a model object. Save it "
            "with open_clip's own functions."
        )
    if clip.digest is None or clip.dtype != torch.float32:
        raise ModelError(
            "A model is converted as it was published, not rounded to half precision. Load it with "
            'precision="fp32".'
        )
    notes: list[str] = []
    text, facts = _text_config(clip.config, notes)
    if text.get("hf_model_name"):  # Chinese-CLIP's becomes one
        check_installed(text, str(clip.name), " in open_clip's format")
    files = _tokenizer_files(clip.tokenizer)
    if files:
        clean = _name_cleaning(clip.tokenizer)
        text |= {"hf_tokenizer_name": "tokenizer", "tokenizer_kwargs": {"clean": clean}}
    vision = _image_config(clip, clip.config, notes)
    config = {
        "model_cfg": {**clip.config.model, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": _preprocess(clip.preprocess, notes),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise OutputError(f'"{target}" is not empty. Choose a folder that is not there yet.')
        _write_weights(clip, target / WEIGHTS_FILE)
        for file in files:
            shutil.copyfile(file, target / file.name)
        if hasattr(clip.tokenizer, "save_pretrained"):  # open_clip's around one of transformers
            clip.tokenizer.save_pretrained(target)
    except OSError as error:
        raise OutputError(
            f'The model could not be written to "{target}": {why(error)}. Choose another '
            "place or make room."
        ) from error
    if facts:
        write_whole(target / "config.json", json.dumps(facts, indent=1).encode(), "config")
    # Last, so that a folder with this config is whole.
    write_whole(target / CONFIG_FILE, json.dumps(config, indent=1).encode(), "config")
    _check(clip, target)
    return notes


def _check(clip: Clip, target: Path) -> None:
    """Read what was written, and compare the digests."""
    config = with_text_facts(read_config(target / CONFIG_FILE, str(target)), target, str(target))
    _, digest = build_model(config, target / WEIGHTS_FILE, "fp32", torch.device("cpu"), 0)
    if digest != clip.digest:
        (target / CONFIG_FILE).unlink()
        raise ModelError(
            f'The model written to "{target}" differs from the original (digest {digest}, expected '
            f"{clip.digest}); its config was removed. Please report this with the model's name."
        )


def _write_weights(clip: Clip, path: Path) -> None:
    state = {name: t.detach().cpu().contiguous() for name, t in clip.model.state_dict().items()}
    floats = [t for t in state.values() if t.is_floating_point()]
    if all(torch.equal(t.half().float(), t) for t in floats):
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def _image_config(clip: Clip, config: ModelConfig, notes: list[str]) -> dict[str, Any]:
    facts = dict(config.model["vision_cfg"])
    if facts.get("timm_model_name") != "siglip":
        return facts
    size = _SIGLIP.get((facts["width"], facts["layers"]))
    name = f"vit_{size}_patch{facts['patch_size']}_siglip_{facts['image_size']}"
    if not _is_timm(name, clip):
        raise ModelError(
            f"An image tower of SigLIP with {facts['layers']} layers of width {facts['width']}, "
            f"patches of {facts['patch_size']} and {facts['image_size']} pixels has no name in "
            "open_clip's format. Use the model as it is: local-dir: reads its folder."
        )
    notes.append(
        "open_clip itself computes this image tower with the exact GELU, transformers and this "
        "package with its tanh form; features differ in about the third digit."
    )
    return facts | {"timm_model_name": name}


def _is_timm(name: str, clip: Clip) -> bool:
    """Whether timm has a tower of this name whose weights have the same names and shapes."""
    import timm

    if name not in timm.list_models():
        return False
    with torch.device("meta"):
        there = timm.create_model(name, num_classes=0).state_dict()
    ours = clip.model.visual.trunk.state_dict()  # type: ignore[union-attr]
    return {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in ours.items()}


def _text_config(config: ModelConfig, notes: list[str]) -> tuple[dict[str, Any], Any]:
    """The `text_cfg`, and the facts of a text tower of transformers for its `config.json`."""
    text = config.text
    tower, facts = text.pop("tower", None), text.pop("hf_facts", None)
    if tower == "bert":
        facts = _bert_facts(text)
        text = {"context_length": text["context_length"], "hf_model_name": _BERT}
        text |= {"hf_proj_type": "linear", "hf_pooler_type": "cls_last_hidden_state_pooler"}
        notes.append(
            f"open_clip itself reads the text tower's facts from {_BERT} on the hub, which suits "
            "Chinese-CLIP's base models alone; this package reads them from config.json beside."
        )
    return text, facts


def _bert_facts(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": text["width"],
        "num_hidden_layers": text["layers"],
        "num_attention_heads": text["heads"],
        "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
        "type_vocab_size": text["type_vocab_size"],
        "layer_norm_eps": text["norm_kwargs"]["eps"],
        "pad_token_id": text["pad_id"],
        "hidden_act": "gelu",
    }


def _name_cleaning(tokenizer: Any) -> str:
    """open_clip's name for the cleaning of a text before a `FileTokenizer`'s."""
    return {"a": "canonicalize", "a.": "lower"}.get(tokenizer.clean("A."), "whitespace")


def _tokenizer_files(tokenizer: Any) -> list[Path]:
    """A `FileTokenizer`'s files; none if CLIP's own tokenizer gives the same tokens."""
    if not isinstance(tokenizer, FileTokenizer) or _is_clips_own(tokenizer):
        return []
    files = [tokenizer.folder / name for name in (*FILES, *OLD_FILES)]
    return [file for file in files if file.is_file()]


def _is_clips_own(tokenizer: FileTokenizer) -> bool:
    names = [f"a photo of a {name}." for name in open_clip.IMAGENET_CLASSNAMES]
    own = open_clip.SimpleTokenizer(context_length=tokenizer.context_length)(names)
    ours = tokenizer(names)
    seen = torch.arange(own.shape[1]) <= own.argmax(1, keepdim=True)  # up to the end mark
    return torch.equal(own[seen], ours[seen])


def _preprocess(facts: Preprocess, notes: list[str]) -> dict[str, Any]:
    found = asdict(facts)
    found["fill_color"] = found.pop("fill")
    centre = found.pop("centre")
    if centre != "round":
        found["centre"] = centre
        if facts.resize_mode == "shortest":
            notes.append(
                "open_clip itself cuts the centre of some pictures one pixel further than "
                "transformers and this package do."
            )
    return found
