"""Write any model that `load_clip` loads as a folder of open_clip's format.

The weights keep their numbers, so the digest, and with it every prompt made for the model, stays
valid; they are written as fp16 where that loses nothing. What open_clip cannot say is refused, or
written beside what it reads: an activation of SigLIP's image tower and the rule for a crop's half
pixel are keys that this package reads and open_clip passes over.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from tpt.errors import ModelError, OutputError, why
from tpt.model._building import build_model
from tpt.model._config import read_config
from tpt.model._folders import CONFIG_FILE
from tpt.model._hf_text import check_installed, with_text_facts
from tpt.model._hf_tokenizer import FILES, OLD_FILES, FileTokenizer
from tpt.model.clip import Clip
from tpt.runs.whole_files import write_whole

WEIGHTS_FILE = "open_clip_model.safetensors"
_SIGLIP = {(768, 12): "base", (1024, 24): "large", (1152, 27): "so400m", (1536, 40): "giantopt"}
_BERT = "bert-base-chinese"  # the architecture is Chinese-CLIP's; its facts stand in config.json


def convert_model(clip: Clip, target: Path) -> list[str]:
    """Write `clip` as the folder `target`.

    Args:
        clip: a model that `load_clip` loaded in fp32.
        target: a folder that is not there yet, or is empty.

    Returns:
        What is different where open_clip itself reads the folder; often nothing.

    Raises:
        ModelError: a model that open_clip's format cannot describe, or whose text tower needs
            transformers in it, which is not installed.
        OutputError: the folder exists and is not empty, or the disk refused.
    """
    if clip.config is None:
        raise ModelError(
            "Only a model that tpt.load_clip loaded can be converted; this one came as an object. "
            "Save it with open_clip's own functions."
        )
    if clip.digest is None or clip.dtype != torch.float32:
        raise ModelError(
            "A model is converted as it was published, not rounded to half precision. Load it with "
            'precision="fp32".'
        )
    notes: list[str] = []
    beside: dict[str, Any] = {}
    text = _text_config(clip, notes, beside)
    if text.get("hf_model_name"):  # Chinese-CLIP's becomes one
        check_installed(text, str(clip.name), " in open_clip's format")
    model = {**clip.config.model, "vision_cfg": _image_config(clip, notes), "text_cfg": text}
    preprocess = _preprocess(clip, notes)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise OutputError(f'"{target}" is not empty. Choose a folder that is not there yet.')
        _write_weights(clip, target / WEIGHTS_FILE)
        for name in _tokenizer_files(clip):
            shutil.copyfile(name, target / name.name)
        if hasattr(clip.tokenizer, "save_pretrained"):  # open_clip's around one of transformers
            clip.tokenizer.save_pretrained(target)
    except OSError as error:
        raise OutputError(
            f'The model could not be written to "{target}": {why(error)}. Choose another '
            "place or make room."
        ) from error
    if beside:
        write_whole(target / "config.json", json.dumps(beside, indent=1).encode(), "config")
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    # Last, so that a folder with a config is whole.
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
            f'What was written to "{target}" is not the same model ({digest} in place of '
            f"{clip.digest}); its config was removed. Please report this with the model's name."
        )


def _write_weights(clip: Clip, path: Path) -> None:
    state = {name: t.detach().cpu().contiguous() for name, t in clip.model.state_dict().items()}
    floats = [t for t in state.values() if t.is_floating_point()]
    if all(torch.equal(t.half().float(), t) for t in floats):
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    temporary = path.parent / f".tpt-{uuid.uuid4().hex}"
    try:
        save_file(state, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _image_config(clip: Clip, notes: list[str]) -> dict[str, Any]:
    assert clip.config is not None
    facts = dict(clip.config.model["vision_cfg"])
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
    """Whether timm has a tower of this name with the weights' names and shapes."""
    import timm

    if name not in timm.list_models():
        return False
    with torch.device("meta"):
        there = timm.create_model(name, num_classes=0).state_dict()
    ours = clip.model.visual.trunk.state_dict()  # type: ignore[union-attr]
    return {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in ours.items()}


def _text_config(clip: Clip, notes: list[str], beside: dict[str, Any]) -> dict[str, Any]:
    assert clip.config is not None
    text = {k: v for k, v in clip.config.text.items() if k not in ("tower", "hf_facts")}
    facts = clip.config.text.get("hf_facts")
    if clip.config.text.get("tower") == "bert":
        facts = _bert_facts(text)
        text = {"context_length": text["context_length"], "hf_model_name": _BERT}
        text |= {"hf_proj_type": "linear", "hf_pooler_type": "cls_last_hidden_state_pooler"}
        notes.append(
            f"open_clip itself reads the text tower's facts from {_BERT} on the hub, which suits "
            "Chinese-CLIP's base models alone; this package reads them from config.json beside."
        )
    if facts:
        beside |= facts
    if isinstance(clip.tokenizer, FileTokenizer) and _tokenizer_files(clip):
        text |= {"hf_tokenizer_name": "tokenizer", "tokenizer_kwargs": {"clean": _clean(clip)}}
    return text


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


def _clean(clip: Clip) -> str:
    """open_clip's word for what is done to a text ahead of its tokenizer."""
    tried = clip.tokenizer.clean("A.")  # type: ignore[attr-defined]
    return {"a": "canonicalize", "a.": "lower"}.get(tried, "whitespace")


def _tokenizer_files(clip: Clip) -> list[Path]:
    """The files to copy: none where CLIP's own tokenizer gives the same tokens."""
    if not isinstance(clip.tokenizer, FileTokenizer) or _is_clips_own(clip.tokenizer):
        return []
    folder = clip.tokenizer.folder
    return [folder / name for name in (*FILES, *OLD_FILES) if (folder / name).is_file()]


def _is_clips_own(tokenizer: FileTokenizer) -> bool:
    names = [f"a photo of a {name}." for name in open_clip.IMAGENET_CLASSNAMES]
    own = open_clip.SimpleTokenizer(context_length=tokenizer.context_length)(names)
    ours = tokenizer(names)
    end = own.argmax(1, keepdim=True)
    seen = torch.arange(own.shape[1]) <= end
    return torch.equal(own[seen], ours[seen])


def _preprocess(clip: Clip, notes: list[str]) -> dict[str, Any]:
    facts = clip.preprocess
    found: dict[str, Any] = {
        "size": list(facts.size),
        "mean": list(facts.mean),
        "std": list(facts.std),
        "interpolation": facts.interpolation,
        "resize_mode": facts.resize_mode,
        "fill_color": facts.fill,
    }
    if facts.centre != "round":
        found["centre"] = facts.centre
        if facts.resize_mode == "shortest":
            notes.append(
                "open_clip itself cuts the centre of some pictures one pixel further than "
                "transformers and this package do."
            )
    return found
