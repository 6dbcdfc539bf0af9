"""The full-length text path: open_clip's own forward pass with the context inserted.

It works for every open_clip text transformer (bidirectional ones, class-token ones, unusual
blocks), because the model's own code runs: only its lookup of token embeddings is intercepted, to
replace those of the placeholders by the context vectors. A pass costs K x L tokens, or K times the
longest prompt if the tower masks its padding.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tpt.model.clip import Clip
from tpt.prompts._passes import bytes_of_graph, encode_in_passes
from tpt.prompts.token_rows import PromptRows

_ROWS_A_PASS = 512  # bounds memory when no graph is kept


class FullEncoder:
    """Class features by running every prompt at full length.

    `encoder(vectors)` maps (B, M, D) or (B, K, M, D) context vectors to unit features (B, K, E).
    """

    def __init__(self, clip: Clip, rows: PromptRows) -> None:
        self.clip = clip
        self.ids = _cut_padding(rows.ids, clip.text.masked_id).to(clip.device)
        self.slots = rows.slots.to(clip.device)
        self.bytes_a_row = bytes_of_graph(clip, self.ids.shape[1])

    def __call__(self, vectors: Tensor) -> Tensor:
        batch, classes = len(vectors), len(self.ids)
        if vectors.ndim == 3:
            vectors = vectors.unsqueeze(1).expand(-1, classes, -1, -1)
        ids = self.ids.repeat(batch, 1)  # (B * K, L)
        slots = self.slots.repeat(batch, 1)
        tensors = ids, slots, vectors.flatten(0, 1)
        features = encode_in_passes(self._encode, tensors, self.bytes_a_row, _ROWS_A_PASS)
        return F.normalize(features.float(), dim=-1).view(batch, classes, -1)

    def _encode(self, ids: Tensor, slots: Tensor, vectors: Tensor) -> Tensor:
        where = slots.unsqueeze(-1).expand(-1, -1, self.clip.width)
        with _Inserting(self.clip.text.token_embedding.weight, where, vectors):
            encoded: Tensor = self.clip.model.encode_text(ids)  # type: ignore[operator]
        return encoded


def _cut_padding(ids: Tensor, masked_id: int | None) -> Tensor:
    """Rows (K, L) cut to the longest prompt, if the tower masks its padding."""
    if masked_id is None or ids.shape[1] == 0:
        return ids
    used = (ids != masked_id).any(0).nonzero()
    return ids[:, : int(used.max()) + 1] if len(used) else ids


class _Inserting(TorchFunctionMode):
    """In this block and thread, a lookup in `table` gives `vectors` at the columns `where`.

    A hook on the module would affect every thread that runs the model.
    """

    def __init__(self, table: Tensor, where: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.table, self.where, self.vectors = table, where, vectors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is F.embedding and args[1] is self.table:
            return found.scatter(1, self.where, self.vectors.to(found.dtype))
        return found
