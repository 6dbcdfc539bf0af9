"""What a folder of `transformers` says of its model, in the words of an open_clip config.

Read are `config.json` and `preprocessor_config.json` (or the processor's file around it), of
`CLIPModel`, `SiglipModel` (SigLIP 2 at a fixed size is one too) and `ChineseCLIPModel`. Only the
settings named here are looked at, each within bounds; what they leave out has the default that
`transformers` gives it. `transformers` itself is not imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import ModelError
from tpt.model._config import (
    DEPTH,
    LARGEST,
    PIXELS,
    SIZE,
    Check,
    ModelConfig,
    number,
    several,
    whole,
    words,
)
from tpt.text import read_json

CONFIG_FILE = "config.json"
PREPROCESS_FILES = ("preprocessor_config.json", "processor_config.json")
FAMILIES = {"clip": "CLIPModel", "siglip": "SiglipModel", "chinese_clip": "ChineseCLIPModel"}
CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Settings that name Python code of the folder's own."""

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
_BASE = {"num_hidden_layers": 12, "num_attention_heads": 12, "layer_norm_eps": 1e-5}
_VISION_BASE = {**_BASE, "hidden_size": 768, "intermediate_size": 3072, "image_size": 224}
_TANH = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP_VISION = {**_VISION_BASE, "patch_size": 32, "hidden_act": "quick_gelu"}
_DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # text, image
    "clip": (
        {
            **{**_BASE, "num_attention_heads": 8, "hidden_size": 512, "intermediate_size": 2048},
            **{"vocab_size": 49_408, "max_position_embeddings": 77, "eos_token_id": 49_407},
            "hidden_act": "quick_gelu",
        },
        _CLIP_VISION,
    ),
    "siglip": (
        {
            **{**_BASE, **_TANH, "hidden_size": 768, "intermediate_size": 3072},
            **{"vocab_size": 32_000, "max_position_embeddings": 64},
        },
        {**_VISION_BASE, **_TANH, "patch_size": 16},
    ),
    "chinese_clip": (
        {
            **{**_BASE, "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
            **{"vocab_size": 30_522, "max_position_embeddings": 512, "type_vocab_size": 2},
            **{"hidden_act": "gelu", "pad_token_id": 0},
        },
        _CLIP_VISION,
    ),
}
_OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_log = logging.getLogger(__name__)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder's `config.json` says that it is a model of `transformers`."""
    try:
        return isinstance(_read(folder / CONFIG_FILE, str(folder)).get("model_type"), str)
    except ModelError:
        return (folder / CONFIG_FILE).is_file()


def read_model_config(folder: Path, name: str) -> ModelConfig:
    """The config of a folder that `transformers` wrote.

    Raises:
        ModelError: another kind of model, a setting out of its bounds, one that names code, or
            preprocessing that is not resize, centre crop and normalisation.
    """
    found = _read(folder / CONFIG_FILE, name)
    family = found.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ModelError(
            f'The config of "{name}" is of the kind {_show(family)}; of transformers\' models '
            f"those of {', '.join(FAMILIES.values())} are read (SigLIP 2 at a fixed picture size, "
            "not NaFlex). Choose another model, or the same one in open_clip's format."
        )
    text, vision = (
        _settings(found, part, checks, defaults, name)
        for part, checks, defaults in zip(
            ("text_config", "vision_config"), (_TEXT, _VISION), _DEFAULTS[family], strict=True
        )
    )
    make = {"clip": _clip, "siglip": _siglip, "chinese_clip": _chinese_clip}[family]
    width = found.get("projection_dim")
    width = 512 if width is None else width
    if not SIZE(width):
        raise _refused(name, "projection_dim", width)
    model = make(text, vision, width, name)
    preprocess = _read_preprocess(folder, name, family, vision["image_size"])
    return ModelConfig(model, preprocess, kind=family)


def _clip(text: dict[str, Any], vision: dict[str, Any], width: int, name: str) -> dict[str, Any]:
    if text["hidden_act"] != vision["hidden_act"]:
        raise ModelError(
            f'The towers of "{name}" have different activations ({text["hidden_act"]} and '
            f"{vision['hidden_act']}), which open_clip's CLIP cannot have. Choose another model."
        )
    tower = _text_tower(text, name)
    # transformers reads old configs, which give 2, at the largest id: PR 24773 there.
    end = text["eos_token_id"]
    if end not in (2, text["vocab_size"] - 1):
        tower |= {"pool_type": "eos", "eos_id": end}
    quick = {"quick_gelu": True} if text["hidden_act"] == "quick_gelu" else {}
    return {
        "embed_dim": width,
        "vision_cfg": _image_tower(vision, name),
        "text_cfg": tower,
        **quick,
    }


def _siglip(text: dict[str, Any], vision: dict[str, Any], width: int, name: str) -> dict[str, Any]:
    width = text.get("projection_size") or text["hidden_size"]
    for tower in (text, vision):
        if tower["hidden_act"] == "quick_gelu":
            raise _refused(name, "hidden_act", "quick_gelu")
    if width != vision["hidden_size"]:
        raise ModelError(
            f'The towers of "{name}" give features of width {width} and {vision["hidden_size"]}; '
            "expected the same. The config is of no whole SiglipModel."
        )
    plain = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    # open_clip's word for it; our own tower is built where the sizes stand beside it (_towers).
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
        raise _refused(name, "text_config.hidden_act", text["hidden_act"])
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
    } | ({"quick_gelu": True} if vision["hidden_act"] == "quick_gelu" else {})


