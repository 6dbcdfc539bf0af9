"""Tuning the layer norms of a copy of the model: what TENT and BATCLIP share.

The caller's weights stay as they are. The copy is of the whole model, in float32, and so are its
gradients: these methods are for corrupted streams and machines with the memory for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.errors import MethodError
from tpt.methods.base import Adapted, Method
from tpt.methods.objective import entropy
from tpt.model.clip import Clip
from tpt.prompts import PromptEngine

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of raw image features (B, E), class features (K, E) and logits (B, K): ()."""


def check_optimizer(name: Any) -> None:
    """Refuse an optimiser that is neither."""
    if name not in OPTIMIZERS:
        raise MethodError(f'Unknown optimizer "{name}": expected Adam or AdamW.')


class NormTuner:
    """A copy of a model whose layer norms take one step a batch.

    Args:
        engine: the prompt engine; its classes, under its start context, are predicted.
        settings: with `lr`, `optimizer` and `weight_decay`.
        loss: what is minimised.
        text: tune the text tower's layer norms too, and compute the class features anew each step.

    Raises:
        MethodError: an image tower without layer norms, a few-shot head, a CoCoOp context.
    """

    def __init__(self, engine: PromptEngine, settings: Any, loss: Loss, *, text: bool) -> None:
        if engine.conditional or engine.has_head:
            raise MethodError(
                "A method that tunes the towers needs one set of class features from words or from "
                "learned vectors, but this prompt is a CoCoOp context or a few-shot head, which "
                "has nothing to tune towards. Use another prompt."
            )
        self.settings, self.loss, self.text, self.plain = settings, loss, text, engine
        model = copy.deepcopy(engine.clip.model).float()
        self.clip = Clip(model, engine.clip.tokenizer)
        # The full-length path runs the tower's own modules, so gradients reach their weights.
        self.engine = PromptEngine(
            self.clip, engine.classes, engine.context, path="full", force=True
        )
        norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
        self.weights = [p for norm in norms for p in norm.parameters()]
        tower = getattr(model, "visual", model)
        if not any(isinstance(module, nn.LayerNorm) for module in tower.modules()):
            raise MethodError(
                "This model's image tower has no layer norms to tune: a convolutional one, such as "
                "the embedded model's, has batch norms. Use a vision transformer (--model "
                "ViT-B-16, say), or another method."
            )
        self.start = [p.detach().clone() for p in self.weights]
        with torch.no_grad():
            self.fixed = self.engine.class_features()
        self.reset()

    def reset(self) -> None:
        """Return the layer norms and their optimiser to their start."""
        with torch.no_grad():
            for weight, start in zip(self.weights, self.start, strict=True):
                weight.copy_(start)
                weight.requires_grad_(True)
        make = OPTIMIZERS[self.settings.optimizer]
        self.optimizer = make(
            self.weights, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )

    @torch.inference_mode(False)
    @torch.enable_grad()
    def adapt(self, pictures: Tensor) -> Adapted:
        """Predict a batch (B, 3, H, W), then take a step on it: the next batch gains by it."""
        raw = self.clip.model.encode_image(pictures.to(self.clip.device).float())  # type: ignore[operator]
        classes = self.engine.class_features() if self.text else self.fixed
        logits = self.engine.logits(F.normalize(raw, dim=-1), classes)
        loss = self.loss(raw, classes, logits)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        told = logits.detach()
        with torch.no_grad():  # zero-shot is the untouched model's answer, at one more pass
            features = self.plain.clip.encode_images(pictures)
            initial = self.plain.logits(features, self.plain.start_features())
        return Adapted(
            logits=told,
            initial_logits=initial,
            selected=torch.zeros(len(told), 1, dtype=torch.long, device=told.device),
            view_entropy=entropy(told).unsqueeze(1),
            loss=loss.detach(),
        )


class NormMethod(Method):
    """A method that reads pictures, tunes layer norms and goes on from batch to batch.

    `adapt` takes a batch (B, 1, 3, H, W) and `tpt.stream` hands over 64 pictures at once. The
    answer is the one before the batch's own step; zero-shot's is that of the untouched model.
    """

    keeps_state = True
    reads_views = False
    takes_templates = False
    needs_pictures = True
    together = 64
    loss: staticmethod[[Tensor, Tensor, Tensor], Tensor]
    tunes_text = False

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        self._tuner = NormTuner(engine, self.settings, type(self).loss, text=self.tunes_text)

    def reset(self) -> None:
        """Return the layer norms to their start."""
        self._tuner.reset()

    def start_stream(self) -> None:
        self.reset()

    def adapt(self, views: Tensor) -> Adapted:
        """Predict a batch of pictures (B, 1, 3, H, W), then learn from it.

        Raises:
            MethodError: pictures of another shape.
        """
        with self._one_at_a_time():
            return self._tuner.adapt(check_pictures(self.engine.clip, views))

    def adapt_features(self, features: Tensor) -> Adapted:
        raise MethodError(
            f"{type(self).__name__} tunes the towers, so it needs pictures and not their features. "
            "Call adapt on a batch (B, 1, 3, H, W), or use tpt.stream."
        )


def check_pictures(clip: Clip, views: Tensor) -> Tensor:
    """The plain pictures (B, 3, H, W) of views (B, N, 3, H, W).

    Raises:
        MethodError: another shape.
    """
    size = clip.preprocess.size
    if views.ndim != 5 or tuple(views.shape[-3:]) != (3, *size) or 0 in views.shape:
        raise MethodError(
            f"Pictures have shape {tuple(views.shape)}; expected a batch (B, 1, 3, {size[0]}, "
            f"{size[1]}), normalised: those of a batch decide together."
        )
    return views[:, 0]
