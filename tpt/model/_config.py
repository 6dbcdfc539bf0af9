"""A stranger's model config, read through an allow-list.

A config may set the sizes, switches and words listed here and nothing else: no Python class, no
file, no `trust_remote_code`. So building the model and tokenizer of any folder or hub repository
runs only the libraries that this package depends on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpt.errors import ModelError, why
from tpt.text import read_json

LARGEST = 2**20  # bytes of a config; open_clip's own have at most a few thousand

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of open_clip's model classes, and the preprocessing."""

    model: dict[str, Any]
    preprocess: dict[str, Any]
    kind: str = "open_clip"  # the format of the weight file's names

    @property
    def text(self) -> dict[str, Any]:
        """A copy of the text tower's part."""
        return dict(self.model.get("text_cfg") or {})


def whole(most: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= most


def number(least: float = 0, most: float = 1e6) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most


def words(*known: str) -> Check:
    return lambda value: isinstance(value, str) and value in known


def pattern(text: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(text, value) is not None


def several(one: Check, *counts: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) in counts and all(map(one, value))


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


SIZE = whole(65_536)
DEPTH = whole(1_024)
HUB_NAME = pattern(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of the hub; no path
PIXELS = either(whole(16_384), several(whole(16_384), 2))
BLOCK: dict[str, Any] = {
    "width": SIZE,
    "mlp_ratio": number(most=64),
    "ls_init_value": number(-1e6),
    "final_ln_after_pool": flag,
    "pool_type": words("tok", "avg", "none", "first", "last", "argmax", "eos", ""),
    "output_tokens": flag,
    "act_kwargs": {"approximate": words("none", "tanh")},
    "norm_kwargs": {"eps": number(most=1)},
    "block_type": words("default", "custom"),
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"), flag),
    **dict.fromkeys(("scale_attn", "scale_fc"), flag),
}
VISION = BLOCK | {
    "layers": either(DEPTH, several(DEPTH, 4)),
    "head_width": SIZE,
    "patch_size": PIXELS,
    "image_size": PIXELS,
    "patch_dropout": number(most=1),
    "attentional_pool": either(flag, words("parallel", "cascade")),
    "attn_pooler_queries": SIZE,
    "attn_pooler_heads": SIZE,
    "no_ln_pre": flag,
    "pos_embed_type": words("learnable", "sin_cos_2d"),
    "timm_model_name": pattern(r"\w+(\.\w+)?"),  # of timm's own registry, never hf-hub: or a folder
    "timm_model_pretrained": flag,
    "timm_pool": words("", "avg", "avgmax", "max", "map", "token", "abs_attn", "rot_attn"),
    "timm_proj": words("", "linear", "mlp", "none"),
    "timm_proj_bias": flag,
    "timm_drop": number(most=1),
    "timm_drop_path": number(most=1),
}
TEXT = BLOCK | {
    "context_length": whole(8_192),
    "vocab_size": whole(4_000_000),
    "hf_tokenizer_name": HUB_NAME,
    "hf_model_name": HUB_NAME,
    "hf_model_pretrained": flag,
    "hf_proj_type": words("linear", "mlp"),
    "hf_pooler_type": words("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"),
    "tokenizer_mode": words("", "clips"),
    "tokenizer_kwargs": {
        "clean": words("lower", "whitespace", "canonicalize"),
        "strip_sep_token": flag,
    },
    "heads": SIZE,
    "layers": DEPTH,
    "embed_cls": flag,
    "pad_id": whole(4_000_000),
    "eos_id": whole(4_000_000),
    "no_causal_mask": flag,
    "proj_bias": flag,
    "proj_type": words("linear", "none"),
}
POOLER = dict.fromkeys(("dim_head", "n_queries", "attn_pooler_heads"), SIZE)
MODEL = {
    "embed_dim": SIZE,
    "vision_cfg": VISION,
    "text_cfg": TEXT,
    "multimodal_cfg": TEXT | POOLER,
    "quick_gelu": flag,
    "custom_text": flag,
    "init_logit_scale": number(-1e6),
    "init_logit_bias": number(-1e6),
    "nonscalar_logit_scale": flag,
}
PREPROCESS = {
    "size": either(PIXELS, several(whole(16_384), 3)),
    "mode": words("RGB"),
    "mean": several(number(-1e6), 3),
    "std": several(number(1e-6), 3),
    "interpolation": words("bicubic", "bilinear", "random", "nearest", "lanczos"),
    "resize_mode": words("shortest", "longest", "squash"),
    "fill_color": whole(255),
    "centre": words("round", "floor"),  # ours: see Preprocess
}
CONFIG = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}


def read_config(path: Path, name: str) -> ModelConfig:
    """The config in an untrusted file.

    Args:
        path: an `open_clip_config.json`.
        name: of the model, for the errors.

    Raises:
        ModelError: the file cannot be read, or holds a setting or value that is not allowed.
    """
    try:
        found = read_json(path, LARGEST)
        if not isinstance(found, dict) or not isinstance(found.get("model_cfg"), dict):
            raise ValueError("it has no model_cfg")
    except (OSError, ValueError) as error:
        raise ModelError(
            f'The config of "{name}" cannot be read ({why(error)}). Expected the '
            "open_clip_config.json that open_clip writes."
        ) from error
    check_settings(found, CONFIG, name)
    return ModelConfig(found["model_cfg"], found.get("preprocess_cfg") or {})


def check_settings(
    found: Mapping[str, Any], known: Mapping[str, Any], name: str, where: str = ""
) -> None:
    """Refuse settings that are not in `known` or are out of bounds; null counts as absent.

    Raises:
        ModelError: names the first.
    """
    for key, value in found.items():
        allowed, path = known.get(key), f"{where}{key}"
        if allowed is None:
            raise _refused(name, f'it sets "{path}", which is not a known setting')
        if isinstance(allowed, Mapping) and isinstance(value, dict):
            check_settings(value, allowed, name, f"{path}.")
        elif value is not None and (isinstance(allowed, Mapping) or not allowed(value)):
            raise _refused(name, f'it sets "{path}" to {value!r:.60}, which is not allowed')


def _refused(name: str, reason: str) -> ModelError:
    reason = reason.encode("unicode_escape").decode()
    return ModelError(
        f'The config of "{name}" was refused: {reason}. Only sizes, switches and known words are '
        "read from a config, nothing that could run code or read other files. If the model works "
        "without this setting, remove it from open_clip_config.json; else choose another model."
    )
