"""Tune the layer norms of a copy of the model: the part that TENT and BATCLIP share.

The caller's weights stay as they are. The copy of the whole model and its gradients are float32, so
these methods need the memory for them. They are for streams of corrupted pictures.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.errors import MethodError
from tpt.methods.base import Adapted, Method
from tpt.methods.checks import check_lr, check_number
from tpt.methods.objective import entropy
from tpt.model.clip import Clip
from tpt.prompts import PromptEngine

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


@dataclass(frozen=True)
class NormSettings:
    """The optimiser of the layer norms; the values of TENT's public CLIP program."""

    lr: float = 1e-3
    optimizer: str = "Adam"  # or "AdamW"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_lr(self.lr)
        if self.optimizer not in OPTIMIZERS:
            raise MethodError(f'Unknown optimizer "{self.optimizer}": expected Adam or AdamW.')
        check_number("weight_decay", self.weight_decay, "the decay of the weights", above=False)


class NormMethod(Method):
    """A method that reads pictures and tunes layer norms from batch to batch until `reset`.

    `adapt` takes a batch (B, 1, 3, H, W), and `tpt.stream` gives it 64 pictures at once. Each batch
    is predicted before its own step. The zero-shot answer is that of the untouched model.

    Raises:
        MethodError: an image tower without layer norms, a few-shot head, a CoCoOp context.
    """

    keeps_state = True
    reads_views = False
    takes_templates = False
    needs_pictures = True
    together = 64
    loss: staticmethod[[Tensor, Tensor, Tensor], Tensor]
    """The loss () of raw image features (B, E), class features (K, E) and logits (B, K)."""
    tunes_text = False
    """Whether the class features are computed anew each step, so that the text tower learns too."""

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        super().__init__(engine, *values, **options)
        if engine.conditional or engine.has_head:
            raise MethodError(
                "A method that tunes the towers needs one set of class features, from words or "
                "learned vectors, but a CoCoOp context or a few-shot head has none. Use another "
                "prompt."
            )
        model = copy.deepcopy(engine.clip.model).float()
        # The full-length path runs the tower's own modules, so gradients reach their weights.
        self._tuned = PromptEngine(
            Clip(model, engine.clip.tokenizer),
            engine.classes,
            engine.context,
            path="full",
            force=True,
        )
        norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
        self._weights = [p for norm in norms for p in norm.parameters()]
        tower = getattr(model, "visual", model)
        if not any(isinstance(module, nn.LayerNorm) for module in tower.modules()):
            raise MethodError(
                "This model's image tower has no layer norms to tune: a convolutional one, such as "
                "the embedded model's, has batch norms. Use a vision transformer (--model "
                "ViT-B-16, say), or another method."
            )
        self._start = [p.detach().clone() for p in self._weights]
        with torch.no_grad():
            self._fixed = self._tuned.class_features()
        self.reset()

    def reset(self) -> None:
        """Return the layer norms and their optimiser to their start."""
        with torch.no_grad():
            for weight, start in zip(self._weights, self._start, strict=True):
                weight.copy_(start)
                weight.requires_grad_(True)
        self._optimizer = OPTIMIZERS[self.settings.optimizer](
            self._weights, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )

    def start_stream(self) -> None:
        self.reset()

    def adapt(self, views: Tensor) -> Adapted:
        """Predict a batch of pictures (B, 1, 3, H, W), then learn from it.

        Raises:
            MethodError: pictures of another shape.
        """
        size = self.engine.clip.preprocess.size
        if views.ndim != 5 or tuple(views.shape[-3:]) != (3, *size) or 0 in views.shape:
            raise MethodError(
                f"Pictures have shape {tuple(views.shape)}; expected a normalised batch "
                f"(B, 1, 3, {size[0]}, {size[1]}), which is predicted together."
            )
        with self._one_at_a_time():
            return self._take_step(views[:, 0])

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _take_step(self, pictures: Tensor) -> Adapted:
        """Predict a batch (B, 3, H, W), then take a step on it for the next batch."""
        clip = self._tuned.clip
        raw = clip.model.encode_image(pictures.to(clip.device).float())  # type: ignore[operator]
        classes = self._tuned.class_features() if self.tunes_text else self._fixed
        logits = self._tuned.logits(F.normalize(raw, dim=-1), classes)
        loss = self.loss(raw, classes, logits)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        logits = logits.detach()
        with torch.no_grad():  # zero-shot needs one more pass, of the untouched model
            features = self.engine.clip.encode_images(pictures)
            initial = self.engine.logits(features, self.engine.start_features())
        return Adapted(
            logits=logits,
            initial_logits=initial,
            selected=torch.zeros(len(logits), 1, dtype=torch.long, device=logits.device),
            view_entropy=entropy(logits).unsqueeze(1),
            loss=loss.detach(),
        )

    def adapt_features(self, features: Tensor) -> Adapted:
        raise MethodError(
            f"{type(self).__name__} tunes the towers, so it needs pictures, not their features. "
            "Call adapt on a batch (B, 1, 3, H, W), or use tpt.stream."
        )
