"""The words nearest to context vectors, to get an idea of a learned prompt.

Kaiyang Zhou et al. (2109.01134), the table of nearest words for the learned context vectors: for
every vector the token embeddings with the smallest Euclidean distance. All tokens count, also end
marks and single bytes. As the paper warns, a vector need not mean what its nearest words mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tpt.errors import PromptError
from tpt.model.clip import Clip

_ROOM = 2**24  # numbers that a pass may hold, 64 MiB as float32
_SPARE = 16  # further candidates; see `_measure`


@dataclass(frozen=True)
class NearWord:
    """A token, and how far its embedding lies from a context vector."""

    word: str
    distance: float  # Euclidean, in the space of token embeddings
    id: int


@torch.no_grad()
def nearest_words(clip: Clip, vectors: Tensor, count: int) -> list[list[NearWord]]:
    """The tokens whose embeddings are nearest to each vector.

    Args:
        clip: the model that the vectors were made for.
        vectors: (n, D); flatten a class-specific context (K, M, D).
        count: how many tokens for each vector, at least 1; all tokens if there are fewer.

    Returns:
        The tokens of each of the n vectors, the nearest first, equally near ones by id. A piece
        that does not end a word ends in "-", as in "arro-" of "arrow".

    Raises:
        PromptError: vectors of another shape or width, or a count below 1.
    """
    if vectors.ndim != 2 or vectors.shape[1] != clip.width:
        raise PromptError(
            f"Vectors of shape {tuple(vectors.shape)} have no nearest words in "
            f"{clip.name or 'this model'}, whose tokens have width {clip.width}; expected "
            f"(n, {clip.width}). Use the model the prompt was made for."
        )
    if count < 1:
        raise PromptError(f"{count} nearest words were asked for; expected at least 1.")
    table = clip.text.token_embedding.weight.float()  # (V, D)
    half = table.square().sum(1) / 2
    found = min(count + _SPARE, len(table))
    passes = max(1, _ROOM // max(len(table), found * clip.width))  # vectors a pass
    read = find_reader(clip.tokenizer)
    return [
        [NearWord(read(i), d, i) for d, i in sorted(row)[:count]]
        for part in vectors.to(table.device, torch.float32).split(passes)
        for row in _measure(part, table, half, found)
    ]


def _measure(
    part: Tensor, table: Tensor, half: Tensor, found: int
) -> list[list[tuple[float, int]]]:
    """(distance, id) of a few candidates for each vector of `part` (n, D).

    The candidates have the smallest |w|^2 / 2 - v.w, which orders tokens as the distance does, for
    one matrix product. Its rounding may swap near ties, so there are spare candidates, and the
    distances themselves are computed from the differences.
    """
    ids = (half - part @ table.T).topk(found, dim=1, largest=False).indices  # (n, found)
    there = table[ids].to("cpu", torch.float64)  # (n, found, D)
    distances = (there - part.to("cpu", torch.float64).unsqueeze(1)).norm(dim=-1)
    pairs = zip(distances.tolist(), ids.tolist(), strict=True)
    return [list(zip(*pair, strict=True)) for pair in pairs]


def find_reader(tokenizer: Any) -> Callable[[int], str]:
    """A function from a token's id to readable text, for any tokenizer.

    CLIP's own pieces are decoded from their bytes; a byte that is not a character becomes `\\xad`.
    Hugging Face tokenizers decode theirs. An id without text is returned as a number.
    """
    if hasattr(tokenizer, "decoder") and hasattr(tokenizer, "byte_decoder"):
        return lambda id: _read_piece(tokenizer, id)
    return lambda id: _read_foreign(getattr(tokenizer, "tokenizer", None), id)


def _read_piece(tokenizer: Any, id: int) -> str:
    """The text of one of CLIP's byte pieces, in which "</w>" ends a word."""
    piece = tokenizer.decoder.get(id)
    if piece is None or id in tokenizer.all_special_ids:
        return piece or str(id)
    text = piece.removesuffix("</w>")
    whole = bytes(tokenizer.byte_decoder[c] for c in text).decode("utf-8", "backslashreplace")
    return whole if piece.endswith("</w>") else f"{whole}-"


def _read_foreign(tokenizer: Any, id: int) -> str:
    """The text of a token of another library's tokenizer."""
    for name in ("decode", "convert_ids_to_tokens"):
        try:
            text = getattr(tokenizer, name)([id])
        except Exception:  # no such function or id; each library has its own errors
            continue
        text = text[0] if isinstance(text, list) and text else text
        if isinstance(text, str) and text.strip():
            return text.strip()
    return str(id)
