"""Where the tokens of K prompts go when they share work: the plan of the shared-prefix path.

Tokens that all prompts begin with are kept once, in row 0. Prompts that begin alike behind them
("black swan", "black grouse") keep their common tokens once too, as a tree of tokens: each token
sees its ancestors alone. Trees are laid into n rows of equal length R, several a row.

For the 1,000 ImageNet names under "a photo of a" this makes 4,032 tokens, padding included,
instead of 77,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from tpt.prompts.token_rows import PromptRows

_STEP = 8  # rows are a multiple of this long: what matrix units like

_Tree = list[tuple[int, int]]
"""Prompts of a tree: (class, number of first own tokens it shares with the prompt before it)."""


@dataclass(frozen=True)
class PackingPlan:
    """The place of every token of K prompts in the rows. Built once a class list."""

    shared: int  # P, the first tokens of row 0
    rows: int  # n
    length: int  # R
    ids: Tensor  # (n R,) token ids, placeholders included; 0 for padding
    columns: Tensor  # (n R,) column of each token in its prompt
    real: Tensor  # (n R,) False for padding
    slot_tokens: Tensor  # (m,) packed tokens that are context vectors
    slot_rows: Tensor  # (m,) their class, where contexts are class-specific
    slot_vectors: Tensor  # (m,) which vector each is
    hidden: Tensor  # (n, 1, R, P + R) 0, or -inf for what a token does not see
    ends: Tensor  # (K,) packed place of each class's end token

    def to(self, device: torch.device) -> PackingPlan:
        """The same plan with its tensors on a device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def plan_packing(rows: PromptRows, ends: Tensor, class_specific: bool) -> PackingPlan:
    """Lay K prompts into rows, sharing what may be shared.

    Args:
        rows: token ids (K, L) and context columns (K, M).
        ends: (K,) column of each prompt's end token, the last one that is computed.
        class_specific: context vectors differ between classes, so they are never shared.
    """
    ids, slots, ends = rows.ids.cpu(), rows.slots.cpu(), ends.cpu()
    classes, vectors = torch.arange(len(ids)), torch.arange(slots.shape[1])
    which = torch.full_like(ids, -1).scatter_(1, slots, vectors.expand_as(slots))
    # What prompts have in common: words by their ids, vectors by numbers below 0.
    tokens = torch.where(which < 0, ids, -1 - which)
    if class_specific:
        tokens -= (which >= 0) * len(vectors) * classes.unsqueeze(1)
    same = (tokens == tokens[:1]).all(0)
    # Every prompt keeps at least its end token for itself.
    shared = min(int(same.int().cumprod(0).sum()), int(ends.min()))
    own = [row[shared : end + 1] for row, end in zip(tokens.tolist(), ends.tolist(), strict=True)]
    length, trees, row_of = fill_rows(own, shared)
    places = _place(own, shared, length, trees, row_of)  # (K, W)

    count = 1 + max(row_of)
    owner = torch.full((count * length,), -1)  # a class that has this token; -1 for padding
    column = torch.zeros_like(owner)
    has, depth = (places >= 0).nonzero(as_tuple=True)
    owner[places[has, depth]], column[places[has, depth]] = has, shared + depth
    owner[:shared], column[:shared] = 0, torch.arange(shared)
    real, owner = owner >= 0, owner.clamp(min=0)
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
        hidden=_hide(places[owner], column - shared, shared, length),
        ends=places[classes, ends - shared],
    )


def fill_rows(own: Sequence[list[int]], shared: int) -> tuple[int, list[_Tree], list[int]]:
    """(R, trees, the row of each tree) for prompts with these own tokens.

    Row 0 begins with the shared tokens. Of the row lengths from the longest prompt's to twice
    that, the one with the fewest tokens, padding included, is taken.
    """
    order = sorted(range(len(own)), key=lambda place: own[place])

    def fill(length: int) -> tuple[int, list[_Tree], list[int]]:
        trees, sizes = _grow_trees(own, order, length)
        return length, trees, _fill(sizes, length, shared)

    least = -(-max(*map(len, own), shared, 1) // _STEP) * _STEP
    tried = map(fill, range(least, 2 * least + 1, _STEP))
    return min(tried, key=lambda found: found[0] * (1 + max(found[2])))


def _grow_trees(
    own: Sequence[list[int]], order: Sequence[int], most: int
) -> tuple[list[_Tree], list[int]]:
    """Trees of at most `most` tokens from prompts in sorted order, and how many tokens each has."""
    trees: list[_Tree] = []
    sizes: list[int] = []
    before: list[int] = []
    for place in order:
        tokens = own[place]
        pairs = zip(before, tokens[:-1], strict=False)  # an end token is a class's own
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common and sizes[-1] + len(tokens) - common <= most:
            trees[-1].append((place, common))
            sizes[-1] += len(tokens) - common
        else:
            trees.append([(place, 0)])
            sizes.append(len(tokens))
        before = tokens
    return trees, sizes


def _fill(sizes: Sequence[int], length: int, shared: int) -> list[int]:
    """The row of each tree, in rows of `length` tokens; row 0 begins with the shared ones.

    The largest trees choose first, each the fullest row that has room.
    """
    row_of = [0] * len(sizes)
    by_room: list[list[int]] = [[] for _ in range(length + 1)]  # open rows by the room they have
    by_room[length - shared].append(0)
    opened = 1
    for tree in sorted(range(len(sizes)), key=lambda tree: -sizes[tree]):
        room = next((room for room in range(sizes[tree], length + 1) if by_room[room]), None)
        if room is None:
            room, row, opened = length, opened, opened + 1
        else:
            row = by_room[room].pop()
        by_room[room - sizes[tree]].append(row)
        row_of[tree] = row
    return row_of


def _place(
    own: Sequence[list[int]],
    shared: int,
    length: int,
    trees: Sequence[_Tree],
    row_of: Sequence[int],
) -> Tensor:
    """Packed places (K, W) of the prompts' own tokens, -1 behind their ends."""
    places = torch.full((len(own), max(map(len, own))), -1)
    free = [row * length for row in range(1 + max(row_of))]
    free[0] = shared
    for tree, row in zip(trees, row_of, strict=True):
        before = tree[0][0]
        for place, common in tree:
            added = len(own[place]) - common
            places[place, :common] = places[before, :common]
            places[place, common : common + added] = torch.arange(free[row], free[row] + added)
            free[row] += added
            before = place
    return places


def _hide(chains: Tensor, depths: Tensor, shared: int, length: int) -> Tensor:
    """What packed tokens do not see: (n, 1, R, P + R), -inf there and 0 elsewhere.

    A token sees the shared ones, its ancestors and itself. Shared tokens see those before them.
    Padding sees at least itself, so that its numbers stay finite.

    Args:
        chains: (n R, W) places of the own tokens of a prompt that has this token.
        depths: (n R,) which of them it is, below 0 for shared tokens and padding.
    """
    itself = torch.arange(len(depths)).unsqueeze(1)
    passed = torch.arange(chains.shape[1]) <= depths.unsqueeze(1)
    seen = torch.zeros(len(depths), length, dtype=torch.bool)
    seen.scatter_(1, itself % length, True)
    seen.scatter_(1, torch.where(passed, chains, itself) % length, True)
    seen[:shared, :shared] = torch.ones(shared, shared, dtype=torch.bool).tril()
    ahead = torch.ones(len(depths), shared, dtype=torch.bool)
    ahead[:shared] = False  # they see themselves in their own row
    seen = torch.cat([ahead, seen], dim=-1).view(-1, 1, length, shared + length)
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
