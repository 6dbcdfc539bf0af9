"""The shared-prefix packed text path: exact class features from the tokens that matter.

In a causal text tower a token never sees what follows it. So

1. what all prompts begin with (start mark and context) is computed once, not K times;
2. nothing behind the end token, where the feature is read, is computed at all;
3. prompts that begin alike behind that share their first tokens too (`tpt.prompts._packing`). All
   tokens lie in n rows of equal length R, the shared ones first in row 0. LayerNorm, projections
   and MLP run on one (B, n R, D) tensor, less than one percent of it padding for 1,000 classes.
   Attention is one masked product a layer, each row over itself and the shared tokens;
4. in the last layer only the end tokens go on behind the attention, and in the first one queries,
   keys and values of words, which no context has changed yet, are computed once a class list.

For the 1,000 ImageNet names this is 4,032 tokens instead of 77,000. The numbers are those of the
full-length path up to floating-point rounding; the tests hold the two against each other.

Shapes: B contexts, K classes, M vectors, D width, H heads, P shared tokens, n rows of R tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.model._text_tower import TextTower
from tpt.model.clip import Clip
from tpt.prompts._packing import PackingPlan, plan_packing
from tpt.prompts._passes import bytes_of_graph, encode_in_passes
from tpt.prompts.token_rows import PromptRows, pooled_columns


@dataclass(frozen=True)
class Norm:
    """A LayerNorm's constants."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x, (x.shape[-1],), self.weight.float(), bias, self.eps)


@dataclass(frozen=True)
class Block:
    """One residual attention block's constants and activation."""

    norm_1: Norm
    norm_2: Norm
    in_weight: Tensor  # (3 D, D): queries, keys, values
    in_bias: Tensor | None
    out: nn.Module
    scale_1: nn.Module
    up: Any
    activation: nn.Module
    down: Any
    scale_2: nn.Module


class PackedEncoder:
    """Class features by the shared-prefix packed path.

    `encoder(vectors)` maps (B, M, D) contexts, or (B, K, M, D) class-specific ones, to unit
    features (B, K, E), differentiably in `vectors`. Residual sums, norms and softmax are float32
    whatever the precision of the weights.
    """

    def __init__(self, clip: Clip, rows: PromptRows, class_specific: bool) -> None:
        tower = clip.text
        plan = plan_packing(rows, pooled_columns(clip, rows.ids), class_specific)
        self.plan = plan.to(clip.device)
        self.heads = tower.transformer.resblocks[0].attn.num_heads  # type: ignore[index, union-attr]
        self.blocks = [_read_block(b) for b in tower.transformer.resblocks]  # type: ignore[union-attr]
        self.final = _read_norm(tower.ln_final)
        self.projection = tower.projection
        self.words, self.places = _embed(tower, self.plan)
        with torch.no_grad():
            self.first = _project_in(self.blocks[0], self.words)  # (n R, 3 D)
        self.bytes_a_context = bytes_of_graph(clip, len(plan.ids))

    def __call__(self, vectors: Tensor) -> Tensor:
        return encode_in_passes(self._encode, (vectors,), self.bytes_a_context, len(vectors))

    def _encode(self, vectors: Tensor) -> Tensor:
        x, qkv = self._put_in(vectors)  # (B, n R, D), (B, n R, 3 D)
        for block, following in zip(self.blocks, self.blocks[1:], strict=False):
            x = x + block.scale_1(_apply(block.out, self._attend(qkv)))
            x = _feed_forward(block, x)
            qkv = _project_in(following, x)
        last, ends = self.blocks[-1], self.plan.ends
        x = x[:, ends] + last.scale_1(_apply(last.out, self._attend(qkv)[:, ends]))  # (B, K, D)
        return F.normalize(self._project(self.final(_feed_forward(last, x))), dim=-1)

    def _put_in(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """All packed tokens with the context in its places, and the first block's projections."""
        plan, batch = self.plan, len(vectors)
        x, qkv = (t.expand(batch, -1, -1) for t in (self.words, self.first))
        if len(plan.slot_tokens) == 0:
            return x, qkv
        if vectors.ndim == 4:
            picked = vectors[:, plan.slot_rows, plan.slot_vectors]
        else:
            picked = vectors[:, plan.slot_vectors]
        picked = picked + self.places
        own = _project_in(self.blocks[0], picked)
        return x.index_copy(1, plan.slot_tokens, picked), qkv.index_copy(1, plan.slot_tokens, own)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attention (B, n R, D), before its output projection: each row over P and itself."""
        plan, width = self.plan, qkv.shape[-1] // 3
        parts = qkv.view(len(qkv), plan.rows, plan.length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5)  # (B, n, H, R, D / H) each
        k, v = (torch.cat([self._share(t), t], dim=-2) for t in (k, v))
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        mixed = (scores + plan.hidden).softmax(-1) @ v
        return mixed.transpose(2, 3).flatten(3).flatten(1, 2)

    def _share(self, t: Tensor) -> Tensor:
        """The shared tokens of row 0 of (B, n, H, R, d), for every row: (B, n, H, P, d)."""
        return t[:, :1, :, : self.plan.shared].expand(-1, self.plan.rows, -1, -1, -1)

    def _project(self, x: Tensor) -> Tensor:
        if self.projection is None:
            return x
        if isinstance(self.projection, nn.Linear):
            return _apply(self.projection, x)
        return (x.to(self.projection.dtype) @ self.projection).float()


def _embed(tower: TextTower, plan: PackingPlan) -> tuple[Tensor, Tensor]:
    """Packed words (n R, D) with their places, 0 for the context; the context's places (m, D)."""
    with torch.no_grad():
        words = tower.token_embedding.weight[plan.ids].float()
        places = tower.positional_embedding[plan.columns].float()
        words += places
        words[plan.slot_tokens] = 0
    return words, places[plan.slot_tokens]


def _project_in(block: Block, x: Tensor) -> Tensor:
    """Queries, keys and values of tokens (..., D), side by side (..., 3 D)."""
    return _linear(block.norm_1(x), block.in_weight, block.in_bias)


def _feed_forward(block: Block, x: Tensor) -> Tensor:
    # What is widest stays in the type of the weights; residual sums are float32.
    up, down = block.up, block.down
    hidden = F.linear(block.norm_2(x).to(up.weight.dtype), up.weight, up.bias)
    return x + block.scale_2(_apply(down, block.activation(hidden)))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.to(weight.dtype), weight, bias).float()


def _apply(linear: Any, x: Tensor) -> Tensor:
    return _linear(x, linear.weight, linear.bias)


def _read_norm(norm: Any) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps)


def _read_block(block: Any) -> Block:
    return Block(
        norm_1=_read_norm(block.ln_1),
        norm_2=_read_norm(block.ln_2),
        in_weight=block.attn.in_proj_weight,
        in_bias=block.attn.in_proj_bias,
        out=block.attn.out_proj,
        scale_1=block.ls_1,
        up=block.mlp.c_fc,
        activation=block.mlp.gelu,
        down=block.mlp.c_proj,
        scale_2=block.ls_2,
    )
