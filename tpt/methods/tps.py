"""TPS: shift the class features, not the context.

Elaine Sui et al. (2403.12952): with T (K, E) the class features, a shift D (K, E) that starts at
zero gives t_c = norm(T_c + D_c); one AdamW step on TPT's loss, the marginal entropy of the kept
views, moves D; then view 0 is predicted. The text tower takes no part, so an image costs what two
small matrix products cost. Published: lr 5e-3 on the ImageNet family, 1e-3 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_keep, check_lr, check_steps
from tpt.methods.first_look import take_first_look
from tpt.methods.objective import marginal_entropy


@dataclass(frozen=True)
class TPSSettings:
    """Published defaults; AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views kept
    steps: int = 1  # optimiser steps an image; views are chosen at the first and stay
    lr: float = 5e-3

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)


class TPS(Method):
    """Test-time prototype shifting on cached class features; every image starts from no shift.

    In `Adapted`, `shift` (K, E) is what was added to the class features and `gradient` the
    loss's gradient where it is zero.
    """

    Settings = TPSSettings
    gradient = True

    @torch.inference_mode(False)  # tuning needs gradients, even where the caller has none
    @torch.enable_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self, features, self.settings.keep)
        with torch.no_grad():
            kept = look.kept(features)  # (B, S, E)
        shape = (len(features), *look.classes.shape[-2:])
        shift = torch.zeros(shape, device=features.device, requires_grad=True)  # (B, K, E)
        optimizer = torch.optim.AdamW([shift], lr=self.settings.lr, weight_decay=0.01)
        loss = gradient = None
        for _ in range(self.settings.steps):
            losses = marginal_entropy(self._logits(kept, look.classes, shift))
            (shift.grad,) = torch.autograd.grad(losses.sum(), shift)
            if gradient is None:
                loss, gradient = losses.detach(), shift.grad.clone()
            optimizer.step()
        assert loss is not None  # at least one step
        assert gradient is not None
        with torch.no_grad():
            final_loss = marginal_entropy(self._logits(kept, look.classes, shift))
            logits = self._logits(features[:, :1], look.classes, shift)[:, 0]
        return look.outcome(
            logits,
            shift=shift.detach(),
            gradient=gradient,
            loss=loss,
            final_loss=final_loss,
            final_entropy=final_loss,
        )

    def _logits(self, features: Tensor, classes: Tensor, shift: Tensor) -> Tensor:
        """Logits (B, n, K) of (B, n, E) under the shifted class features."""
        return self.engine.logits(features, F.normalize(classes + shift, dim=-1))
