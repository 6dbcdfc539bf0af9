"""Tuning the context on one image's confident views: the part that TPT and its relatives share.

loss = sharpness of the kept views + penalty(class features), the sharpness being their marginal
entropy unless a method says otherwise. The views are encoded once,
the engine keeps the class features at the start context with their autograd graph, and an image
then costs one vector-Jacobian product through them and the forward pass that predicts
(design: "Do not repeat step 1's forward pass").
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
Sharpness = Callable[[Tensor], Tensor]  # the kept views' logits (..., S, K) -> (...)
Predict = Callable[[Tensor, Tensor], Tensor]  # views (B, N, E), classes (B, K, E) -> (B, K)


@dataclass(eq=False)
class Tuner:
    """AdamW (betas .9/.999, eps 1e-8, decay 0.01) on an engine's context, image by image."""

    engine: PromptEngine  # its context is where every image starts
    # With the share `keep` of the views that are kept, chosen at the first step, the number of
    # optimiser `steps` an image, and the learning rate `lr`.
    settings: Any
    _: KW_ONLY
    carry: bool = False  # context and optimiser go on from image to image until `reset`
    penalty: Penalty | None = None  # what the loss adds to the sharpness
    sharpness: Sharpness | None = None  # what takes the place of the marginal entropy in the loss
    predict: Predict | None = None  # the logits after tuning; default view 0's
    _carried: tuple[Tensor, torch.optim.Optimizer] | None = field(default=None, init=False)

    def reset(self) -> None:
        """Return the carried context and its optimiser to their start."""
        self._carried = None

    @torch.inference_mode(False)  # tuning needs gradients, even where the caller has none
    @torch.enable_grad()
    def adapt(self, features: Tensor) -> Adapted:
        """Tune on unit view features (B, N, E), predict each image."""
        fresh = self._carried is None
        shared = fresh and not self.engine.conditional
        if self.engine.conditional:  # CoCoOp: every image has its own start, made from view 0
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
                sharpness, losses, grads = self._first_step(kept, start_classes)
            else:
                known = classes if step == 0 else None
                sharpness, losses, grads = self._later_step(kept, vectors, known)
            if step == 0:
                before, loss, gradient = sharpness, losses, grads.clone()
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
        loss = marginal if self.sharpness is None else self.sharpness(logits)
        return marginal, loss if self.penalty is None else loss + self.penalty(classes)

    def _begin(self, start: Tensor) -> tuple[Tensor, torch.optim.Optimizer]:
        """The vectors to tune (B, M, D) and their optimiser: fresh ones, or those carried on."""
        if self._carried is not None:
            return self._carried
        vectors = start.detach().clone().requires_grad_()
        # AdamW works element by element, so one optimiser over B contexts is B optimisers.
        optimizer = torch.optim.AdamW([vectors], lr=self.settings.lr, weight_decay=0.01)
        if self.carry:
            self._carried = vectors, optimizer
        return vectors, optimizer

    def _first_step(self, kept: Tensor, start_classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entropies, losses (B,) and gradients (B, M, D) at the start that all images share."""
        classes = start_classes.detach().expand(len(kept), -1, -1).requires_grad_()
        sharpness, losses = self._losses(kept, classes)
        (pull,) = torch.autograd.grad(losses.sum(), classes)  # (B, K, E)
        return sharpness.detach(), losses.detach(), self.engine.pull_back(pull)

    def _later_step(
        self, kept: Tensor, vectors: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Entropies, losses (B,) and gradients (B, M, D) anywhere else: forward and backward.

        `classes` are the class features at `vectors` with their graph, where they are known.
        """
        classes = self.engine.class_features(vectors) if classes is None else classes
        sharpness, losses = self._losses(kept, classes)
        (grads,) = torch.autograd.grad(losses.sum(), vectors)
        return sharpness.detach(), losses.detach(), grads
