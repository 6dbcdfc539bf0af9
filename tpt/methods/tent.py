"""TENT: sharpen the image tower's layer norms on a stream of corrupted pictures.

Dequan Wang et al. (2006.10726), on CLIP's layer norms: each batch is predicted, then one step on
the mean entropy of its predictions moves the layer norms' weights, with the class features fixed.
They go on from batch to batch until `reset`. Published for CLIP: Adam 1e-3, batches of 200.
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

    It reads pictures, not features: `adapt` takes a batch (B, 1, 3, H, W) and `tpt.stream` hands
    over 64 pictures at once. The answer is the one before the batch's own step. Pictures of one
    class in a row teach it to say that class: shuffle them, or `reset()`.
    """

    Settings = NormSettings
    loss = staticmethod(mean_entropy)
