"""Plain CLIP: view 0 against the class features, with one template or an ensemble of them.

Alec Radford et al. (2103.00020), section 3.1.4: with several templates the unit text features of
each class are averaged and normalised again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.objective import entropy


class ZeroShot(Method):
    """Predict view 0 without any adaptation."""

    reads_views = False

    def class_features(self) -> Tensor:
        """Unit class features (K, E), computed once; not for a conditional context."""
        engine = self.engine
        return (
            engine.template_features(self.templates) if self.templates else engine.start_features()
        )

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        classes = self.start_classes(features[:, 0])
        logits = self.engine.logits(features, classes)[:, 0]
        return Adapted(
            logits=logits,
            initial_logits=logits.clone(),
            selected=torch.zeros(len(logits), 1, dtype=torch.long, device=logits.device),
            view_entropy=entropy(logits).unsqueeze(1),
        )
