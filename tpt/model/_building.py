"""Build a model from a checked config, and read its weights.

These are the steps of `open_clip.create_model` that matter here, on open_clip's own classes. We do
not call it: it reads the config again without checking it, logs through the root logger (which sets
up logging for the whole process) and draws from the default generator.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from open_clip import factory, hf_model
from torch import nn

from tpt.model._config import ModelConfig
from tpt.model._hf_json import FAMILIES
from tpt.model._hf_text import build_text_tower
from tpt.model._hf_tokenizer import FILES as TOKENIZER_FILES
from tpt.model._hf_tokenizer import read_tokenizer
from tpt.model._towers import BertTower, ImageTower
from tpt.model._weights import list_files, load_weights
from tpt.model.surroundings import Defaults

# open_clip's class builds these small towers, and ours replace them.
_NO_IMAGE_TOWER = {"layers": 1, "width": 64, "image_size": 16, "patch_size": 16}
_NO_TEXT_TOWER = {"layers": 1, "width": 64, "vocab_size": 1, "context_length": 1}
_WHOLE = ("token_embedding", "text_projection", "proj", "c_proj", "word_embeddings", "embed_tokens")
_SAMPLE = 1024  # numbers digested of each other tensor


def build_model(
    config: ModelConfig,
    weights: Path | None,
    precision: str,
    device: torch.device,
    seed: int,
) -> tuple[nn.Module, str]:
    """A model, and the digest of its weights before they are rounded to `precision`.

    Args:
        weights: the file to read, or None for random weights drawn from `seed`.
        precision: "fp32", "tf32", "bf16" or "fp16" (the image tower alone).
        seed: of the random weights.
    """
    rng = torch.Generator("cpu").manual_seed(seed)
    with torch.device("cpu"), Defaults(rng):
        model = _make(config, factory.get_cast_dtype(precision))
        if weights is not None:
            load_weights(model, config, weights)
        digest = digest_weights(model)
    foreign = "timm_model_name" in config.model["vision_cfg"]
    foreign |= bool(config.text.get("tower") or config.text.get("hf_model_name"))
    lower = model.visual if precision == "fp16" else model
    factory._set_model_device_and_precision(lower, device, precision, foreign)
    model.to(device)
    preprocess = factory.merge_preprocess_dict(factory.PreprocessCfg(), config.preprocess)
    preprocess["centre"] = config.preprocess.get("centre")
    preprocess["size"] = getattr(model.visual, "image_size", preprocess["size"])
    factory.set_model_preprocess_cfg(model, preprocess)
    # Convolutions are a fifth faster in this order; attention is as fast as before.
    model.visual.to(memory_format=torch.channels_last)
    return model, digest


def _make(config: ModelConfig, cast_dtype: torch.dtype | None) -> nn.Module:
    facts = copy.deepcopy(config.model)
    custom = facts.pop("custom_text", False)
    if "timm_model_name" in facts["vision_cfg"]:
        facts["vision_cfg"]["timm_model_pretrained"] = False
    image, text, width = facts["vision_cfg"], facts["text_cfg"], facts["embed_dim"]
    towers: dict[str, nn.Module] = {}
    if image.get("timm_pool") == "map" and image.get("width"):
        towers["visual"], facts["vision_cfg"] = ImageTower(image), _NO_IMAGE_TOWER
    if text.get("tower") == "bert":
        towers["text"], facts["text_cfg"] = BertTower(text, width), _NO_TEXT_TOWER
    if text.get("hf_model_name"):
        words = text.get("vocab_size") or 49_408  # of CoCa's captions
        towers["text"] = build_text_tower(text, width)
        facts["text_cfg"] = _NO_TEXT_TOWER | {"vocab_size": words}
    kind: Any = factory.CLIP
    if custom or "text" in towers:
        kind = factory.CoCa if "multimodal_cfg" in facts else factory.CustomTextCLIP
    model: nn.Module = kind(**facts, cast_dtype=cast_dtype)
    for name, tower in towers.items():
        setattr(model, name, tower)
    return model


def check_size(config: ModelConfig, weights: Path) -> None:
    """Refuse a config whose model is larger than its weights, before memory is taken for it.

    Raises:
        ValueError: fewer bytes in the file than numbers in the model.
    """
    with torch.device("meta"):
        needed = sum(p.numel() for p in _make(config, None).parameters())
    size = sum(file.stat().st_size for file in list_files(weights))
    if needed > size:
        raise ValueError(
            f"the config describes a model of {needed:,} numbers, more than the {size:,} bytes of "
            f"{weights.name} can hold"
        )


def reads_tokenizer(folder: Path, config: ModelConfig) -> bool:
    """Whether we read the tokenizer of a folder in open_clip's format, as transformers is missing.

    Where transformers is installed, it reads the same files, as it does for open_clip.
    """
    text = config.text
    options = (text.get("tokenizer_kwargs") or {}).keys() - {"clean"}
    odd = text.get("hf_model_name") or text.get("tokenizer_mode") or options
    missing = hf_model.transformers is None and bool(text.get("hf_tokenizer_name"))
    return missing and not odd and (folder / TOKENIZER_FILES[0]).is_file()


def make_tokenizer(config: ModelConfig, folder: Path | None, name: str) -> Any:
    """The tokenizer that a config names: CLIP's own, or one read from files.

    Args:
        folder: of the tokenizer's files; None: the hub repository that `config` names.
        name: of the model, for the errors.
    """
    text = config.text
    if folder and (config.kind in FAMILIES or reads_tokenizer(folder, config)):
        return read_tokenizer(folder, config, name)
    length = text.get("context_length") or factory.DEFAULT_CONTEXT_LENGTH
    options = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return factory.SimpleTokenizer(context_length=length, **options)
    # None would ask on the terminal whether to run a repository's code.
    return factory.HFTokenizer(
        text["hf_tokenizer_name"] if folder is None else str(folder),
        context_length=length,
        tokenizer_mode=text.get("tokenizer_mode"),
        trust_remote_code=False,
        **options,
    )


@torch.no_grad()
def digest_weights(model: Any) -> str:
    """A model's identity by its weights: 32 hexadecimal digits.

    The digest covers all numbers of the token embedding and the towers' projections, and every
    other tensor's name, shape and up to 1,024 numbers spread over it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        last = name.removesuffix(".weight").removesuffix(".bias").rsplit(".", 1)[-1]
        if last not in _WHOLE or ".mlp." in name:
            flat = flat[:: max(1, len(flat) // _SAMPLE)]
        digest.update(f"{name} {tuple(tensor.shape)}\0".encode())
        digest.update(flat.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
