"""VTE: the vision-text-space ensemble. Average the confident views' features, predict the mean.

Mario Döbler et al. (2405.14977): with S the views of lowest entropy,
f = norm(mean of f_i over S) and logits = scale f T^T. In text space the ensemble is one of several
templates. There is no gradient and no text pass. (The public program does not normalise the mean;
the unit vector gives the same classes, with probabilities at the model's scale.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep
from tpt.methods.first_look import take_first_look


@dataclass(frozen=True)
class VTESettings:
    """The published share."""

    keep: float = 0.1  # share of the views whose features are averaged

    def __post_init__(self) -> None:
        check_keep(self.keep)


class VTE(Method):
    """Predict the mean of the confident views' features."""

    Settings = VTESettings

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self, features, self.settings.keep)
        mean = F.normalize(look.kept(features).mean(1, keepdim=True), dim=-1)  # (B, 1, E)
        return look.outcome(self.engine.logits(mean, look.classes)[:, 0])
