"""BATCLIP: both towers' layer norms, tuned together on a stream of corrupted pictures.

Sarthak Kumar Maharana et al. (2412.02837). With m_u the mean raw image feature of a batch's
pictures that are predicted as class u, and U such classes, one step a batch on

    mean entropy - 1/U sum_u m_u . t_u - sum_{u != v} (1 - cos(m_u, m_v))

pulls images to their text and classes apart. Class features are computed anew each step. Published:
AdamW 1e-3 and batches of 200 on CIFAR-10-C, Adam 5e-4 on CIFAR-100-C, AdamW 5e-4 on ImageNet-C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods._norm_tuner import NormMethod, NormSettings
from tpt.methods.objective import entropy


@dataclass(frozen=True)
class BATCLIPSettings(NormSettings):
    """Published defaults, those for CIFAR-10-C."""

    lr: float = 1e-3
    optimizer: str = "AdamW"  # or "Adam", whose decay is added to the gradient
    weight_decay: float = 0.01


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


class BATCLIP(NormMethod):
    """Bimodal adaptation in a copy of the model; used as `TENT` is."""

    Settings = BATCLIPSettings
    loss = staticmethod(bimodal_loss)
    tunes_text = True
