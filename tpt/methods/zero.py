"""ZERO: let the confident views vote.

Matteo Farina et al. (2405.18330): at temperature zero each kept view's probabilities become one
vote for its best class, votes_c = #{i in S : argmax_k L_ik = c}, and most votes win. If classes
tie, the next most confident view that predicts one of them decides, as in the paper (the public
program takes the other views in the order in which they were made); if there is none, the most
confident kept view decides.

Votes are counts, not probabilities: a softmax of them means nothing. ZERO is known to be weak where
zero-shot is weak (EuroSAT), and with CoOp contexts on fine-grained sets. If all entropies are
nearly zero, rounding or the views' order decides which ones are the most confident, and so who
wins a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep
from tpt.methods.first_look import take_first_look
from tpt.methods.objective import select_confident

PUBLISHED_KEEP = 0.3


@dataclass(frozen=True)
class ZEROSettings:
    """The share in the paper's later version; the first one had 0.1."""

    keep: float = PUBLISHED_KEEP  # share of the views that vote

    def __post_init__(self) -> None:
        check_keep(self.keep, PUBLISHED_KEEP)


class ZERO(Method):
    """Predict the class that most of the confident views vote for.

    In `Adapted`, `votes` holds the counts and `logits` the same as floats, with half a vote more
    for the class that wins a tie, so that the largest is the prediction.
    """

    Settings = ZEROSettings
    gives_probabilities = False

    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self, features, self.settings.keep)
        votes, decided = count_votes(look.logits, look.view_entropy, look.selected)
        return look.outcome(decided, votes=votes)


def count_votes(logits: Tensor, view_entropy: Tensor, voters: Tensor) -> tuple[Tensor, Tensor]:
    """The voters' votes, and the same with ties broken.

    Args:
        logits: of all views, (B, N, K).
        view_entropy: (B, N).
        voters: the kept views, most confident first, (B, S).

    Returns:
        (B, K) whole numbers, and (B, K) floats with half a vote more for the winner of a tie:
        the first tied class that the other views predict, most confident first, else the first
        that the voters predict.
    """
    named = logits.argmax(-1)  # (B, N)
    classes = torch.arange(logits.shape[-1], device=named.device)
    votes = (named.gather(1, voters).unsqueeze(-1) == classes).sum(1)  # (B, K)
    order = select_confident(view_entropy, 1.0)  # (B, N), all of them
    named = named.gather(1, torch.cat([order[:, voters.shape[1] :], voters], dim=1))
    ties = votes == votes.amax(-1, keepdim=True)  # (B, K)
    place = torch.arange(named.shape[1], device=named.device)
    first = torch.where(ties.gather(1, named), place, len(place)).amin(-1, keepdim=True)
    winner = named.gather(1, first)  # (B, 1); it exists, because the voters named all tied classes
    half = 0.5 * (ties.sum(-1, keepdim=True) > 1).float()
    return votes, votes.float().scatter_add(1, winner, half)
