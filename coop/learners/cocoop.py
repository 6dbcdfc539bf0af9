"""CoCoOp: a context that a small network shifts for each image.

Kaiyang Zhou et al. (2203.05557), equation 3: ctx_m(x) = v_m + pi(x). Each image has class features
of its own. The public program runs the text tower over all classes for one image after the other;
here B images with (B, M, D) contexts share one pass of the packed text path.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from coop.learners.base import Batch, Loss, check_engine, learnable
from tpt.prompts import Context, PromptEngine
from tpt.prompts.meta_network import MetaNet


class CoCoOp:
    """Learn an engine's context and its meta-network.

    Args:
        engine: with the start context, published: the words "a photo of a".
        seed: of the meta-network's start, where the context has none yet.
    """

    def __init__(self, engine: PromptEngine, seed: int = 0) -> None:
        check_engine(engine, unified="CoCoOp")
        self.engine, clip = engine, engine.clip
        rng = torch.Generator().manual_seed(seed)
        start = engine.context.meta or MetaNet.draw(clip.embedding_width, clip.width, rng)
        meta = {f"meta_net.{name}": learnable(t, clip) for name, t in start.tensors().items()}
        self.parameters: dict[str, Tensor] = {"vectors": learnable(engine.start, clip), **meta}
        # It holds the parameters themselves, so it moves with them.
        self._meta = MetaNet(*meta.values())

    def loss(self, batch: Batch) -> Loss:
        vectors = self.parameters["vectors"] + self._meta(batch.features).unsqueeze(1)  # (B, M, D)
        classes = self.engine.class_features(vectors)  # (B, K, E)
        logits = self.engine.logits(batch.features.unsqueeze(1), classes).squeeze(1)
        return Loss(F.cross_entropy(logits, batch.labels), logits)

    def context(self) -> Context:
        return replace(self.engine.context, vectors=self.parameters["vectors"], meta=self._meta)
