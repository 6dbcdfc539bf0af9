"""TENT: sharpen the image tower's layer norms on a stream of corrupted pictures.

Dequan Wang et al. (2006.10726), on CLIP's layer norms: each batch is predicted, then one step on
the mean entropy of its predictions moves the layer norms' weights, with the class features fixed.
They go on from batch to batch until `reset`. Published for CLIP: Adam 1e-3, batches of 200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tpt.errors import MethodError
from tpt.methods._norm_tuner import NormTuner, check_optimizer, check_pictures
from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_lr, check_number
from tpt.methods.objective import entropy
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class TENTSettings:
    """The values of its public CLIP program."""

    lr: float = 1e-3
    optimizer: str = "Adam"  # or "AdamW"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_lr(self.lr)
        check_optimizer(self.optimizer)
        check_number("weight_decay", self.weight_decay, "the decay of the weights", above=False)


class TENT(Method):
    """Entropy minimisation on the image tower, in a copy of the model.

    It reads pictures, not features: `adapt` takes a batch (B, 1, 3, H, W) and `tpt.stream` hands
    over 64 pictures at once. The answer is the one before the batch's own step. Pictures of one
    class in a row teach it to say that class: shuffle them, or `reset()`.
    """

    Settings = TENTSettings
    keeps_state = True
    reads_views = False
    takes_templates = False
    needs_pictures = True
    together = 64

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = NormTuner(engine, self.settings, mean_entropy, text=False)

    def reset(self) -> None:
        """Return the layer norms to their start."""
        self._tuner.reset()

    def start_stream(self) -> None:
        self.reset()

    def adapt(self, views: Tensor) -> Adapted:
        """Predict a batch of pictures (B, 1, 3, H, W), then learn from it."""
        with self._one_at_a_time():
            return self._tuner.adapt(check_pictures(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        raise MethodError(
            "TENT tunes the image tower, so it needs pictures and not their features. Call adapt "
            "on a batch (B, 1, 3, H, W), or use tpt.stream."
        )


def mean_entropy(raw: Tensor, classes: Tensor, logits: Tensor) -> Tensor:
    """The mean entropy of the predictions (B, K)."""
    return entropy(logits).mean()
