"""TENT: sharpen the image tower's layer norms on a stream of corrupted pictures.

Dequan Wang et al. (2006.10726), on CLIP's layer norms: each batch is predicted, then one step on
the mean entropy of its predictions moves the layer norms' weights; the class features are fixed.
Published for CLIP: Adam 1e-3, batches of 200.
"""

from __future__ import annotations

from torch import Tensor

from tpt.methods._norm_tuner import NormMethod, NormSettings
from tpt.methods.objective import entropy


def mean_entropy(raw: Tensor, classes: Tensor, logits: Tensor) -> Tensor:
    """The mean entropy of the predictions (B, K)."""
    return entropy(logits).mean()


class TENT(NormMethod):
    """Entropy minimisation on the image tower, in a copy of the model.

    It reads pictures, not features: `adapt` takes a batch (B, 1, 3, H, W), and `tpt.stream` gives
    it 64 pictures at once. Each batch is predicted before its own step. Many pictures of one class
    in a row teach it to predict that class: shuffle them, or call `reset()`.
    """

    Settings = NormSettings
    loss = staticmethod(mean_entropy)
