"""Test-time prompt tuning: tune the context on one image's confident views, predict, forget.

Manli Shu et al. (2209.07511). The numbers are those of the public program; the cost is not:
the views are encoded once, class features at the start context and their autograd graph are
built once a class list, and an image then costs one vector-Jacobian product through them and the
forward pass that predicts (design: "Do not repeat step 1's forward pass").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.base import Adapted, check_features, encode_views
from tpt.objective import entropy, marginal_entropy, select_confident
from tpt.prompts import PromptEngine

RESETS = ("image", "stream", "never")


@dataclass(frozen=True)
class TPTSettings:
    """Published defaults; the optimiser is AdamW with betas (.9, .999), eps 1e-8, decay 0.01."""

    keep: float = 0.1  # share of the views kept
    steps: int = 1
    lr: float = 5e-3
    reset: str = "image"  # when the context returns to its start

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise MethodError(
                f"keep is the share of views kept, in (0, 1]; got {self.keep}. The published "
                "value is 0.1."
            )
        if self.steps < 1:
            raise MethodError(
                f"steps must be at least 1; got {self.steps}. Without any step the method is "
                "zero-shot: use tpt.ZeroShot, or --method zero_shot."
            )
        if not 0 < self.lr < float("inf"):
            raise MethodError(f"lr must be a positive number; got {self.lr}.")
        if self.reset not in RESETS:
            raise MethodError(
                f'Unknown reset "{self.reset}": expected image (the default), stream or never.'
            )


class TPT:
    """Test-time prompt tuning on an engine's context.

    Args:
        engine: the prompt engine; its context is where every image starts.
        keep: share of the views that are kept, max(1, floor(keep * N)) of them.
        steps: optimiser steps an image. Views are chosen at the first and stay.
        lr: AdamW's learning rate.
        reset: when context and optimiser return to their start: after every "image", at the
            start of every "stream" (`tpt.stream` begins one), or "never" (only on `reset()`).
            Other than "image", images are adapted one after the other, in order, and the carried
            context chooses an image's views as well as it is tuned on them.

    Raises:
        MethodError: a setting out of its range.
    """

    reads_views = True

    def __init__(
        self,
        engine: PromptEngine,
        keep: float = 0.1,
        steps: int = 1,
        lr: float = 5e-3,
        reset: str = "image",
    ) -> None:
        self.engine = engine
        self.settings = TPTSettings(keep, steps, lr, reset)
        if self.keeps_state and engine.conditional:
            raise MethodError(
                f'reset="{reset}" carries one context from image to image, but a CoCoOp context is '
                'made afresh from each image. Use reset="image".'
            )
        self._start: tuple[Tensor, Tensor] | None = None
        self._carried: tuple[Tensor, torch.optim.Optimizer] | None = None

    @property
    def keeps_state(self) -> bool:
        return self.settings.reset != "image"

    def reset(self) -> None:
        """Return the carried context and its optimiser to their start."""
        self._carried = None

    def start_stream(self) -> None:
        """Called by `tpt.stream` before its first image."""
        if self.settings.reset == "stream":
            self.reset()

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to B images' (B, N, 3, H, W)."""
        return self.adapt_features(encode_views(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        """Adapt to unit view features (N, E), or to B images' (B, N, E). View 0 is the plain one.

        Returns:
            `Adapted`, with a leading axis B where `features` has one.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        batch = check_features(self.engine.clip, features)
        # One by one on a CPU: there it costs nothing, and an image's numbers are then the same
        # to the last bit whatever shares its batch. A context that is carried has no choice.
        if self.keeps_state or batch.device.type == "cpu":
            parts = [self._adapt(one) for one in batch.split(1)]
            result = Adapted(
                **{k: torch.cat([getattr(p, k) for p in parts]) for k in vars(parts[0])}
            )
        else:
            result = self._adapt(batch)
        return result if features.ndim == 3 else result.image(0)

    @torch.inference_mode(False)  # tuning needs gradients, even where the caller has none
    @torch.enable_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        """The method itself, on (B, N, E)."""
        fresh = self._carried is None
        shared = fresh and not self.engine.conditional
        if self.engine.conditional:  # CoCoOp: every image has its own start, made from view 0
            with torch.no_grad():
                start_vectors = self.engine.start_for(features[:, 0])
            vectors, optimizer = self._begin(start_vectors)
            classes = self.engine.class_features(vectors)
            start_classes = classes.detach()
        else:
            start_vectors, start_classes = self._first_pass()
            vectors, optimizer = self._begin(
                start_vectors.expand(len(features), *start_vectors.shape)
            )
            classes = start_classes if fresh else self.engine.class_features(vectors)
        with torch.no_grad():
            initial = self.engine.logits(features, start_classes)  # (B, N, K)
            view_entropy = entropy(initial if fresh else self.engine.logits(features, classes))
            selected = select_confident(view_entropy, self.settings.keep)  # (B, S)
            kept = features.take_along_dim(selected.unsqueeze(-1), dim=1)  # (B, S, E)
        loss = gradient = None
        for step in range(self.settings.steps):
            if step == 0 and shared:
                losses, grads = self._first_step(kept, start_vectors, start_classes)
            else:
                losses, grads = self._later_step(kept, vectors, classes if step == 0 else None)
            if step == 0:
                loss, gradient = losses, grads.clone()
            vectors.grad = grads
            optimizer.step()
        with torch.no_grad():
            tuned = self.engine.class_features(vectors)  # (B, K, E)
            logits = self.engine.logits(features[:, :1], tuned).squeeze(1)
            final_loss = marginal_entropy(self.engine.logits(kept, tuned))
        return Adapted(
            logits=logits,
            initial_logits=initial[:, 0],
            selected=selected,
            view_entropy=view_entropy,
            vectors=vectors.detach().clone(),
            gradient=gradient,
            loss=loss,
            final_loss=final_loss,
        )

    def _first_pass(self) -> tuple[Tensor, Tensor]:
        """The start context and its class features (K, E), with their graph; made once."""
        if self._start is None:
            vectors = self.engine.start.clone().requires_grad_()
            self._start = vectors, self.engine.class_features(vectors)
        return self._start

    def _begin(self, start: Tensor) -> tuple[Tensor, torch.optim.Optimizer]:
        """The vectors to tune (B, M, D) and their optimiser: fresh ones, or those carried on."""
        if self._carried is not None:
            return self._carried
        vectors = start.detach().clone().requires_grad_()
        # AdamW works element by element, so one optimiser over B contexts is B optimisers.
        optimizer = torch.optim.AdamW([vectors], lr=self.settings.lr, weight_decay=0.01)
        if self.keeps_state:
            self._carried = vectors, optimizer
        return vectors, optimizer

    def _first_step(
        self, kept: Tensor, start_vectors: Tensor, start_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses (B,) and gradients (B, M, D) at the start, through the graph all images share."""
        classes = start_classes.detach().expand(len(kept), -1, -1).requires_grad_()
        losses = marginal_entropy(self.engine.logits(kept, classes))
        (pull,) = torch.autograd.grad(losses.sum(), classes)  # (B, K, E)
        if len(pull) > 1:
            (grads,) = torch.autograd.grad(
                start_classes, start_vectors, pull, retain_graph=True, is_grads_batched=True
            )
            return losses.detach(), grads
        (grad,) = torch.autograd.grad(start_classes, start_vectors, pull[0], retain_graph=True)
        return losses.detach(), grad.unsqueeze(0)

    def _later_step(
        self, kept: Tensor, vectors: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Losses (B,) and gradients (B, M, D) anywhere else: a forward and a backward pass.

        `classes` are the class features at `vectors` with their graph, where they are known.
        """
        classes = self.engine.class_features(vectors) if classes is None else classes
        losses = marginal_entropy(self.engine.logits(kept, classes))
        (grads,) = torch.autograd.grad(losses.sum(), vectors)
        return losses.detach(), grads
