"""C-TPT: test-time prompt tuning that keeps the class features apart, for calibration.

Hee Suk Yoon et al. (2403.14119): TPT sharpens predictions more than they
deserve; text features that are dispersed go with well calibrated ones. So
loss = TPT's marginal entropy - weight * mean_c |t_c - mean t| with t_c the unit class features.
The published weight is 50 on fine-grained sets and 20 on the ImageNet family.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep, check_lr, check_number, check_steps
from tpt.methods.objective import dispersion
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class CTPTSettings:
    """Published defaults: TPT's, and the weight for fine-grained sets."""

    weight: float = 50.0  # of the dispersion of the class features; 0 is TPT
    keep: float = 0.1  # share of the views kept
    steps: int = 1  # optimiser steps an image; views are chosen at the first and stay
    lr: float = 5e-3

    def __post_init__(self) -> None:
        check_number("weight", self.weight, "how much dispersion counts", above=False)
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)


class CTPT(Method):
    """Calibrated test-time prompt tuning on an engine's context; every image starts afresh.

    In `Adapted`, `loss` is the whole loss (negative as a rule) and `entropy` TPT's part of it.
    """

    Settings = CTPTSettings
    gradient = True
    takes_templates = False

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        penalty = partial(_penalise, weight=self.settings.weight)
        self._tuner = Tuner(engine, self.settings, penalty=penalty)

    def _adapt(self, features: Tensor) -> Adapted:
        return self._tuner.adapt(features)


def _penalise(classes: Tensor, weight: float) -> Tensor:
    """-weight * dispersion of class features (..., K, E): (...)."""
    return -weight * dispersion(classes)
