"""The shared-prefix packed text path: exact class features from the tokens that matter.

In a causal text tower a token never sees what follows it. So

1. what all prompts begin with (start mark and context) is computed once, not K times;
2. nothing after the end token, where the feature is read, is computed at all;
3. the rest of all prompts is laid end to end: LayerNorm, projections and MLP run on one
   (B, P + T, D) tensor of real tokens, with no padding anywhere. Prompts are sorted by length,
   so that attention inside a prompt is a plain batched product over prompts of equal length;
4. in the last layer only the end tokens ask questions, so the other tokens stop at their keys
   and values.

For the 1,000 ImageNet names this is about 4,170 tokens in place of 77,000. The numbers are those
of the full-length path up to floating-point rounding; the tests hold the two against each other.

Shapes: B contexts, K classes, M vectors, D width, H heads, P shared tokens, T packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.model.clip import Clip, TextTower
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
    up: nn.Module
    activation: nn.Module
    down: nn.Module
    scale_2: nn.Module


@dataclass(frozen=True)
class Bucket:
    """`count` prompts of `length` own tokens each, packed from token `start` on (after P)."""

    start: int
    count: int
    length: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True)
class PackingPlan:
    """Where every token of K prompts stands in the packed tensor. Built once a class list."""

    shared: int  # P
    ids: Tensor  # (P + T,) token ids, placeholders included
    columns: Tensor  # (P + T,) column of each token in its prompt
    slot_tokens: Tensor  # (n,) packed tokens that are context vectors
    slot_rows: Tensor  # (n,) their class (0 for shared tokens)
    slot_vectors: Tensor  # (n,) which vector stands there
    buckets: tuple[Bucket, ...]
    ends: Tensor  # (K,) packed place of each end token, in packed class order
    order: Tensor  # (K,) place of each class in packed class order


class PackedEncoder:
    """Class features by the shared-prefix packed path.

    `encoder(vectors)` maps (B, M, D) contexts, or (B, K, M, D) class-specific ones, to unit
    features (B, K, E), differentiably in `vectors`. Residual sums, norms and softmax are float32
    whatever the precision of the weights.
    """

    def __init__(self, clip: Clip, rows: PromptRows, class_specific: bool) -> None:
        tower = clip.text
        plan = plan_packing(rows, pooled_columns(clip, rows.ids), class_specific)
        self.plan = _to_device(plan, clip.device)
        self.heads = tower.transformer.resblocks[0].attn.num_heads  # type: ignore[index, union-attr]
        self.blocks = [_read_block(b) for b in tower.transformer.resblocks]  # type: ignore[union-attr]
        self.final = _read_norm(tower.ln_final)
        self.projection = tower.projection
        self.tokens, self.places = _embed(tower, self.plan)

    def __call__(self, vectors: Tensor) -> Tensor:
        x = self._put_in(vectors)  # (B, P + T, D)
        for block in self.blocks[:-1]:
            x = x + block.scale_1(self._attend(block, block.norm_1(x), None))
            x = _feed_forward(block, x)
        last, ends = self.blocks[-1], self.plan.ends
        x = x[:, ends] + last.scale_1(self._attend(last, last.norm_1(x), ends))  # (B, K, D)
        x = self.final(_feed_forward(last, x))[:, self.plan.order]
        return F.normalize(self._project(x), dim=-1)

    def _put_in(self, vectors: Tensor) -> Tensor:
        """Token embeddings of all packed tokens with the context in its places."""
        plan, batch = self.plan, len(vectors)
        base = (self.tokens + self.places).expand(batch, -1, -1)
        if len(plan.slot_tokens) == 0:
            return base
        if vectors.ndim == 4:
            picked = vectors[:, plan.slot_rows, plan.slot_vectors]
        else:
            picked = vectors[:, plan.slot_vectors]
        return base.index_copy(1, plan.slot_tokens, picked + self.places[plan.slot_tokens])

    def _attend(self, block: Block, h: Tensor, ends: Tensor | None) -> Tensor:
        """Attention of all tokens, or of the end tokens alone in the last layer."""
        width = h.shape[-1]
        if ends is None:
            q, k, v = _linear(h, block.in_weight, block.in_bias).chunk(3, dim=-1)
        else:
            bias_q = bias_kv = None
            if block.in_bias is not None:
                bias_q, bias_kv = block.in_bias[:width], block.in_bias[width:]
            q = _linear(h[:, ends], block.in_weight[:width], bias_q)
            k, v = _linear(h, block.in_weight[width:], bias_kv).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        q = q * (width // self.heads) ** -0.5
        mixed = self._mix(q, k, v) if ends is None else self._mix_ends(q, k, v)
        return _apply(block.out, mixed.transpose(1, 2).flatten(-2))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention, (B, H, P + T, D / H) each: shared tokens, then every bucket."""
        shared = self.plan.shared
        k_shared, v_shared = k[:, :, :shared], v[:, :, :shared]
        scores = q[:, :, :shared] @ k_shared.transpose(-1, -2)
        parts = [_causal(scores).softmax(-1) @ v_shared]
        q, k, v = q[:, :, shared:], k[:, :, shared:], v[:, :, shared:]
        for bucket in self.plan.buckets:
            own_q, own_k, own_v = (_rows(t, bucket) for t in (q, k, v))  # (B, H, n, l, D / H)
            to_shared = (q[:, :, bucket.tokens] @ k_shared.transpose(-1, -2)).unflatten(
                2, (bucket.count, bucket.length)
            )
            own = _causal(own_q @ own_k.transpose(-1, -2))
            weights = torch.cat([to_shared, own], dim=-1).softmax(-1)  # (B, H, n, l, P + l)
            mixed = weights[..., :shared].flatten(2, 3) @ v_shared
            parts.append(mixed + (weights[..., shared:] @ own_v).flatten(2, 3))
        return torch.cat(parts, dim=2)

    def _mix_ends(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the end tokens, q (B, H, K, D / H), over all that stands before them."""
        shared = self.plan.shared
        k_shared, v_shared = k[:, :, :shared], v[:, :, :shared]
        k, v = k[:, :, shared:], v[:, :, shared:]
        to_shared = q @ k_shared.transpose(-1, -2)  # (B, H, K, P)
        parts, first = [], 0
        for bucket in self.plan.buckets:
            here = slice(first, first + bucket.count)
            own_k, own_v = _rows(k, bucket), _rows(v, bucket)
            own = (q[:, :, here].unsqueeze(-2) @ own_k.transpose(-1, -2)).squeeze(-2)
            weights = torch.cat([to_shared[:, :, here], own], dim=-1).softmax(-1)
            own_mixed = (weights[..., shared:].unsqueeze(-2) @ own_v).squeeze(-2)
            parts.append(weights[..., :shared] @ v_shared + own_mixed)
            first += bucket.count
        return torch.cat(parts, dim=2)

    def _project(self, x: Tensor) -> Tensor:
        if self.projection is None:
            return x
        if isinstance(self.projection, nn.Linear):
            return _apply(self.projection, x)
        return (x.to(self.projection.dtype) @ self.projection).float()


def plan_packing(rows: PromptRows, ends: Tensor, class_specific: bool) -> PackingPlan:
    """Lay K prompts end to end behind what they share.

    Args:
        rows: token ids (K, L) and context columns (K, M).
        ends: (K,) column of each prompt's end token, the last one that is computed.
        class_specific: context vectors differ between classes, so they are never shared.
    """
    ids, slots = rows.ids.cpu(), rows.slots.cpu()
    which = torch.full_like(ids, -1).scatter_(
        1, slots, torch.arange(slots.shape[1]).expand_as(slots)
    )
    same = (ids == ids[:1]).all(0) & (which == which[:1]).all(0)
    if class_specific:
        same &= (which < 0).all(0)
    # Every prompt keeps at least its end token for itself.
    shared = min(int(same.int().cumprod(0).sum()), int(ends.min()))
    lengths = ends - shared + 1
    by_length = lengths.argsort(stable=True)
    columns = [torch.arange(shared)]
    classes = [torch.zeros(shared, dtype=torch.long)]
    for row in by_length.tolist():
        columns.append(torch.arange(shared, int(ends[row]) + 1))
        classes.append(torch.full((int(lengths[row]),), row))
    column, owner = torch.cat(columns), torch.cat(classes)
    vector = which[owner, column]
    slot_tokens = (vector >= 0).nonzero().flatten()
    buckets, start = [], 0
    for length, count in zip(*lengths.unique(return_counts=True), strict=True):
        buckets.append(Bucket(start, int(count), int(length)))
        start += int(count) * int(length)
    return PackingPlan(
        shared=shared,
        ids=ids[owner, column],
        columns=column,
        slot_tokens=slot_tokens,
        slot_rows=owner[slot_tokens],
        slot_vectors=vector[slot_tokens],
        buckets=tuple(buckets),
        ends=shared - 1 + lengths[by_length].cumsum(0),
        order=by_length.argsort(),
    )


def _to_device(plan: PackingPlan, device: torch.device) -> PackingPlan:
    tensors = {k: v.to(device) for k, v in vars(plan).items() if isinstance(v, Tensor)}
    return replace(plan, **tensors)  # type: ignore[arg-type]


def _embed(tower: TextTower, plan: PackingPlan) -> tuple[Tensor, Tensor]:
    """Token and positional embeddings (P + T, D) of the packed tokens, float32."""
    with torch.no_grad():
        tokens = tower.token_embedding.weight[plan.ids].float()
        places = tower.positional_embedding[plan.columns].float()
    tokens[plan.slot_tokens] = 0
    return tokens, places


def _rows(x: Tensor, bucket: Bucket) -> Tensor:
    """(B, H, T, d) -> (B, H, n, l, d): a bucket's prompts, one beside the other."""
    return x[:, :, bucket.tokens].unflatten(2, (bucket.count, bucket.length))


def _causal(scores: Tensor) -> Tensor:
    """Scores (..., l, l) with what comes later hidden."""
    length = scores.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, float("-inf"))


def _feed_forward(block: Block, x: Tensor) -> Tensor:
    hidden = block.activation(_apply(block.up, block.norm_2(x)))
    return x + block.scale_2(_apply(block.down, hidden))


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
