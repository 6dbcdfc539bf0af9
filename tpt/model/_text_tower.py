"""Find a model's text tower, and whether prompts can share its computation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from open_clip import factory
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from tpt.errors import ModelError
from tpt.model._towers import BertTower


@dataclass(frozen=True)
class TextTower:
    """The parts of a text tower, the same for every model class.

    `packable` says whether the exact fast path applies: causal attention, the feature read at the
    end token, plain residual attention blocks. Other towers take the full-length path, which needs
    only the token embedding.
    """

    token_embedding: nn.Embedding
    context_length: int
    embedding_width: int
    masked_id: int | None = None  # the padding's id, if the tower masks padding
    packable: bool = False
    # The fields below are used for open_clip's own transformers only.
    positional_embedding: Tensor = field(default_factory=lambda: torch.empty(0))  # (L, D)
    transformer: nn.Module = field(default_factory=nn.Identity)
    ln_final: nn.Module = field(default_factory=nn.Identity)
    projection: Tensor | nn.Linear | None = None
    pool: str = ""
    eos_id: int | None = None


def find_text_tower(model: nn.Module, length: int | None = None) -> TextTower:
    """Locate the text tower's parts in an open_clip model object.

    Args:
        length: the tokenizer's context length; only towers of transformers need it.

    Raises:
        ModelError: the model has no text tower of open_clip.
    """
    home: Any = getattr(model, "text", model)
    if isinstance(home, HFTextEncoder) and hasattr(model, "visual"):
        table = home.transformer.get_input_embeddings()
        length = length or factory.DEFAULT_CONTEXT_LENGTH
        return TextTower(table, length, home.output_dim, home.config.pad_token_id)
    if isinstance(home, BertTower):
        return TextTower(home.token_embedding, home.context_length, home.output_dim, home.pad_id)
    prefix = "" if isinstance(home, TextTransformer) else "text_"
    pool = getattr(home, f"{prefix}pool_type", "")
    if not pool or not hasattr(home, "transformer") or not hasattr(model, "visual"):
        raise ModelError(
            f"The text tower of {type(model).__name__} is a {type(home).__name__}; context vectors "
            "can only enter the text towers of open_clip's models, not a model of another library. "
            "Save it and load its folder with tpt.load_clip, or choose another: `tpt models`."
        )
    packable = (
        home.attn_mask is not None
        and getattr(home, "cls_emb", None) is None
        and pool in ("argmax", "eos")
        and all(is_plain_block(block) for block in home.transformer.resblocks)
    )
    projection, width = home.text_projection, home.token_embedding.embedding_dim
    if projection is not None:
        linear = isinstance(projection, nn.Linear)
        width = projection.out_features if linear else projection.shape[1]
    return TextTower(
        token_embedding=home.token_embedding,
        positional_embedding=home.positional_embedding,
        transformer=home.transformer,
        ln_final=home.ln_final,
        projection=projection,
        pool=pool,
        eos_id=getattr(home, f"{prefix}eos_id", None),
        context_length=home.context_length,
        packable=packable,
        embedding_width=width,
    )


def is_plain_block(block: nn.Module) -> bool:
    """Whether a transformer block is open_clip's usual one, whose steps can be taken apart."""
    return (
        type(block) is ResidualAttentionBlock
        and isinstance(block.attn, nn.MultiheadAttention)
        and block.attn.in_proj_weight is not None
        and isinstance(block.ln_1, nn.LayerNorm)
        and isinstance(block.ln_2, nn.LayerNorm)
    )
