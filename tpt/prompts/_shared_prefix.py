"""The shared-prefix packed text path: exact class features from the tokens that matter.

In a causal text tower a token never sees what follows it. So

1. what all prompts begin with (start mark and context) is computed once, not K times;
2. nothing after the end token, where the feature is read, is computed at all;
3. the rest of all prompts is laid into n rows of equal length R, several prompts a row, and what
   they share is row 0. LayerNorm, projections and MLP run on one (B, n R, D) tensor in which one
   or two percent are padding; attention is one masked product a layer, each row over itself and
   the shared tokens;
4. in the last layer only the end tokens go on behind the attention, and in the first one queries,
   keys and values of words, which no context has changed yet, are computed once a class list.

For the 1,000 ImageNet names this is about 4,200 tokens in place of 77,000. The numbers are those
of the full-length path up to floating-point rounding; the tests hold the two against each other.

Shapes: B contexts, K classes, M vectors, D width, H heads, P shared tokens, n rows of R tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.model._text_tower import TextTower
from tpt.model.clip import Clip
from tpt.prompts._passes import bytes_of_graph, encode_in_passes
from tpt.prompts.token_rows import PromptRows, pooled_columns

_STEP = 8  # rows are a multiple of this long: what matrix units like


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


@dataclass(frozen=True)
class PackingPlan:
    """Where every token of K prompts stands in the rows. Built once a class list."""

    shared: int  # P, the first tokens of row 0
    rows: int  # n
    length: int  # R
    ids: Tensor  # (n R,) token ids, placeholders included; 0 for padding
    columns: Tensor  # (n R,) column of each token in its prompt
    real: Tensor  # (n R,) False for padding
    slot_tokens: Tensor  # (m,) packed tokens that are context vectors
    slot_rows: Tensor  # (m,) their class (0 for shared tokens)
    slot_vectors: Tensor  # (m,) which vector stands there
    hidden: Tensor  # (n, 1, R, P + R) 0, or -inf for what a token does not see
    ends: Tensor  # (K,) packed place of each class's end token


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


def plan_packing(rows: PromptRows, ends: Tensor, class_specific: bool) -> PackingPlan:
    """Lay K prompts into rows behind what they share.

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
    lengths = (ends - shared + 1).tolist()
    length, row_of = fill_rows(lengths, shared)
    count = 1 + max(row_of)
    owner = torch.full((count, length), -1)  # the class of each token; for shared ones any
    column = torch.zeros(count, length, dtype=torch.long)
    part = torch.full((count, length), -1)  # prompts of a row do not see one another
    owner[0, :shared], column[0, :shared], part[0, :shared] = 0, torch.arange(shared), len(ids)
    end_tokens = torch.empty(len(ids), dtype=torch.long)
    used = [0] * count
    for place, (own, row) in enumerate(zip(lengths, row_of, strict=True)):
        here = slice(used[row], used[row] + own)
        owner[row, here], part[row, here] = place, place
        column[row, here] = torch.arange(shared, shared + own)
        used[row] += own
        end_tokens[place] = row * length + used[row] - 1
    real = owner.flatten() >= 0
    owner, column = owner.flatten().clamp(min=0), column.flatten()
    vector = torch.where(real, which[owner, column], -1)
    slot_tokens = (vector >= 0).nonzero().flatten()
    return PackingPlan(
        shared=shared,
        rows=count,
        length=length,
        ids=torch.where(real, ids[owner, column], 0),
        columns=column,
        real=real,
        slot_tokens=slot_tokens,
        slot_rows=owner[slot_tokens],
        slot_vectors=vector[slot_tokens],
        hidden=_hide(part, shared),
        ends=end_tokens,
    )


def fill_rows(lengths: Sequence[int], shared: int) -> tuple[int, list[int]]:
    """(R, the row of each of K prompts with these own lengths); row 0 is for the shared tokens.

    The longest prompts choose their rows first, each the fullest that has room. Of the row lengths
    from the longest prompt's to twice that, the one that pads least is taken.
    """
    least = -(-max(*lengths, shared, 1) // _STEP) * _STEP
    tried = [(length, _fill(lengths, length)) for length in range(least, 2 * least + 1, _STEP)]
    return min(tried, key=lambda found: found[0] * (1 + max(found[1])))


def _fill(lengths: Sequence[int], length: int) -> list[int]:
    """The row of each prompt, counted from 1, in rows of `length` tokens."""
    row_of = [0] * len(lengths)
    by_room: list[list[int]] = [[] for _ in range(length + 1)]  # open rows by the room they have
    opened = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        own = lengths[place]
        room = next((room for room in range(own, length + 1) if by_room[room]), None)
        if room is None:
            opened += 1
            room, row = length, opened
        else:
            row = by_room[room].pop()
        by_room[room - own].append(row)
        row_of[place] = row
    return row_of


def _hide(part: Tensor, shared: int) -> Tensor:
    """What tokens of rows (n, R) do not see: (n, 1, R, P + R), -inf there and 0 elsewhere.

    Prompts see the shared tokens, and themselves up to where they stand. The shared tokens see
    themselves in their own row. Padding sees padding, so that its numbers stay finite.
    """
    count, length = part.shape
    seen = (part.unsqueeze(2) == part.unsqueeze(1)).tril()  # (n, R, R)
    ahead = torch.ones(count, length, shared, dtype=torch.bool)
    ahead[0] = False
    seen = torch.cat([ahead, seen], dim=-1).unsqueeze(1)
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))


def _to_device(plan: PackingPlan, device: torch.device) -> PackingPlan:
    tensors = {k: v.to(device) for k, v in vars(plan).items() if isinstance(v, Tensor)}
    return replace(plan, **tensors)  # type: ignore[arg-type]


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
