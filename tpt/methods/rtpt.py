"""R-TPT: prompt tuning for attacked pictures.

Lijun Sheng et al. (2504.11195): an attack on a picture misleads some views more than others, and a
plain mean includes them. So the loss is the mean of the kept views' own entropies, not the entropy
of their mean, and the answer is an ensemble of all views under the tuned context,

    logits = sum_i w_i L_i,   w = softmax(s / 0.01),   s_i = mean of the 20 largest f_i . f_j

over j != i: views that resemble many others count most. A view is never its own neighbour here; in
the public program it is, unless its cosine to itself rounds to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_count, check_keep, check_lr, check_number, check_steps
from tpt.methods.objective import entropy
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class RTPTSettings:
    """Published defaults; AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views that are tuned on
    steps: int = 1  # optimiser steps an image; views are chosen at the first and stay
    lr: float = 5e-3
    neighbours: int = 20  # how many nearest other views decide a view's weight
    temperature: float = 0.01  # of the weights; towards 0 one view takes all

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)
        check_count("neighbours", self.neighbours, "how many nearest views count", least=1)
        check_number("temperature", self.temperature, "how evenly views are weighted", above=True)


class RTPT(Method):
    """Robust test-time prompt tuning; every image starts anew.

    In `Adapted`, `loss` is the mean of the kept views' entropies and `entropy` that of their mean.
    With fewer than `neighbours` other views all of them count.
    """

    Settings = RTPTSettings
    gradient = True
    takes_templates = False

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = Tuner(
            engine, self.settings, uncertainty=_mean_entropy, predict=self._ensemble
        )

    def _adapt(self, features: Tensor) -> Adapted:
        return self._tuner.adapt(features)

    def _ensemble(self, features: Tensor, classes: Tensor) -> Tensor:
        """Logits (B, K) of views (B, N, E) under tuned class features (B, K, E)."""
        weights = weigh_views(features, self.settings.neighbours, self.settings.temperature)
        return (weights.unsqueeze(-1) * self.engine.logits(features, classes)).sum(1)


def _mean_entropy(logits: Tensor) -> Tensor:
    """Mean of the views' own entropies: (..., S, K) -> (...)."""
    return entropy(logits).mean(-1)


def weigh_views(features: Tensor, neighbours: int, temperature: float) -> Tensor:
    """Weights (B, N), which sum to one, of views with unit features (B, N, E)."""
    others = features.shape[1] - 1
    if others == 0:
        return features.new_ones(features.shape[:2])
    cosines = features @ features.mT
    cosines.diagonal(dim1=-2, dim2=-1).fill_(-float("inf"))
    alike = cosines.topk(min(neighbours, others), dim=-1).values.mean(-1)  # (B, N)
    return torch.softmax(alike / temperature, dim=-1)
