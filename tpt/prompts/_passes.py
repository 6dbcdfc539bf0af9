"""Split the text side into passes whose autograd graphs fit into memory.

If the graph of all prompts would be too large, each pass keeps only its inputs and is computed
again for its gradient (Tianqi Chen et al., 1604.06174). That takes a third more time, and memory
that does not grow with the number of classes or contexts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tpt.model.clip import Clip

MOST_BYTES = 4 * 2**30
"""The largest graph that is kept whole."""

_NUMBERS = 20
"""What the graph holds for a token and a layer, in widths of the tower: the inputs of two norms,
queries, keys, values, their mixture, and the MLP's hidden layer before and after its activation."""


def bytes_of_graph(clip: Clip, tokens: int) -> int:
    """About how many bytes the float32 graph of a forward pass over `tokens` text tokens holds."""
    weights = sum(weight.numel() for weight in clip.text.transformer.parameters())
    layers = max(1, round(weights / (12 * clip.width**2)))
    return max(1, tokens) * layers * clip.width * _NUMBERS * 4


def encode_in_passes(
    encode: Callable[..., Tensor], tensors: tuple[Tensor, ...], bytes_a_row: int, most_rows: int
) -> Tensor:
    """`encode(*tensors)`, which maps n rows to n rows, in passes that fit into memory.

    Args:
        encode: computes some rows.
        tensors: its arguments, of n rows each; the last may require a gradient.
        bytes_a_row: how much the graph of a row holds.
        most_rows: rows of a pass, also if no graph is kept.
    """
    rows = len(tensors[0])
    again = torch.is_grad_enabled() and tensors[-1].requires_grad and rows > 1
    again = again and rows * bytes_a_row > MOST_BYTES
    size = max(1, MOST_BYTES // 2 // bytes_a_row) if again else rows
    parts = list(zip(*(tensor.split(min(size, most_rows)) for tensor in tensors), strict=True))
    if again:
        made = [
            checkpoint(encode, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    else:
        made = [encode(*part) for part in parts]
    return made[0] if len(made) == 1 else torch.cat(made)
