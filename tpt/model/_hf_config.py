"""Translate a `config.json` of `transformers` into an open_clip config.

It reads the configs of `CLIPModel`, `SiglipModel` (also SigLIP 2 at a fixed size) and
`ChineseCLIPModel`. Only the settings named here are read, each within bounds; a missing setting has
the default of `transformers`, which is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import ModelError
from tpt.model._config import DEPTH, SIZE, Check, ModelConfig, number, whole, words
from tpt.model._hf_json import FAMILIES, read_settings, refused, show, table
from tpt.model._hf_preprocess import read_preprocess

CONFIG_FILE = "config.json"

_ACTIVATIONS = words("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh")
_TOWER: dict[str, Check] = {
    "hidden_size": SIZE,
    "intermediate_size": whole(2**20),
    "num_hidden_layers": DEPTH,
    "num_attention_heads": SIZE,
    "hidden_act": _ACTIVATIONS,
    "layer_norm_eps": number(most=1),
}
_TEXT = _TOWER | {
    "vocab_size": whole(4_000_000),
    "max_position_embeddings": whole(8_192),
    "eos_token_id": whole(4_000_000),
    "pad_token_id": whole(4_000_000),
    "type_vocab_size": whole(65_536),
    "projection_size": SIZE,
    "position_embedding_type": words("absolute"),
}
_VISION = _TOWER | {
    "image_size": whole(16_384),
    "patch_size": whole(16_384),
    "num_channels": lambda value: value == 3,
    "vision_use_head": lambda value: value is True,
}
_SIZES: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072}
_BASE = _SIZES | {"num_hidden_layers": 12, "num_attention_heads": 12, "layer_norm_eps": 1e-5}
_TANH = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP_VISION = _BASE | {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu"}
_DEFAULTS = {  # text, image
    "clip": (
        _BASE
        | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
        | {"vocab_size": 49_408, "max_position_embeddings": 77, "eos_token_id": 49_407}
        | {"hidden_act": "quick_gelu"},
        _CLIP_VISION,
    ),
    "siglip": (
        _BASE | _TANH | {"vocab_size": 32_000, "max_position_embeddings": 64},
        _BASE | _TANH | {"image_size": 224, "patch_size": 16},
    ),
    "chinese_clip": (
        _BASE
        | {"vocab_size": 30_522, "max_position_embeddings": 512, "type_vocab_size": 2}
        | {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0},
        _CLIP_VISION,
    ),
}


def is_model_folder(folder: Path) -> bool:
    """Whether a folder has a `config.json` of `transformers`, or one that cannot be read."""
    try:
        return isinstance(read_settings(folder / CONFIG_FILE, str(folder)).get("model_type"), str)
    except ModelError:
        return (folder / CONFIG_FILE).is_file()


def read_model_config(folder: Path, name: str) -> ModelConfig:
    """The config of a folder that `transformers` wrote.

    Raises:
        ModelError: another kind of model, a setting out of bounds or one that names code, or
            preprocessing other than resize, centre crop and normalisation.
    """
    found = read_settings(folder / CONFIG_FILE, name)
    family = found.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelError(
            f'The config of "{name}" is of the kind {show(family)}; expected a '
            f"{', '.join(FAMILIES.values())} of transformers (SigLIP 2 at a fixed picture size, "
            "not NaFlex). Choose another model, or the same one in open_clip's format."
        )
    text_defaults, vision_defaults = _DEFAULTS[family]
    text = _settings(found, "text_config", _TEXT, text_defaults, name)
    vision = _settings(found, "vision_config", _VISION, vision_defaults, name)
    make = {"clip": _clip, "siglip": _siglip, "chinese_clip": _chinese_clip}[family]
    width = found.get("projection_dim")
    width = 512 if width is None else width
    if not SIZE(width):
        raise refused(name, "projection_dim", width)
    model = make(text, vision, width, name)
    preprocess = read_preprocess(folder, name, family, vision["image_size"])
    return ModelConfig(model, preprocess, kind=family)


def _clip(text: dict[str, Any], vision: dict[str, Any], width: int, name: str) -> dict[str, Any]:
    if text["hidden_act"] != vision["hidden_act"]:
        raise ModelError(
            f'The towers of "{name}" have different activations ({text["hidden_act"]} and '
            f"{vision['hidden_act']}), which open_clip's CLIP cannot have. Choose another model."
        )
    tower = _text_tower(text, name)
    # Old configs say 2, which transformers takes for the largest id: its pull request 24773.
    end = text["eos_token_id"]
    if end not in (2, text["vocab_size"] - 1):
        tower |= {"pool_type": "eos", "eos_id": end}
    return {
        "embed_dim": width,
        "vision_cfg": _image_tower(vision, name),
        "text_cfg": tower,
        **_quick_gelu(vision),
    }


def _siglip(text: dict[str, Any], vision: dict[str, Any], width: int, name: str) -> dict[str, Any]:
    width = text.get("projection_size") or text["hidden_size"]
    for tower in (text, vision):
        if tower["hidden_act"] == "quick_gelu":
            raise refused(name, "hidden_act", "quick_gelu")
    if width != vision["hidden_size"]:
        raise ModelError(
            f'The towers of "{name}" give features of width {width} and {vision["hidden_size"]}; '
            "expected the same. The config is not of a whole SiglipModel."
        )
    plain = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    # Beside sizes these words mean our own tower (`_building`, `_towers`).
    timm = {"timm_model_name": "siglip", "timm_pool": "map", "timm_proj": "none"}
    return {
        "embed_dim": width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"act_kwargs": {}, **_image_tower(vision, name), **timm},
        "text_cfg": _text_tower(text, name) | plain,
    }


def _chinese_clip(
    text: dict[str, Any], vision: dict[str, Any], width: int, name: str
) -> dict[str, Any]:
    if text["hidden_act"] != "gelu":
        raise refused(name, "text_config.hidden_act", text["hidden_act"])
    tower = _text_tower(text, name) | {
        "tower": "bert",
        "pad_id": text["pad_token_id"],
        "type_vocab_size": text["type_vocab_size"],
        "norm_kwargs": {"eps": text["layer_norm_eps"]},
    }
    return {
        "embed_dim": width,
        "custom_text": True,
        "vision_cfg": _image_tower(vision, name),
        "text_cfg": tower,
        **_quick_gelu(vision),
    }


def _quick_gelu(vision: Mapping[str, Any]) -> dict[str, bool]:
    return {"quick_gelu": True} if vision["hidden_act"] == "quick_gelu" else {}


def _image_tower(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    width, heads = facts["hidden_size"], facts["num_attention_heads"]
    tower = _tower(facts, name) | {
        "image_size": facts["image_size"],
        "patch_size": facts["patch_size"],
        "head_width": width // heads,
    }
    if not 0 < facts["patch_size"] <= facts["image_size"]:  # pixels left at the edges are not used
        raise ModelError(
            f'The pictures of "{name}" are {facts["image_size"]} pixels wide with patches of '
            f"{facts['patch_size']}; expected at least one patch. The config is damaged."
        )
    return tower


def _text_tower(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _tower(facts, name) | {
        "context_length": facts["max_position_embeddings"],
        "vocab_size": facts["vocab_size"],
        "heads": facts["num_attention_heads"],
    }


def _tower(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    width, inner, heads = (
        facts[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    if 0 in (width, inner, heads) or width % heads:
        raise ModelError(
            f'A tower of "{name}" is {width} wide with {heads} heads and {inner} inside; expected '
            "a width that the heads divide. The config is damaged, or of another kind of model."
        )
    tower: dict[str, Any] = {"width": width, "layers": facts["num_hidden_layers"]}
    if inner != 4 * width:
        tower["mlp_ratio"] = inner / width
        if int(width * tower["mlp_ratio"]) != inner:  # open_clip would round down to less
            tower["mlp_ratio"] = (inner + 0.5) / width
    if facts["layer_norm_eps"] != 1e-5:
        tower["norm_kwargs"] = {"eps": facts["layer_norm_eps"]}
    if facts["hidden_act"] in ("gelu_new", "gelu_pytorch_tanh"):
        tower["act_kwargs"] = {"approximate": "tanh"}
    return tower


def _settings(
    found: Mapping[str, Any],
    part: str,
    checks: Mapping[str, Check],
    defaults: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """The known settings of a tower, each within bounds."""
    # Configs of before 2023 repeat a tower's settings under a second name, which wins.
    given, repeated = (table(found, key, name) for key in (part, f"{part}_dict"))
    layers = [defaults, given] + [defaults, repeated] * bool(repeated)
    settings: dict[str, Any] = {}
    for layer in layers:
        settings |= {k: v for k, v in layer.items() if k in checks and v is not None}
    for key, value in settings.items():
        if not checks[key](value):
            raise refused(name, f"{part}.{key}", value)
    return settings
