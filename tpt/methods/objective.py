"""The mathematics of test-time prompt tuning: entropy, confidence selection, marginal entropy.

Manli Shu et al., "Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language
Models" (2209.07511), equations 2 to 4. Everything works on logits, batched over leading axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): (..., K) -> (...)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def count_kept(views: int, keep: float) -> int:
    """How many of `views` are kept: max(1, floor(keep * views))."""
    return max(1, int(keep * views))


def select_confident(view_entropy: Tensor, keep: float) -> Tensor:
    """Indices of the most confident views, most confident first: (..., N) -> (..., S).

    Where entropies tie, the lower view index comes first.
    """
    kept = count_kept(view_entropy.shape[-1], keep)
    return view_entropy.argsort(dim=-1, stable=True)[..., :kept]


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the mean of the views' probabilities: (..., S, K) -> (...).

    The mean is taken in log space (logsumexp), so that classes of vanishing probability keep
    their digits.
    """
    log_p = logits.log_softmax(-1)
    log_mean = torch.logsumexp(log_p, dim=-2) - math.log(logits.shape[-2])
    # exp(-inf) * -inf is nan: hold log_mean at the smallest float, as the public program does.
    log_mean = log_mean.clamp(min=torch.finfo(log_mean.dtype).min)
    return -(log_mean.exp() * log_mean).sum(-1)


def dispersion(class_features: Tensor) -> Tensor:
    """Mean distance of the class features to their mean: (..., K, E) -> (...).

    Hee Suk Yoon et al. (2403.14119), who call it average text feature dispersion.
    """
    centre = class_features.mean(-2, keepdim=True)
    return (class_features - centre).norm(dim=-1).mean(-1)
