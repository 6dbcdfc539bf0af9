"""Screening: rank an image's views by a cheap pass, and encode only the likely ones precisely.

Methods that tune on the kept views alone (TPT, C-TPT) look at a tenth of the views. Which those
are, a bf16 pass tells nearly as well as an fp32 one, for less where there are bf16 units. So view 0
and twice as many of the best-ranked views as are kept are encoded in fp32; the others keep their
bf16 features, of which a method reads the entropy alone. It is not exact: docs/speed.md has how
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
"""Methods that gain by it and whose first class stays in 99.5 % of the pictures or more: VTE, which
averages the kept views, had 99.3 %, and ZERO keeps too many views."""

_CANDIDATES = 2  # times as many as are kept


@dataclass(frozen=True, eq=False)
class Screen:
    """What a run screens with: the same model in bf16."""

    low: Clip

    def encode(self, clip: Clip, views: Tensor, methods: Sequence[Method]) -> Tensor:
        """Unit features (B, N, E) of normalised views (B, N, 3, H, W), the likely ones precise."""
        features = self.low.encode_views(views)
        chosen = find_likely(features, methods)  # (B, C)
        each = torch.arange(len(views), device=chosen.device).unsqueeze(1)
        features[each, chosen] = clip.encode_views(views[each, chosen])
        return features

    def merge(self, cheap: Tensor, precise: Tensor, methods: Sequence[Method]) -> Tensor:
        """What `encode` gives, of features (B, N, E) of all views in bf16 and in fp32."""
        chosen = find_likely(cheap, methods).unsqueeze(-1).expand(-1, -1, cheap.shape[-1])
        return cheap.scatter(1, chosen, precise.take_along_dim(chosen, 1))


def find_likely(features: Tensor, methods: Sequence[Method]) -> Tensor:
    """Views (B, C) that the methods may keep, view 0 first, from cheap features (B, N, E).

    All images have as many: of several methods, the best views by the average of their ranks.
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
    """Refuse to screen where it was not measured, or gains nothing.

    Raises:
        MethodError: which, and what to do.
    """
    if name not in SCREENED:
        raise MethodError(
            f"--screen is not offered with --method {name}: of those measured, "
            f"{' and '.join(SCREENED)} give the same answers and gain by it. Leave it out, or use "
            "one of them."
        )
    if precision not in ("auto", "fp32", "tf32"):
        raise MethodError(
            f"--screen gives answers of fp32 by a first look in bf16, but --precision {precision} "
            "was asked for. Leave one of them out."
        )
