"""A first look at an image's views: which ones are confident under the start's class features.

With F (N, E) the view features and T (K, E) the class features, both of unit length, the logits are
L = scale F T^T; the floor(keep * N) rows of lowest entropy are kept (Manli Shu et al., 2209.07511,
equation 3). All methods that do not tune the context begin with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.objective import entropy, marginal_entropy, select_confident


@dataclass(frozen=True, eq=False)
class FirstLook:
    """The views of B images before any adaptation. K classes, N views, S of them kept."""

    classes: Tensor  # (K, E), or (B, K, E) if every image has its own
    logits: Tensor  # (B, N, K)
    view_entropy: Tensor  # (B, N) nats
    selected: Tensor  # (B, S) kept views, most confident first

    def kept(self, values: Tensor) -> Tensor:
        """The rows (B, S, X) of the kept views, from values (B, N, X)."""
        return values.take_along_dim(self.selected.unsqueeze(-1), dim=1)

    def entropy(self) -> Tensor:
        """Marginal entropy (B,) of the kept views, nats."""
        return marginal_entropy(self.kept(self.logits))

    def outcome(self, logits: Tensor, **more: Tensor) -> Adapted:
        """The outcome with these final logits (B, K) and further fields of `Adapted`."""
        return Adapted(
            logits=logits,
            initial_logits=self.logits[:, 0],
            selected=self.selected,
            view_entropy=self.view_entropy,
            entropy=self.entropy(),
            **more,
        )


@torch.no_grad()
def take_first_look(method: Method, features: Tensor, keep: float) -> FirstLook:
    """Predict unit view features (B, N, E) at the start of `method`; view 0 is the plain one."""
    classes = method.start_classes(features[:, 0])
    logits = method.engine.logits(features, classes)
    view_entropy = entropy(logits)
    return FirstLook(classes, logits, view_entropy, select_confident(view_entropy, keep))
