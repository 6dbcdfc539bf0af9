"""Screening: rank an image's views by a cheap pass, and encode only the likely ones precisely.

Methods that tune on the kept views alone (TPT, C-TPT) use a tenth of the views. A bf16 pass finds
these views nearly as well as an fp32 pass, and is cheaper on hardware with bf16 units. So view 0
and the best-ranked views, twice as many as are kept, are encoded in fp32. The others keep their
bf16 features, from which a method only takes the entropy. This is not exact: docs/speed.md says how
often the answers agree (`benchmarks/agreement.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.base import Method
from tpt.methods.objective import count_kept, entropy
from tpt.model.clip import Clip

SCREENED = ("tpt", "ctpt")
"""Methods that get faster and give the same first class in at least 99.5 % of the pictures. VTE,
which averages the kept views, reached 99.3 %; ZERO keeps too many views to get faster."""

_CANDIDATES = 2  # candidates for every view that is kept


@dataclass(frozen=True, eq=False)
class Screen:
    """Screens views with the same model in bf16."""

    low: Clip

    def encode(self, clip: Clip, views: Tensor, methods: Sequence[Method]) -> Tensor:
        """Unit features (B, N, E) of normalised views (B, N, 3, H, W), the likely ones precise."""
        features = self.low.encode_views(views)
        chosen = find_likely(features, methods)  # (B, C)
        each = torch.arange(len(views), device=chosen.device).unsqueeze(1)
        features[each, chosen] = clip.encode_views(views[each, chosen])
        return features

    def merge(self, cheap: Tensor, precise: Tensor, methods: Sequence[Method]) -> Tensor:
        """The result of `encode`, from features (B, N, E) of all views in bf16 and in fp32."""
        chosen = find_likely(cheap, methods).unsqueeze(-1).expand(-1, -1, cheap.shape[-1])
        return cheap.scatter(1, chosen, precise.take_along_dim(chosen, 1))


def find_likely(features: Tensor, methods: Sequence[Method]) -> Tensor:
    """Views (B, C) that the methods may keep, view 0 first, from cheap features (B, N, E).

    Several methods get the views with the best average rank.
    """
    count, ranks = 1, torch.zeros(features.shape[:2], device=features.device)
    for method in methods:
        with torch.no_grad():
            classes = method.start_classes(features[:, 0])
            unsure = entropy(method.engine.logits(features, classes))  # (B, N)
        ranks += unsure.argsort(dim=-1, stable=True).argsort(dim=-1)
        count = max(count, _CANDIDATES * count_kept(features.shape[1], method.settings.keep))
    ranks[:, 0] = -1
    return ranks.argsort(dim=-1, stable=True)[:, : 1 + count]


def check_screened(name: str, precision: str) -> None:
    """Refuse a method or a precision for which screening was not measured or saves nothing.

    Raises:
        MethodError: naming it, and what to do.
    """
    if name not in SCREENED:
        raise MethodError(
            f"--screen is not offered with --method {name}: of the methods measured, only "
            f"{' and '.join(SCREENED)} give the same answers and get faster. Leave it out, or use "
            "one of them."
        )
    if precision not in ("auto", "fp32", "tf32"):
        raise MethodError(
            f"--screen gives fp32 answers after a first pass in bf16, but --precision {precision} "
            "was asked for. Leave one of them out."
        )
