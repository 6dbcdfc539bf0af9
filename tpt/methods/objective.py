"""The formulas of test-time prompt tuning: entropy, confidence selection, marginal entropy.

Manli Shu et al., "Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language
Models" (2209.07511), equations 2 to 4. Everything works on logits, batched over leading axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALMOST = 0.99999  # cosines are clamped to it: at one the angle has no gradient


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): (..., K) -> (...)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def count_kept(views: int, keep: float) -> int:
    """How many of `views` are kept: max(1, floor(keep * views))."""
    return max(1, int(keep * views))


def select_confident(view_entropy: Tensor, keep: float) -> Tensor:
    """Indices of the most confident views, most confident first: (..., N) -> (..., S).

    If entropies tie, the lower view index comes first.
    """
    kept = count_kept(view_entropy.shape[-1], keep)
    return view_entropy.argsort(dim=-1, stable=True)[..., :kept]


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the mean of the views' probabilities: (..., S, K) -> (...).

    The mean is taken in log space (logsumexp), so that tiny probabilities keep their precision.
    """
    log_p = logits.log_softmax(-1)
    log_mean = torch.logsumexp(log_p, dim=-2) - math.log(logits.shape[-2])
    # exp(-inf) * -inf is nan, so clamp log_mean to the smallest float, as the public program does.
    log_mean = log_mean.clamp(min=torch.finfo(log_mean.dtype).min)
    return -(log_mean.exp() * log_mean).sum(-1)


def dispersion(class_features: Tensor) -> Tensor:
    """Mean distance of the class features to their mean: (..., K, E) -> (...).

    Hee Suk Yoon et al. (2403.14119), who call it average text feature dispersion.
    """
    centre = class_features.mean(-2, keepdim=True)
    return (class_features - centre).norm(dim=-1).mean(-1)


def orthogonality(class_features: Tensor) -> Tensor:
    """Mean of | |G_k| - 1 | over the rows of G = T T^T: (..., K, E) -> (...).

    Ashshak Sharifdeen et al. (2503.12096). It is zero for orthogonal class features. G keeps its
    diagonal, so for features with cosine c it is about sqrt(1 + (K - 1) c^2) - 1, which grows with
    the number of classes. The public program gets the same number from K Householder matrices.
    """
    gram = class_features @ class_features.mT
    return (gram.norm(dim=-1) - 1).abs().mean(-1)


def nearest_angle(class_features: Tensor) -> Tensor:
    """Mean angle, in radians, of each class feature to the nearest other: (..., K, E) -> (...).

    Shihab Aaqil Ahamed et al. (2510.26441), who maximise it. It is 0 for a single class.
    """
    count = class_features.shape[-2]
    if count == 1:
        return class_features.sum((-2, -1)) * 0
    own = torch.eye(count, dtype=torch.bool, device=class_features.device)
    cosines = (class_features @ class_features.mT).masked_fill(own, -1.0)
    return cosines.amax(-1).clamp(-ALMOST, ALMOST).arccos().mean(-1)
