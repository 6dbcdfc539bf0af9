"""Rename and reshape the tensors of `transformers`' CLIP models as open_clip has them.

No number changes: queries, keys and values are concatenated and the projections transposed, so a
model has the same digest in both forms.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_VISION = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # misspelt there
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
}
_TEXT = {
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.head.": "text_projection.",
    "text_projection.weight": "text_projection",
}
_TRUNK = "visual.trunk."
_SIGLIP_VISION = {
    "vision_model.embeddings.patch_embedding.": f"{_TRUNK}patch_embed.proj.",
    "vision_model.embeddings.position_embedding.weight": f"{_TRUNK}pos_embed",
    "vision_model.post_layernorm.": f"{_TRUNK}norm.",
    "vision_model.encoder.layers.": f"{_TRUNK}blocks.",
    "vision_model.head.probe": f"{_TRUNK}attn_pool.latent",
    "vision_model.head.attention.out_proj.": f"{_TRUNK}attn_pool.proj.",
    "vision_model.head.attention.in_proj_": f"{_TRUNK}attn_pool.in_proj_",
    "vision_model.head.layernorm.": f"{_TRUNK}attn_pool.norm.",
    "vision_model.head.mlp.": f"{_TRUNK}attn_pool.mlp.",
}
_PREFIXES = {
    "clip": _VISION | _TEXT,
    "siglip": _SIGLIP_VISION | {old: f"text.{new}" for old, new in _TEXT.items()},
    "chinese_clip": _VISION
    | {"text_model.": "text.transformer.", "text_projection.": "text.proj."},
}
_BLOCK = {
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}
_TRUNK_BLOCK = {
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.out_proj.": ".attn.proj.",
}
_TRANSPOSED = ("text_projection", "visual.proj")
_DROPPED = (".position_ids", ".token_type_ids")  # counters in old files, not learned
_POOLER = "text_model.pooler."  # Chinese-CLIP's files may hold one that is never used


def to_open_clip(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The tensors under open_clip's names; an unknown tensor keeps its name.

    Args:
        state: by their names in `transformers`.
        family: "clip", "siglip" or "chinese_clip".
    """
    parts: dict[str, Tensor] = {}
    for name, tensor in state.items():
        unused = family == "chinese_clip" and name.startswith(_POOLER)
        if not (name.endswith(_DROPPED) or unused):
            parts[_rename(name, _PREFIXES[family])] = tensor
    named: dict[str, Tensor] = {}
    for name, tensor in parts.items():
        if ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue  # concatenated to its query
        if ".self_attn.q_proj." in name:
            each = [parts.get(name.replace(".q_proj.", f".{kind}_proj.")) for kind in "qkv"]
            kind = name.rsplit(".", 1)[1]
            joined = "attn.qkv." if name.startswith(_TRUNK) else "attn.in_proj_"
            name = name.split("self_attn.q_proj.")[0] + joined + kind
            tensor = torch.cat([part for part in each if part is not None])
        if name.startswith(f"{_TRUNK}attn_pool.in_proj_"):
            kind, third = name.rsplit("_", 1)[1], len(tensor) // 3
            named[f"{_TRUNK}attn_pool.q.{kind}"] = tensor[:third]
            named[f"{_TRUNK}attn_pool.kv.{kind}"] = tensor[third:]
            continue
        if name in _TRANSPOSED:
            tensor = tensor.T
        elif name == f"{_TRUNK}pos_embed":
            tensor = tensor.unsqueeze(0)
        elif name in ("logit_scale", "logit_bias"):
            tensor = tensor.reshape(())
        named[name] = tensor
    return named


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    inner = _TRUNK_BLOCK if name.startswith(_TRUNK) else _BLOCK
    if ".attn_pool." not in name:
        for old, new in inner.items():
            name = name.replace(old, new)
    return name
