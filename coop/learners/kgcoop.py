"""KgCoOp: CoOp whose class features are held near those of a hand-crafted prompt.

Hantao Yao et al. (2303.13283): loss = CE + lambda * (1 - mean_c cos(w_c, h_c)), with w_c the class
features of the learned context, h_c those of the template, and lambda = 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from coop.learners.base import Batch, Loss
from coop.learners.coop import CoOp
from tpt.prompts import PromptEngine
from tpt.prompts.sentences import encode_templates


class KgCoOp(CoOp):
    """Learn an engine's context under the pull of hand-crafted templates.

    Args:
        engine: with the start context, published: the words "a photo of a".
        templates: the hand-crafted prompt; several are averaged.
        weight: lambda, 8 as published.
    """

    def __init__(self, engine: PromptEngine, templates: Sequence[str], weight: float = 8.0) -> None:
        super().__init__(engine)
        self.weight = weight
        self.hand = encode_templates(engine.clip, engine.classes, templates)  # (K, E)

    def loss(self, batch: Batch) -> Loss:
        classes = self.engine.class_features(self.parameters["vectors"])
        logits = self.engine.logits(batch.features, classes)
        fit = F.cross_entropy(logits, batch.labels)
        distance = 1 - (classes * self.hand).sum(-1).mean()  # unit features: the cosine
        return Loss(fit + self.weight * distance, logits, {"fit": fit, "distance": distance})
