"""C-TPT: test-time prompt tuning that keeps the class features apart, for calibration.

Hee Suk Yoon et al. (2403.14119): TPT sharpens predictions more than they
deserve; text features that are dispersed go with well calibrated ones. So
loss = TPT's marginal entropy - weight * mean_c |t_c - mean t| with t_c the unit class features.
The published weight is 50 on fine-grained sets and 20 on the ImageNet family.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tpt.methods.base import Adapted, adapt_images, encode_views
from tpt.methods.checks import check_keep, check_lr, check_number, check_steps
from tpt.methods.objective import dispersion
from tpt.methods.start_classes import StartClasses
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class CTPTSettings:
    """Published defaults: TPT's, and the weight for fine-grained sets."""

    weight: float = 50.0  # of the dispersion of the class features
    keep: float = 0.1  # share of the views kept
    steps: int = 1
    lr: float = 5e-3

    def __post_init__(self) -> None:
        check_number("weight", self.weight, "how much dispersion counts", above=False)
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)


class CTPT:
    """Calibrated test-time prompt tuning on an engine's context; every image starts afresh.

    In `Adapted`, `loss` is the whole loss (negative as a rule) and `entropy` TPT's part of it.

    Args:
        engine: the prompt engine; its context is where every image starts.
        weight: of the dispersion; 0 is TPT.
        keep: share of the views that are kept, max(1, floor(keep * N)) of them.
        steps: optimiser steps an image. Views are chosen at the first and stay.
        lr: AdamW's learning rate.

    Raises:
        MethodError: a setting out of its range.
    """

    reads_views = True
    keeps_state = False
    gives_probabilities = True

    def __init__(
        self,
        engine: PromptEngine,
        weight: float = 50.0,
        keep: float = 0.1,
        steps: int = 1,
        lr: float = 5e-3,
    ) -> None:
        self.engine = engine
        self.settings = CTPTSettings(weight, keep, steps, lr)
        self.start = StartClasses(engine)
        self._tuner = Tuner(engine, keep, steps, lr, penalty=lambda t: -weight * dispersion(t))

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to B images' (B, N, 3, H, W)."""
        return self.adapt_features(encode_views(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        """Adapt to unit view features (N, E), or to B images' (B, N, E). View 0 is the plain one.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        return adapt_images(self.engine.clip, features, self._tuner.adapt)

    def reset(self) -> None:
        """Nothing is kept between images."""

    def start_stream(self) -> None:
        """Nothing is kept between images."""
