"""An image tower that skips what its feature does not need: exact, 6.9 % less work for a ViT-B.

A vision transformer whose feature is the class token needs, in its last block, only that token's
query, projection and MLP. The patches are still keys and values, but their outputs are never read.
That saves 10 of the 12 D x D products of one of 12 blocks. Other towers (pooling over patches,
convolutions, timm) run as open_clip wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from tpt.model._text_tower import is_plain_block


def find_image_tower(model: Any) -> Callable[[Tensor], Tensor]:
    """Pictures (n, 3, H, W) -> features (n, E), not yet unit; without unused work if possible."""
    if _reads_class_token_alone(model.visual):
        return partial(encode_class_token, model.visual)
    encode: Callable[[Tensor], Tensor] = model.encode_image
    return encode


def _reads_class_token_alone(visual: Any) -> bool:
    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and visual.transformer.batch_first
        and is_plain_block(visual.transformer.resblocks[-1])
    )


def encode_class_token(visual: Any, images: Tensor) -> Tensor:
    """The forward pass of a `VisionTransformer`, with a last block for the class token only."""
    x = visual._embeds(images)  # (n, 1 + patches, D)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    token = x[:, :1] + last.ls_1(_attend_first(last.attn, last.ln_1(x)))  # (n, 1, D)
    token = token + last.ls_2(last.mlp(last.ln_2(token)))
    feature: Tensor = visual.ln_post(token[:, 0])
    return feature if visual.proj is None else feature @ visual.proj


def _attend_first(attention: nn.MultiheadAttention, h: Tensor) -> Tensor:
    """Self-attention of (n, L, D) with the first token as the only query: (n, 1, D)."""
    width, heads = h.shape[-1], attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q = F.linear(h[:, :1], weight[:width], None if bias is None else bias[:width])
    k, v = F.linear(h, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
    return F.linear(mixed, attention.out_proj.weight, attention.out_proj.bias)
