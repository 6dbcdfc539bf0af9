"""What every method takes and gives: unit view features in, `Adapted` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tpt.clip import Clip
from tpt.errors import MethodError
from tpt.prompts import PromptEngine


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outcome for one image, or for B images with a leading axis B on every tensor.

    K classes, N views, S kept views, M context vectors of width D.
    """

    logits: Tensor  # (K,) the prediction for view 0
    initial_logits: Tensor  # (K,) view 0 under the start context, before anything was tuned
    selected: Tensor  # (S,) kept views, most confident first
    view_entropy: Tensor  # (N,) nats, before this image's tuning
    vectors: Tensor | None = None  # (M, D) tuned context; None where none is tuned
    gradient: Tensor | None = None  # of the loss at the first step, shaped like `vectors`
    loss: Tensor | None = None  # () marginal entropy of the kept views before the first step
    final_loss: Tensor | None = None  # () the same after the last step

    def image(self, index: int) -> Adapted:
        """One image's part of a batch."""
        parts = {k: None if v is None else v[index] for k, v in vars(self).items()}
        return Adapted(**parts)  # type: ignore[arg-type]


class Method(Protocol):
    """The two calls of every method, and what the runtime asks of it."""

    engine: PromptEngine

    @property
    def reads_views(self) -> bool:
        """False where only view 0 matters, so that only view 0 has to be made."""

    @property
    def keeps_state(self) -> bool:
        """True where the result depends on the images before."""

    def adapt(self, views: Tensor) -> Adapted: ...

    def adapt_features(self, features: Tensor) -> Adapted: ...

    def reset(self) -> None: ...

    def start_stream(self) -> None: ...


def encode_views(clip: Clip, views: Tensor, count: int | None = None) -> Tensor:
    """Unit features (N, E) or (B, N, E) of normalised views (N, 3, H, W) or (B, N, 3, H, W).

    Args:
        clip: the model.
        views: the views.
        count: how many of each image's views are encoded, the first ones; default all.

    Raises:
        MethodError: another shape or picture size.
    """
    size = clip.preprocess.size
    if views.ndim not in (4, 5) or tuple(views.shape[-3:]) != (3, *size) or 0 in views.shape:
        raise MethodError(
            f"Views have shape {tuple(views.shape)}; expected (N, 3, {size[0]}, {size[1]}), or "
            f"(B, N, 3, {size[0]}, {size[1]}) for a batch. `tpt.Views` makes them."
        )
    batch = views if views.ndim == 5 else views.unsqueeze(0)
    features = clip.encode_views(batch[:, :count])
    return features if views.ndim == 5 else features.squeeze(0)


def check_features(clip: Clip, features: Tensor) -> Tensor:
    """Features as float32 (B, N, E) on the model's device, if they are unit view features.

    Raises:
        MethodError: another shape, NaN or infinite numbers, or rows that are not of length one.
    """
    width = clip.embedding_width
    if features.ndim not in (2, 3) or 0 in features.shape or features.shape[-1] != width:
        raise MethodError(
            f"View features have shape {tuple(features.shape)}; expected (N, {width}), or "
            f"(B, N, {width}) for a batch, with at least one view."
        )
    features = features.to(clip.device, torch.float32)
    if not bool(features.isfinite().all()):
        raise MethodError(
            "View features hold NaN or infinite numbers. The image tower overflowed or its input "
            "was not finite; try precision fp32 or bf16."
        )
    norms = features.norm(dim=-1)
    if not bool(((norms - 1).abs() < 1e-2).all()):
        raise MethodError(
            f"View features are {float(norms.min()):.3g} to {float(norms.max()):.3g} long; "
            "expected unit length. Divide them by their norm, or use `adapt` on the views."
        )
    return features if features.ndim == 3 else features.unsqueeze(0)
