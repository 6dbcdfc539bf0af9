"""C-TPT and its relatives: test-time prompt tuning that keeps the class features apart.

TPT makes predictions too confident; class features that are far apart give well calibrated ones.
So loss = TPT's marginal entropy + a penalty on the unit class features t_k:

    dispersion   - weight * mean_k |t_k - mean t|              C-TPT, Hee Suk Yoon, 2403.14119
    orthogonal   + weight * mean_k | |row k of T T^T| - 1 |    O-TPT, Sharifdeen, 2503.12096
    angular      - weight * mean_k min_j angle(t_k, t_j)       A-TPT, Ahamed, 2510.26441

Published weights for fine-grained sets (ImageNet family): 50 (20), 18 (2) and 80 (10). O-TPT's
penalty grows with the number of classes, so the same weight acts more strongly on larger sets.
A-TPT's public program has the paper's sign on the ImageNet family, but the opposite sign on
fine-grained sets, which shrinks the angles: use a negative weight for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from tpt.errors import MethodError, suggest
from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep, check_lr, check_number, check_steps
from tpt.methods.objective import dispersion, nearest_angle, orthogonality
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class Penalty:
    """One way of keeping class features apart."""

    measure: Callable[[Tensor], Tensor]  # class features (..., K, E) -> (...)
    sign: float  # -1 if the measure is to grow
    weight: float  # published for fine-grained sets
    noun: str  # what it measures, for messages


PENALTIES: Mapping[str, Penalty] = MappingProxyType(
    {
        "dispersion": Penalty(dispersion, -1.0, 50.0, "dispersion"),
        "orthogonal": Penalty(orthogonality, 1.0, 18.0, "orthogonality"),
        "angular": Penalty(nearest_angle, -1.0, 80.0, "the angle"),
    }
)


@dataclass(frozen=True)
class CTPTSettings:
    """Published defaults: TPT's, and the penalty's weight for fine-grained sets."""

    weight: float | None = None  # of the penalty; 0 is TPT; None: the published one, 50 for C-TPT
    keep: float = 0.1  # share of the views kept
    steps: int = 1  # optimiser steps an image; views are chosen at the first and stay
    lr: float = 5e-3
    penalty: str = "dispersion"  # or "orthogonal" (O-TPT), "angular" (A-TPT)

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise MethodError(
                f'Unknown penalty "{self.penalty}".{suggest(str(self.penalty), PENALTIES)} '
                f"Expected one of {', '.join(PENALTIES)}."
            )
        penalty = PENALTIES[self.penalty]
        if self.weight is None:
            object.__setattr__(self, "weight", penalty.weight)
        size = self.weight
        if self.penalty == "angular" and isinstance(size, (int, float)):
            size = abs(size)  # the public program also uses negative ones, see above
        check_number("weight", size, f"how much {penalty.noun} counts", above=False)
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)


class CTPT(Method):
    """Calibrated test-time prompt tuning on an engine's context; every image starts anew.

    In `Adapted`, `loss` is the whole loss (usually negative) and `entropy` TPT's part of it.
    """

    Settings = CTPTSettings
    gradient = True
    takes_templates = False

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = Tuner(engine, self.settings, penalty=self._penalise)

    def _adapt(self, features: Tensor) -> Adapted:
        return self._tuner.adapt(features)

    def _penalise(self, classes: Tensor) -> Tensor:
        """The penalty (...) that the loss adds, of class features (..., K, E)."""
        penalty = PENALTIES[self.settings.penalty]
        value: Tensor = penalty.sign * self.settings.weight * penalty.measure(classes)
        return value
