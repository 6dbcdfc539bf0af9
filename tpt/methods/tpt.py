"""Test-time prompt tuning: tune the context on one image's confident views, predict, forget.

Manli Shu et al. (2209.07511), equations 2 to 4: with p_i = softmax(logits of view i), keep the
floor(keep * N) views of lowest entropy, p = mean of their p_i, loss = -sum_c p_c log p_c; one
AdamW step on the context, then view 0 is predicted. The numbers are those of the public program,
at a lower cost (`tpt.methods.tuning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep, check_lr, check_reset, check_steps
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class TPTSettings:
    """Published defaults; the optimiser is AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views kept
    steps: int = 1  # optimiser steps an image; views are chosen at the first and stay
    lr: float = 5e-3
    reset: str = "image"  # when the context returns to its start

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)
        check_reset(self.reset, "image", "stream", "never", default="image")


class TPT(Method):
    """Test-time prompt tuning on an engine's context.

    `reset` says when context and optimiser return to their start: after every "image", at the start
    of every "stream" (`tpt.stream` begins one), or "never" (only on `reset()`). With "stream" or
    "never", images run in order: the carried context selects each image's views and is tuned on
    them.
    """

    Settings = TPTSettings
    gradient = True
    takes_templates = False

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = Tuner(engine, self.settings, carry=self.keeps_state)
        if self.keeps_state and engine.conditional:
            raise MethodError(
                f'reset="{self.settings.reset}" carries one context from image to image, but a '
                'CoCoOp context is made anew for each image. Use reset="image".'
            )

    @property
    def keeps_state(self) -> bool:
        return bool(self.settings.reset != "image")

    def reset(self) -> None:
        """Return the carried context and its optimiser to their start."""
        self._tuner.reset()

    def start_stream(self) -> None:
        if self.settings.reset == "stream":
            self.reset()

    def _adapt(self, features: Tensor) -> Adapted:
        return self._tuner.adapt(features)
