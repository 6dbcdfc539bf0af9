"""MTA: the mode of the view features, with outlying views weighted down.

Maxime Zanella and Ismail Ben Ayed (2405.02266). With f_i the unit view features, p_i their
probabilities, and y the views' inlierness scores, alternate

    y = softmax((K_i + lambda_q * sum_j p_i . p_j y_j) / lambda_y)         up to 5 times
    m = norm(sum_i y_i K_i f_i)                                            up to 5 times

where K_i = exp(-|f_i - m|^2 / 2 h_i^2), from y = 1/N and m = f_0; logits = scale m T^T. h_i^2 is
half the mean squared distance from f_i to its floor(0.3 (N - 1)) nearest views. There is no
gradient and no text pass. Every view counts, so `Adapted.selected` holds all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_number
from tpt.methods.first_look import take_first_look

NEIGHBOURS = 0.3  # share of the other views that set a view's bandwidth
ROUNDS = 5  # of the whole loop, and of each of its two steps


@dataclass(frozen=True)
class MTASettings:
    """The published weights, the same for all data sets."""

    lambda_y: float = 0.2  # how evenly the inlierness is spread; towards 0 one view takes all
    lambda_q: float = 4.0  # how much views with similar predictions support one another

    def __post_init__(self) -> None:
        spread, support = "how evenly the inlierness is spread", "how much similar views count"
        check_number("lambda_y", self.lambda_y, spread, above=True)
        check_number("lambda_q", self.lambda_q, support, above=False)


class MTA(Method):
    """Predict the mode of the view features."""

    Settings = MTASettings

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self, features, keep=1.0)
        p = look.logits.softmax(-1)
        mode = find_mode(features, p @ p.mT, self.settings)
        return look.outcome(self.engine.logits(mode.unsqueeze(1), look.classes)[:, 0])


def find_mode(features: Tensor, affinity: Tensor, settings: MTASettings) -> Tensor:
    """The mode (B, E) of unit features (B, N, E) with the affinity (B, N, N) of their predictions.

    The public program stops early at a change below 1e-6. This one runs all rounds, so that the
    images of a batch need not wait for one another; the mode moves by no more than that.
    """
    count = features.shape[1]
    width = find_bandwidths(features)  # (B, N), h_i^2
    scores = features.new_full(features.shape[:2], 1 / count)  # (B, N), y
    mode = features[:, 0]

    def log_density(mode: Tensor) -> Tensor:
        return -(features - mode.unsqueeze(1)).square().sum(-1) / (2 * width)

    for _ in range(ROUNDS):
        density = log_density(mode).exp()
        for _ in range(ROUNDS):
            support = (affinity @ scores.unsqueeze(-1)).squeeze(-1)
            scores = ((density + settings.lambda_q * support) / settings.lambda_y).softmax(-1)
        for _ in range(ROUNDS):
            # In log space the weights of far-away views cannot all vanish.
            weights = (log_density(mode) + scores.log()).softmax(-1)
            mode = F.normalize((weights.unsqueeze(1) @ features).squeeze(1), dim=-1)
    return mode


def find_bandwidths(features: Tensor) -> Tensor:
    """h_i^2 (B, N): half the mean squared distance of unit features (B, N, E) to their nearest."""
    count = features.shape[1]
    if count == 1:  # without another view any width will do
        return features.new_ones(features.shape[:2])
    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    squared.diagonal(dim1=-2, dim2=-1).fill_(float("inf"))  # a view is not its own neighbour
    # For fewer than five views the public program takes no neighbour, which gives NaN.
    nearest = squared.topk(max(1, int(NEIGHBOURS * (count - 1))), largest=False).values
    return (nearest.mean(-1) / 2).clamp(min=1e-12)  # identical views have width 0
