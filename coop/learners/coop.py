"""CoOp: context vectors learned by cross-entropy, everything else frozen.

Kaiyang Zhou et al. (2109.01134), equation 3: p(y|x) = softmax over classes of
exp(scale) * cos(f, t_c), with the class features t_c of the prompt [V]_1 ... [V]_M [CLASS].
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from coop.learners.base import Batch, Loss, check_engine, learnable
from tpt.prompts import Context, PromptEngine


class CoOp:
    """Learn an engine's context: unified (M, D) or class-specific (K, M, D), at any position."""

    def __init__(self, engine: PromptEngine) -> None:
        check_engine(engine)
        self.engine = engine
        self.parameters: dict[str, Tensor] = {"vectors": learnable(engine.start, engine.clip)}

    def loss(self, batch: Batch) -> Loss:
        classes = self.engine.class_features(self.parameters["vectors"])
        logits = self.engine.logits(batch.features, classes)
        return Loss(F.cross_entropy(logits, batch.labels), logits)

    def context(self) -> Context:
        return replace(self.engine.context, vectors=self.parameters["vectors"])
