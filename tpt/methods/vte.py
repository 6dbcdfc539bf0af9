"""VTE: the vision-text-space ensemble. Average the confident views' features, predict the mean.

Mario Döbler et al. (2405.14977): with S the views of lowest entropy,
f = norm(mean of f_i over S) and logits = scale f T^T. In text space the ensemble is that of
several templates. No gradient, no text pass. (The public program leaves the mean shorter than a
unit vector; made unit it gives the same classes with the probabilities of the model's scale.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, adapt_images, encode_views
from tpt.methods.checks import check_keep
from tpt.methods.first_look import take_first_look
from tpt.methods.start_classes import StartClasses
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class VTESettings:
    """The published share."""

    keep: float = 0.1  # share of the views whose features are averaged

    def __post_init__(self) -> None:
        check_keep(self.keep)


class VTE:
    """Predict the mean of the confident views' features.

    Args:
        engine: the prompt engine; its start context makes the class features.
        keep: share of the views that are kept, max(1, floor(keep * N)) of them.
        templates: sentences with one `{}` each, whose ensemble replaces the engine's context.

    Raises:
        MethodError: a setting out of its range.
        PromptError: a template without exactly one `{}`, or too long with some class name.
    """

    reads_views = True
    keeps_state = False
    gives_probabilities = True

    def __init__(
        self, engine: PromptEngine, keep: float = 0.1, templates: Sequence[str] | None = None
    ) -> None:
        self.engine = engine
        self.settings = VTESettings(keep)
        self.start = StartClasses(engine, templates)

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to B images' (B, N, 3, H, W)."""
        return self.adapt_features(encode_views(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        """Adapt to unit view features (N, E), or to B images' (B, N, E). View 0 is the plain one.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        return adapt_images(self.engine.clip, features, self._adapt)

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self.start, features, self.settings.keep)
        mean = F.normalize(look.kept(features).mean(1, keepdim=True), dim=-1)  # (B, 1, E)
        return look.conclude(self.engine.logits(mean, look.classes)[:, 0])

    def reset(self) -> None:
        """Nothing is kept between images."""

    def start_stream(self) -> None:
        """Nothing is kept between images."""