def _image_tower(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    width, heads = facts["hidden_size"], facts["num_attention_heads"]
    tower = _tower(facts, name) | {
        "image_size": facts["image_size"],
        "patch_size": facts["patch_size"],
        "head_width": width // heads,
    }
    if facts["patch_size"] == 0 or facts["image_size"] % facts["patch_size"]:
        raise ModelError(
            f'The pictures of "{name}" are {facts["image_size"]} pixels wide, which patches of '
            f"{facts['patch_size']} do not divide. Choose another model."
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
        if int(width * tower["mlp_ratio"]) != inner:  # rounded down to less
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
    """The settings of a tower that are read, each within its bounds."""
    # Configs of before 2023 repeat a tower's settings under a second name, which wins.
    said = [_table(found, key, name) for key in (part, f"{part}_dict")]
    layers = [dict(defaults), said[0]]
    if said[1]:
        layers += [dict(defaults), said[1]]
    settings: dict[str, Any] = {}
    for layer in layers:
        settings |= {k: v for k, v in layer.items() if k in checks and v is not None}
    for key, value in settings.items():
        if not checks[key](value):
            raise _refused(name, f"{part}.{key}", value)
    return settings


def _table(found: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    value = found.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refused(name, key, value)
    _refuse_code(value, name, f"{key}.")
    return value


def _read_preprocess(folder: Path, name: str, family: str, image_size: int) -> dict[str, Any]:
    """Size, channel statistics and resizing, as open_clip writes them."""
    for file in PREPROCESS_FILES:
        if (folder / file).is_file():
            found = _read(folder / file, name)
            found = found if file == PREPROCESS_FILES[0] else _table(found, "image_processor", name)
            if found:
                break
    else:
        _log.warning(
            '"%s" has no preprocessor_config.json; its pictures are prepared as %s prepares them '
            "by default.",
            name,
            FAMILIES[family],
        )
        found = {}
    siglip = family == "siglip"
    statistics = _HALF if siglip else _OPENAI
    facts = {
        **{"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3},
        **{"do_center_crop": not siglip, "rescale_factor": 1 / 255},
        "size": {"height": 224, "width": 224} if siglip else {"shortest_edge": 224},
        **{"crop_size": 224, "image_mean": statistics["mean"], "image_std": statistics["std"]},
    }
    if not found:
        facts |= {"size": image_size, "crop_size": image_size}
    facts |= {key: value for key, value in found.items() if key in facts and value is not None}
    if facts["do_resize"] is not True or facts["do_rescale"] is not True:
        raise _refused(name, "do_resize or do_rescale", False)
    if not number(0.0039, 0.0040)(facts["rescale_factor"]):
        raise _refused(name, "rescale_factor", facts["rescale_factor"])
    if not isinstance(facts["resample"], int) or facts["resample"] not in _FILTERS:
        raise _refused(name, "resample", facts["resample"])
    if facts["do_normalize"] is not True:
        facts |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    for key, least in (("image_mean", -1e6), ("image_std", 1e-6)):
        if not several(number(least), 3)(facts[key]):
            raise _refused(name, key, facts[key])
    return {
        "size": image_size,
        "mean": facts["image_mean"],
        "std": facts["image_std"],
        "interpolation": _FILTERS[facts["resample"]],
        # transformers cuts the centre of an odd border one pixel ahead of open_clip.
        "centre": "floor",
        "resize_mode": _resize_mode(facts, image_size, siglip, name),
    }


def _resize_mode(facts: Mapping[str, Any], image_size: int, siglip: bool, name: str) -> str:
    size, crop = facts["size"], facts["crop_size"]
    if PIXELS(size):  # a number alone: the short side where there is a crop, else both
        size = {"height": size, "width": size} if siglip else {"shortest_edge": size}
    crop = {"height": crop, "width": crop} if PIXELS(crop) else crop
    square = {"height": image_size, "width": image_size}
    cropped = facts["do_center_crop"] is True
    if size == square and (not cropped or crop == square):
        return "squash"
    if size == {"shortest_edge": image_size} and cropped and crop == square:
        return "shortest"
    raise ModelError(
        f'The preprocessing of "{name}" resizes to {_show(size)} and crops to {_show(crop)} for a '
        f"model that sees {image_size} pixels; expected a resize of the short side to "
        f"{image_size} with a centre crop, or to a square. Correct preprocessor_config.json."
    )


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        found = read_json(path, LARGEST)
        if not isinstance(found, dict):
            raise ValueError("it is no table of settings")
    except (OSError, ValueError) as error:
        raise ModelError(
            f'"{path.name}" of "{name}" cannot be read ({error}). Expected the file that '
            "transformers writes; copy it again."
        ) from error
    _refuse_code(found, name)
    return found


def _refuse_code(found: Mapping[str, Any], name: str, where: str = "") -> None:
    for key in CODE:
        if found.get(key):
            raise ModelError(
                f'The config of "{name}" names Python code of its own ({where}{key}), which is '
                "never run. Choose a model that works without it."
            )


def _refused(name: str, key: str, value: object) -> ModelError:
    return ModelError(
        f'The config of "{name}" sets "{key}" to {_show(value)}, which is no value that is read. '
        "Choose another model, or correct the config if it is yours."
    )


def _show(value: object) -> str:
    return f"{value!r:.60}".encode("unicode_escape").decode()
