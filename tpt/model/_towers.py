"""Two towers that open_clip builds only at fixed sizes: SigLIP's image tower and BERT.

`ImageTower` is timm's vision transformer with attention pooling, at any size and activation; its
weights have the names of open_clip's SigLIP models. `BertTower` is the text encoder of Chinese-CLIP
(An Yang et al., 2211.01335): BERT (Jacob Devlin et al., 1810.04805), whose feature is the first
token's last state, projected. Its weights have the names of open_clip's Hugging Face towers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageTower(nn.Module):
    """Pictures (n, 3, H, W) -> features (n, width): open_clip's `TimmModel` for SigLIP."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.image_size = (facts["image_size"], facts["image_size"])
        act = (facts.get("act_kwargs") or {}).get("approximate", "none")
        self.trunk = VisionTransformer(
            img_size=facts["image_size"],
            patch_size=facts["patch_size"],
            embed_dim=facts["width"],
            depth=facts["layers"],
            num_heads=facts["width"] // facts["head_width"],
            mlp_ratio=facts.get("mlp_ratio", 4.0),
            class_token=False,
            global_pool="map",
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=(facts.get("norm_kwargs") or {}).get("eps", 1e-5)),
            act_layer=partial(nn.GELU, approximate=act),
        )
        self.head = nn.Sequential()  # as in open_clip: empty without a projection

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features


class BertTower(nn.Module):
    """Token ids (n, L) -> features (n, E). Padding is masked, so its columns may be cut off."""

    def __init__(self, facts: dict[str, Any], width_out: int) -> None:
        super().__init__()
        width, self.heads = facts["width"], facts["heads"]
        self.output_dim, self.context_length = width_out, facts["context_length"]
        self.vocab_size, self.pad_id = facts["vocab_size"], facts["pad_id"]
        norm = partial(nn.LayerNorm, width, eps=facts["norm_kwargs"]["eps"])
        embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(self.vocab_size, width),
                "position_embeddings": nn.Embedding(self.context_length, width),
                "token_type_embeddings": nn.Embedding(facts["type_vocab_size"], width),
                "LayerNorm": norm(),
            }
        )
        inner = int(width * facts.get("mlp_ratio", 4.0))
        layers = nn.ModuleList(_layer(width, inner, norm) for _ in range(facts["layers"]))
        encoder = nn.ModuleDict({"layer": layers})
        self.transformer = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})
        self.proj = nn.Linear(width, width_out, bias=False)

    @property
    def token_embedding(self) -> nn.Embedding:
        table = self.transformer["embeddings"]["word_embeddings"]  # type: ignore[index]
        assert isinstance(table, nn.Embedding)
        return table

    def forward(self, ids: Tensor) -> Tensor:
        parts: Any = self.transformer["embeddings"]
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.token_embedding(ids) + parts["token_type_embeddings"].weight[0]
        x = parts["LayerNorm"](x + parts["position_embeddings"](places))  # (n, L, D)
        seen = (ids != self.pad_id)[:, None, None, :]  # (n, 1, 1, L): for every head and query
        encoder: Any = self.transformer["encoder"]
        for layer in encoder["layer"]:
            x = self._step(layer, x, seen)
        features: Tensor = self.proj(x[:, 0])
        return features

    def _step(self, layer: Any, x: Tensor, seen: Tensor) -> Tensor:
        own, out = layer["attention"]["self"], layer["attention"]["output"]
        q, k, v = (
            own[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(-2)
        x = out["LayerNorm"](x + out["dense"](mixed))
        grown = layer["output"]["dense"](F.gelu(layer["intermediate"]["dense"](x)))
        result: Tensor = layer["output"]["LayerNorm"](x + grown)
        return result


def _layer(width: int, inner: int, norm: Any) -> nn.ModuleDict:
    own = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
    out = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": norm()})
    return nn.ModuleDict(
        {
            "attention": nn.ModuleDict({"self": own, "output": out}),
            "intermediate": nn.ModuleDict({"dense": nn.Linear(width, inner)}),
            "output": nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": norm()}),
        }
    )
