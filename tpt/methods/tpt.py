"""Test-time prompt tuning: tune the context on one image's confident views, predict, forget.

Manli Shu et al. (2209.07511), equations 2 to 4: with p_i = softmax(logits of view i), keep the
floor(keep * N) views of lowest entropy, p = mean of their p_i, loss = -sum_c p_c log p_c; one
AdamW step on the context, then view 0 is predicted. The numbers are those of the public program;
the cost is not (`tpt.methods.tuning`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.base import Adapted, adapt_images, encode_views
from tpt.methods.checks import check_keep, check_lr, check_reset, check_steps
from tpt.methods.start_classes import StartClasses
from tpt.methods.tuning import Tuner
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class TPTSettings:
    """Published defaults; the optimiser is AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views kept
    steps: int = 1
    lr: float = 5e-3
    reset: str = "image"  # when the context returns to its start

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)
        check_reset(self.reset)


class TPT:
    """Test-time prompt tuning on an engine's context.

    Args:
        engine: the prompt engine; its context is where every image starts.
        keep: share of the views that are kept, max(1, floor(keep * N)) of them.
        steps: optimiser steps an image. Views are chosen at the first and stay.
        lr: AdamW's learning rate.
        reset: when context and optimiser return to their start: after every "image", at the
            start of every "stream" (`tpt.stream` begins one), or "never" (only on `reset()`).
            Other than "image", images are adapted one after the other, in order, and the carried
            context chooses an image's views as well as it is tuned on them.

    Raises:
        MethodError: a setting out of its range.
    """

    reads_views = True
    gives_probabilities = True

    def __init__(
        self,
        engine: PromptEngine,
        keep: float = 0.1,
        steps: int = 1,
        lr: float = 5e-3,
        reset: str = "image",
    ) -> None:
        self.engine = engine
        self.settings = TPTSettings(keep, steps, lr, reset)
        self.start = StartClasses(engine)
        self._tuner = Tuner(engine, keep, steps, lr, carry=self.keeps_state)
        if self.keeps_state and engine.conditional:
            raise MethodError(
                f'reset="{reset}" carries one context from image to image, but a CoCoOp context is '
                'made afresh from each image. Use reset="image".'
            )

    @property
    def keeps_state(self) -> bool:
        return self.settings.reset != "image"

    def reset(self) -> None:
        """Return the carried context and its optimiser to their start."""
        self._tuner.reset()

    def start_stream(self) -> None:
        """Called by `tpt.stream` before its first image."""
        if self.settings.reset == "stream":
            self.reset()

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to B images' (B, N, 3, H, W)."""
        return self.adapt_features(encode_views(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        """Adapt to unit view features (N, E), or to B images' (B, N, E). View 0 is the plain one.

        Returns:
            `Adapted`, with a leading axis B where `features` has one.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        clip, adapt = self.engine.clip, self._tuner.adapt
        return adapt_images(clip, features, adapt, in_order=self.keeps_state)
