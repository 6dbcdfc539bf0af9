"""Plain CLIP: view 0 against the class features, with one template or an ensemble of them.

Alec Radford et al. (2103.00020), section 3.1.4: with several templates the unit text features of
each class are averaged and made unit again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.methods.base import Adapted, check_features, encode_views
from tpt.methods.objective import entropy
from tpt.methods.start_classes import StartClasses
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class ZeroShotSettings:
    """Nothing to set: there is no adaptation."""


class ZeroShot:
    """Predict view 0 without any adaptation.

    Args:
        engine: the prompt engine; its start context makes the class features.
        templates: sentences with one `{}` each, taken word for word ("a sketch of a {}."); the
            ensemble of them replaces the engine's context. Default: none.

    Raises:
        PromptError: a template without exactly one `{}`, or too long with some class name.
    """

    reads_views = False
    keeps_state = False
    gives_probabilities = True

    def __init__(self, engine: PromptEngine, templates: Sequence[str] | None = None) -> None:
        self.engine = engine
        self.settings = ZeroShotSettings()
        self.start = StartClasses(engine, templates)
        self.templates = self.start.templates

    def class_features(self) -> Tensor:
        """Unit class features (K, E), computed once; not for a conditional context."""
        return self.start.features()

    def adapt(self, views: Tensor) -> Adapted:
        """Predict from views (N, 3, H, W) or (B, N, 3, H, W); only view 0 is encoded."""
        return self.adapt_features(encode_views(self.engine.clip, views, count=1))

    @torch.no_grad()
    def adapt_features(self, features: Tensor) -> Adapted:
        """Predict from unit view features (N, E) or (B, N, E); only view 0 counts."""
        plain = check_features(self.engine.clip, features)[:, :1]
        # One by one, so that an image's numbers are the same whatever shares its batch.
        logits = torch.cat([self._logits(one) for one in plain.split(1)])
        result = Adapted(
            logits=logits,
            initial_logits=logits,
            selected=torch.zeros(len(logits), 1, dtype=torch.long, device=logits.device),
            view_entropy=entropy(logits).unsqueeze(1),
        )
        return result if features.ndim == 3 else result.image(0)

    def _logits(self, plain: Tensor) -> Tensor:
        """Logits (1, K) of one image's view 0, (1, 1, E)."""
        return self.engine.logits(plain, self.start.of(plain[:, 0]))[:, 0]

    def reset(self) -> None:
        """Nothing is kept between images."""

    def start_stream(self) -> None:
        """Nothing is kept between images."""
