"""StatA: a batch of images at once, anchored to the text, for few classes among many.

Maxime Zanella et al. (2501.03729). Every class is a Gaussian of mean mu_k and diagonal variance
Sigma_k. Assignments z_i (softmax over classes, starting at zero-shot's p_i), means and variances
are improved in turn:

    z_i  = softmax(log p_i + [log N(f_i | mu_k, Sigma_k)
                              + lambda (tau / 2m) ((W + W^T) z)_i] / tau)          five times
    mu_k = norm(beta_k norm(sum_i z_ik f_i) + (1 - beta_k) t_k)
    Sigma_k = beta_k (sum_i z_ik (f_i - mu_k)^2 / sum_i z_ik) + (1 - beta_k) (s + (t_k - mu_k)^2)

with tau = 50, W the cosines to each image's m = 3 nearest, s the variance around the text features
under zero-shot, and beta_k = n_k / (alpha + n_k), where n_k images are assigned to class k. A class
with few images stays close to its text. After ten rounds the answer is z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_count, check_flag, check_number
from tpt.methods.first_look import take_first_look

TEMPERATURE = 50.0
ASSIGNMENTS = 5  # updates of z a round


@dataclass(frozen=True)
class StatASettings:
    """Published defaults."""

    alpha: float = 1.0  # how many images a class's text counts for
    laplacian: float = 1.0  # weight of the neighbours' agreement
    neighbours: int = 3  # nearest images that an image should agree with
    soft: bool = False  # count n_k by probabilities instead of best classes
    rounds: int = 10

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, "how many images a class's text counts for", above=True)
        check_number("laplacian", self.laplacian, "how much neighbours count", above=False)
        check_count("neighbours", self.neighbours, "how many nearest images count", least=1)
        check_count("rounds", self.rounds, "how often means and variances are improved", least=1)
        check_flag("soft", self.soft)


class StatA(Method):
    """Assign a batch of images to classes at once, with class statistics anchored to the text.

    Each batch is solved separately. An image's answer depends on the others in its batch, so the
    batch size is part of the method: 64 by default. Fewer than four images have fewer neighbours
    (the public program refuses them).
    """

    Settings = StatASettings
    keeps_state = True  # nothing is carried between batches, but a batch's images decide together
    reads_views = False
    together = 64

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        """Predict the plain views of a batch (B, 1, E)."""
        look = take_first_look(self, features, keep=1.0)
        classes = look.classes
        if classes.ndim == 3:  # with CoCoOp every image has its own class features
            classes = F.normalize(classes.mean(0), dim=-1)
        return look.outcome(self._solve(features[:, 0], look.logits[:, 0], classes))

    def _solve(self, f: Tensor, start: Tensor, text: Tensor) -> Tensor:
        """Logits (B, K) of images (B, E) with zero-shot logits (B, K) and class features (K, E)."""
        wanted = self.settings
        z = start.softmax(-1)
        spread = _variance(z, f, text).mul(z.sum(0).unsqueeze(-1)).sum(0) / len(f)  # (E,), s
        spread = spread.clamp(min=1e-12)  # 0 for images that equal their text feature
        near = _neighbours(f, wanted.neighbours)  # (B, B), W + W^T
        pull = wanted.laplacian * TEMPERATURE / (2 * wanted.neighbours)
        mean, variance = text, spread.expand_as(text)
        for _ in range(wanted.rounds):
            logits, z = _assign(z, start, _log_density(f, mean, variance), near, pull)
            share = z.sum(0)  # (K,)
            hard = F.one_hot(z.argmax(-1), z.shape[-1]).sum(0).to(z.dtype)
            count = share if wanted.soft else hard
            beta = (count / (wanted.alpha + count + 1e-12)).unsqueeze(-1)  # (K, 1)
            own = F.normalize(z.T @ f, dim=-1)
            mean = F.normalize(beta * own + (1 - beta) * text, dim=-1)
            anchor = spread + (text - mean).square()
            variance = beta * _variance(z, f, mean) + (1 - beta) * anchor
        logits, z = _assign(z, start, _log_density(f, mean, variance), near, pull)
        return logits


def _variance(z: Tensor, f: Tensor, mean: Tensor) -> Tensor:
    """sum_i z_ik (f_i - mu_k)^2 / sum_i z_ik: (K, E); 0 for a class without images."""
    weights = z / z.sum(0).clamp(min=torch.finfo(z.dtype).tiny)  # (B, K)
    square = weights.T @ f.square() - 2 * mean * (weights.T @ f)
    return (square + weights.sum(0).unsqueeze(-1) * mean.square()).clamp(min=0)


def _log_density(f: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(f_i | mu_k, diag Sigma_k), less a constant: (B, K)."""
    inverse = 1 / variance
    distance = f.square() @ inverse.T - 2 * f @ (mean * inverse).T
    distance = distance + (mean.square() * inverse).sum(-1)
    return -(distance + variance.log().sum(-1)) / 2


def _neighbours(f: Tensor, count: int) -> Tensor:
    """W + W^T (B, B): row i of W has the cosines to its nearest other images, 0 elsewhere."""
    cosines = f @ f.T
    others = cosines.clone().fill_diagonal_(-float("inf"))
    nearest = others.topk(min(count, len(f) - 1), dim=-1).indices
    weights = torch.zeros_like(cosines).scatter(1, nearest, cosines.gather(1, nearest))
    return weights + weights.T


def _assign(
    z: Tensor, start: Tensor, density: Tensor, near: Tensor, pull: float
) -> tuple[Tensor, Tensor]:
    """The logits after five updates of the assignments (B, K), and their softmax."""
    logits = start
    for _ in range(ASSIGNMENTS):
        logits = start + (density + pull * (near @ z)) / TEMPERATURE
        z = logits.softmax(-1)
    return logits, z
