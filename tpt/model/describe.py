"""Describe a loaded model: kind, towers, sizes, preprocessing, digest and its image tower's cost.

The text side's cost is in `tpt.prompts.operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tpt.model._archive import KIND
from tpt.model._hf_json import FAMILIES
from tpt.model._towers import ImageTower
from tpt.model.clip import Clip

VIEWS = 64


@dataclass(frozen=True)
class ModelCard:
    """The facts that `tpt models show` prints, in its order."""

    name: str
    pretrained: str | None
    kind: str  # the format of the weights
    image_tower: str
    text_tower: str
    image_parameters: int
    text_parameters: int
    width: int  # D, of a token and a context vector
    embedding_width: int  # E, of the features
    context_length: int  # tokens a prompt may have
    text_path: str  # "shared-prefix" or "full-length"
    logit_scale: float
    image_size: tuple[int, int]  # height, width
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize: str
    precision: str
    digest: str | None
    operations: int  # of the image tower for 64 views; a multiply-add counts as two


def describe_model(clip: Clip) -> ModelCard:
    """The facts of a model that `load_clip` loaded. It encodes one picture, to count operations."""
    visual: Any = clip.model.visual
    image = sum(p.numel() for p in visual.parameters())
    facts = clip.preprocess
    return ModelCard(
        name=clip.name or type(clip.model).__name__,
        pretrained=clip.pretrained,
        kind=_kind(clip),
        image_tower=_image_tower(clip),
        text_tower=_text_tower(clip),
        image_parameters=image,
        text_parameters=sum(p.numel() for p in clip.model.parameters()) - image,
        width=clip.width,
        embedding_width=clip.embedding_width,
        context_length=clip.context_length,
        text_path="shared-prefix" if clip.text.packable else "full-length",
        logit_scale=clip.logit_scale,
        image_size=facts.size,
        mean=facts.mean,
        std=facts.std,
        interpolation=facts.interpolation,
        resize=facts.resize_mode,
        precision=str(clip.dtype).removeprefix("torch."),
        digest=clip.digest,
        operations=VIEWS * count_operations(clip),
    )


def count_operations(clip: Clip) -> int:
    """Operations of the matrix products that one view costs in the image tower."""
    view = torch.zeros(1, 3, *clip.preprocess.size, device=clip.device, dtype=clip.dtype)
    with torch.enable_grad(), count_products() as counter:
        # With a gradient, attention is not one fused call, which would not be counted.
        clip._image_tower(view.requires_grad_())
    return int(counter.get_total_flops())


def count_products() -> FlopCounterMode:
    """A counter of the operations of matrix products, attention included."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    mapping = {  # torch's counter lacks a CPU's fused attention
        fused: lambda *shapes, **others: int(sdpa_flop_count(*shapes[:3])),
        back: lambda *shapes, **others: int(sdpa_backward_flop_count(*shapes[:4])),
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _kind(clip: Clip) -> str:
    kind = clip.config.kind if clip.config is not None else ""
    if kind in FAMILIES:
        return f"transformers {FAMILIES[kind]}"
    return "OpenAI archive" if kind == KIND else "open_clip"


def _image_tower(clip: Clip) -> str:
    visual: Any = clip.model.visual
    facts = clip.config.model["vision_cfg"] if clip.config is not None else {}
    layers, width = facts.get("layers"), facts.get("width")
    if "timm_model_name" in facts and not width:
        return f"timm {facts['timm_model_name']}"
    name = type(visual).__name__
    if isinstance(visual, ImageTower):
        name = "VisionTransformer with attention pooling"
    if isinstance(layers, (list, tuple)):
        return f"{name}, layers {'-'.join(map(str, layers))}, width {width}"
    if not facts:
        return name
    patch = facts.get("patch_size") or 16
    return f"{name}, {layers or 12} layers, width {width or 768}, patches of {patch}"


def _text_tower(clip: Clip) -> str:
    facts = clip.config.text if clip.config is not None else {}
    if facts.get("hf_model_name"):
        return f"transformers {facts['hf_model_name']}"
    name = "BERT" if facts.get("tower") == "bert" else "Transformer"
    causal = ", causal" if clip.text.packable else ""
    layers, heads = facts.get("layers", 12), facts.get("heads", 8)
    return f"{name}, {layers} layers, {heads} heads, width {clip.width}{causal}"
