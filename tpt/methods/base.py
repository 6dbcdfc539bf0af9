"""What every method takes and gives: unit view features in, `Adapted` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.start_classes import StartClasses
from tpt.model.clip import Clip
from tpt.prompts import PromptEngine


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outcome for one image, or for B images with a leading axis B on every tensor.

    K classes, N views, S kept views, M context vectors of width D. A field is None where the method
    has no such thing. In a batch of which `tpt.Gate` left some images as they were, their rows
    are padded (NaN, and -1 in `selected`); `image` takes the padding off again.
    """

    logits: Tensor  # (K,) the prediction for view 0; the votes, where the method votes
    initial_logits: Tensor  # (K,) view 0 under the start context, before anything was tuned
    selected: Tensor  # (S,) kept views, most confident first
    view_entropy: Tensor  # (N,) nats, before this image's tuning
    vectors: Tensor | None = None  # (M, D) tuned context
    shift: Tensor | None = None  # (K, E) what was added to the class features
    gradient: Tensor | None = None  # of `loss`, shaped like `vectors` or `shift`
    loss: Tensor | None = None  # () what is minimised, before the first step
    final_loss: Tensor | None = None  # () the same after the last step
    entropy: Tensor | None = None  # () nats, marginal entropy of the kept views before anything
    final_entropy: Tensor | None = None  # () the same under what was tuned
    votes: Tensor | None = None  # (K,) how many kept views name each class
    adapted: Tensor | None = None  # () False where `tpt.Gate` left the image as it was

    def image(self, index: int) -> Adapted:
        """One image's part of a batch."""
        one = Adapted(**{k: None if v is None else v[index] for k, v in vars(self).items()})  # type: ignore[arg-type]
        return one if one.adapted is None or bool(one.adapted) else one._as_left()

    def _as_left(self) -> Adapted:
        """What can be said of an image that was not adapted."""
        return Adapted(
            logits=self.logits,
            initial_logits=self.initial_logits,
            selected=self.selected[self.selected >= 0],
            view_entropy=self.view_entropy[self.view_entropy.isfinite()],
            votes=self.votes,
            adapted=self.adapted,
        )


class Method(Protocol):
    """The two calls of every method, and what the runtime asks of it."""

    engine: PromptEngine

    @property
    def start(self) -> StartClasses:
        """The class features that every image starts from."""

    @property
    def reads_views(self) -> bool:
        """False where only view 0 matters, so that only view 0 has to be made."""

    @property
    def keeps_state(self) -> bool:
        """True where the result depends on the images before."""

    @property
    def gives_probabilities(self) -> bool:
        """False where `logits` are votes, of which a softmax means nothing."""

    def adapt(self, views: Tensor) -> Adapted: ...

    def adapt_features(self, features: Tensor) -> Adapted: ...

    def reset(self) -> None: ...

    def start_stream(self) -> None: ...


def adapt_images(
    clip: Clip, features: Tensor, adapt: Callable[[Tensor], Adapted], *, in_order: bool = False
) -> Adapted:
    """Run `adapt`, which takes (B, N, E), on checked features (N, E) or (B, N, E).

    Args:
        clip: the model the features are of.
        features: unit view features; view 0 is the plain one.
        adapt: the method itself.
        in_order: one image after the other, because each depends on those before.

    Raises:
        MethodError: features that are not finite unit vectors of the expected shape.
    """
    batch = check_features(clip, features)
    # One by one on a CPU: there it costs nothing, and an image's numbers are then the same to the
    # last bit whatever shares its batch.
    if in_order or batch.device.type == "cpu":
        result = join_images([adapt(one) for one in batch.split(1)])
    else:
        result = adapt(batch)
    return result if features.ndim == 3 else result.image(0)


def join_images(parts: Sequence[Adapted]) -> Adapted:
    """One batch of several; all have the same fields."""

    def join(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    return Adapted(**{name: join(name) for name in Adapted.__dataclass_fields__})  # type: ignore[arg-type]


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
