"""Tune the context on one image's confident views: the part that TPT and its relatives share.

loss = uncertainty of the kept views + penalty(class features); the uncertainty is their marginal
entropy by default. The views are encoded once, and the engine keeps the class features at the start
context with their autograd graph. An image then costs one vector-Jacobian product through that
graph and the forward pass that predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from tpt.methods.base import Adapted
from tpt.methods.objective import entropy, marginal_entropy, select_confident
from tpt.prompts import PromptEngine

Penalty = Callable[[Tensor], Tensor]  # unit class features (..., K, E) -> (...)
Uncertainty = Callable[[Tensor], Tensor]  # the kept views' logits (..., S, K) -> (...)
Predict = Callable[[Tensor, Tensor], Tensor]  # views (B, N, E), classes (B, K, E) -> (B, K)


@dataclass(eq=False)
class Tuner:
    """AdamW (betas .9/.999, eps 1e-8, decay 0.01) on an engine's context, image by image."""

    engine: PromptEngine  # its context is the start of every image
    settings: Any  # `keep`: the share of views selected at the first step; `steps`; `lr`
    _: KW_ONLY
    carry: bool = False  # context and optimiser are carried from image to image until `reset`
    penalty: Penalty | None = None  # added to the uncertainty in the loss
    uncertainty: Uncertainty | None = None  # replaces the marginal entropy in the loss
    predict: Predict | None = None  # makes the logits after tuning; default view 0's
    _carried: tuple[Tensor, torch.optim.Optimizer] | None = field(default=None, init=False)

    def reset(self) -> None:
        """Return the carried context and its optimiser to their start."""
        self._carried = None

    @torch.inference_mode(False)  # tuning needs gradients, even where the caller has none
    @torch.enable_grad()
    def adapt(self, features: Tensor) -> Adapted:
        """Tune on unit view features (B, N, E), then predict each image."""
        fresh = self._carried is None
        shared = fresh and not self.engine.conditional
        if self.engine.conditional:  # with CoCoOp every image has its own start, from view 0
            with torch.no_grad():
                start_vectors = self.engine.start_for(features[:, 0])
            vectors, optimizer = self._begin(start_vectors)
            classes = self.engine.class_features(vectors)
            start_classes = classes.detach()
        else:
            start_vectors, start_classes = self.engine.start_point()
            vectors, optimizer = self._begin(
                start_vectors.expand(len(features), *start_vectors.shape)
            )
            classes = start_classes if fresh else self.engine.class_features(vectors)
        with torch.no_grad():
            initial = self.engine.logits(features, start_classes)  # (B, N, K)
            view_entropy = entropy(initial if fresh else self.engine.logits(features, classes))
            selected = select_confident(view_entropy, self.settings.keep)  # (B, S)
            kept = features.take_along_dim(selected.unsqueeze(-1), dim=1)  # (B, S, E)
        before, loss, gradient = None, None, None
        for step in range(self.settings.steps):
            if step == 0 and shared:
                marginal, losses, grads = self._first_step(kept, start_classes)
            else:
                known = classes if step == 0 else None
                marginal, losses, grads = self._later_step(kept, vectors, known)
            if step == 0:
                before, loss, gradient = marginal, losses, grads.clone()
            vectors.grad = grads
            optimizer.step()
        with torch.no_grad():
            tuned = self.engine.class_features(vectors)  # (B, K, E)
            after, final_loss = self._losses(kept, tuned)
            if self.predict is None:
                logits = self.engine.logits(features[:, :1], tuned).squeeze(1)
            else:
                logits = self.predict(features, tuned)
        return Adapted(
            logits=logits,
            initial_logits=initial[:, 0],
            selected=selected,
            view_entropy=view_entropy,
            vectors=vectors.detach().clone(),
            gradient=gradient,
            loss=loss,
            final_loss=final_loss,
            entropy=before,
            final_entropy=after,
        )

    def _losses(self, kept: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Marginal entropies and losses (B,) of kept views (B, S, E) under classes (B, K, E)."""
        logits = self.engine.logits(kept, classes)
        marginal = marginal_entropy(logits)
        loss = marginal if self.uncertainty is None else self.uncertainty(logits)
        return marginal, loss if self.penalty is None else loss + self.penalty(classes)

    def _begin(self, start: Tensor) -> tuple[Tensor, torch.optim.Optimizer]:
        """The vectors to tune (B, M, D) and their optimiser: new ones, or the carried ones."""
        if self._carried is not None:
            return self._carried
        vectors = start.detach().clone().requires_grad_()
        # AdamW works element by element, so one optimiser serves B contexts.
        optimizer = torch.optim.AdamW([vectors], lr=self.settings.lr, weight_decay=0.01)
        if self.carry:
            self._carried = vectors, optimizer
        return vectors, optimizer

    def _first_step(self, kept: Tensor, start_classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entropies, losses (B,) and gradients (B, M, D) at the start that all images share."""
        classes = start_classes.detach().expand(len(kept), -1, -1).requires_grad_()
        marginal, losses = self._losses(kept, classes)
        (pull,) = torch.autograd.grad(losses.sum(), classes)  # (B, K, E)
        return marginal.detach(), losses.detach(), self.engine.pull_back(pull)

    def _later_step(
        self, kept: Tensor, vectors: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Entropies, losses (B,) and gradients (B, M, D) at other vectors, by a backward pass.

        `classes` are the class features at `vectors` with their graph, if they are known.
        """
        classes = self.engine.class_features(vectors) if classes is None else classes
        marginal, losses = self._losses(kept, classes)
        (grads,) = torch.autograd.grad(losses.sum(), vectors)
        return marginal.detach(), losses.detach(), grads
