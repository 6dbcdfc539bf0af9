"""TPS: shift the class features, not the context.

Elaine Sui et al. (2403.12952): with T (K, E) the class features, a shift D (K, E) that starts at
zero gives t_c = norm(T_c + D_c); one AdamW step on TPT's loss, the marginal entropy of the kept
views, moves D; then view 0 is predicted. The text tower is not used, so an image costs two small
matrix products. As in the public program, and unlike TPT, each further step selects the kept views
anew. Published: lr 5e-3 on the ImageNet family (its README's example); the paper is said to use
1e-3 elsewhere, but the program does not mention it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_flag, check_keep, check_lr, check_steps
from tpt.methods.first_look import take_first_look
from tpt.methods.objective import entropy, marginal_entropy, select_confident


@dataclass(frozen=True)
class TPSSettings:
    """Published defaults; AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views kept
    steps: int = 1  # optimiser steps an image; each chooses its views
    lr: float = 5e-3
    per_class: bool = True  # a shift for every class; False: one for all

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_steps(self.steps)
        check_lr(self.lr)
        check_flag("per_class", self.per_class)


class TPS(Method):
    """Test-time prototype shifting on cached class features; every image starts without a shift.

    In `Adapted`, `shift` (K, E) was added to the class features ((E,) if all classes share it), and
    `gradient` is the loss's gradient at no shift. `selected` are the views of the first step, and
    `final_loss` is their loss too.
    """

    Settings = TPSSettings
    gradient = True

    @torch.inference_mode(False)  # tuning needs gradients, even where the caller has none
    @torch.enable_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        look = take_first_look(self, features, self.settings.keep)
        with torch.no_grad():
            kept = look.kept(features)  # (B, S, E)
        shape = (len(features), *look.classes.shape[-2:])  # (B, K, E)
        if not self.settings.per_class:
            shape = (shape[0], shape[2])
        shift = torch.zeros(shape, device=features.device, requires_grad=True)
        optimizer = torch.optim.AdamW([shift], lr=self.settings.lr, weight_decay=0.01)
        loss = gradient = None
        for step in range(self.settings.steps):
            chosen = kept if step == 0 else self._choose(features, look.classes, shift)
            losses = marginal_entropy(self._logits(chosen, look.classes, shift))
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

    @torch.no_grad()
    def _choose(self, features: Tensor, classes: Tensor, shift: Tensor) -> Tensor:
        """The confident views (B, S, E) of all (B, N, E) under the shifted class features."""
        view_entropy = entropy(self._logits(features, classes, shift))
        selected = select_confident(view_entropy, self.settings.keep)
        return features.take_along_dim(selected.unsqueeze(-1), dim=1)

    def _logits(self, features: Tensor, classes: Tensor, shift: Tensor) -> Tensor:
        """Logits (B, n, K) of (B, n, E) under the shifted class features."""
        if not self.settings.per_class:
            shift = shift.unsqueeze(1)  # (B, 1, E)
        return self.engine.logits(features, F.normalize(classes + shift, dim=-1))
