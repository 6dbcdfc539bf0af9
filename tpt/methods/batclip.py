"""BATCLIP: both towers' layer norms, tuned together on a stream of corrupted pictures.

Sarthak Kumar Maharana et al. (2412.02837). With m_u the mean raw image feature of the pictures that
a batch takes for class u, U such classes, one step a batch on

    mean entropy - 1/U sum_u m_u . t_u - sum_{u != v} (1 - cos(m_u, m_v))

pulls images to their text and classes apart. Class features are computed anew each step. Published:
AdamW 1e-3 and batches of 200 on CIFAR-10-C, Adam 5e-4 on CIFAR-100-C, AdamW 5e-4 on ImageNet-C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods._norm_tuner import NormTuner, check_optimizer, check_pictures
from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_lr, check_number
from tpt.methods.objective import entropy
from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class BATCLIPSettings:
    """Published defaults, those for CIFAR-10-C."""

    lr: float = 1e-3
    optimizer: str = "AdamW"  # or "Adam", whose decay is added to the gradient
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_lr(self.lr)
        check_optimizer(self.optimizer)
        check_number("weight_decay", self.weight_decay, "the decay of the weights", above=False)


class BATCLIP(Method):
    """Bimodal adaptation in a copy of the model; used as `TENT` is."""

    Settings = BATCLIPSettings
    keeps_state = True
    reads_views = False
    takes_templates = False
    needs_pictures = True
    together = 64

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = NormTuner(engine, self.settings, bimodal_loss, text=True)

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
            "BATCLIP tunes the towers, so it needs pictures and not their features. Call adapt on "
            "a batch (B, 1, 3, H, W), or use tpt.stream."
        )


def bimodal_loss(raw: Tensor, classes: Tensor, logits: Tensor) -> Tensor:
    """The loss of raw image features (B, E), class features (K, E) and logits (B, K)."""
    named = logits.argmax(-1)
    predicted = named.unique()  # (U,)
    means = torch.stack([raw[named == u].mean(0) for u in predicted])  # (U, E)
    to_text = (means * classes[predicted]).sum(-1).mean()
    unit = F.normalize(means, dim=-1)
    others = 1 - torch.eye(len(unit), device=unit.device)
    apart = ((1 - unit @ unit.T) * others).sum()
    return entropy(logits).mean() - to_text - apart
