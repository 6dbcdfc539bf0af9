"""The input and output of every method, and the one base class they share.

A method is a frozen dataclass of settings and a hook, `_adapt`, from unit view features (B, N, E)
to `Adapted`. The base class checks the input, splits it into passes, encodes views, and builds the
constructor from the settings. `docs/adding-a-method.md` shows a complete method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.reading import Reading
from tpt.model.clip import Clip
from tpt.model.precision import multiplying
from tpt.model.surroundings import Lock, steady
from tpt.prompts import PromptEngine
from tpt.prompts.checks import check_templates


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outcome for one image, or for B images with a leading axis B on every tensor.

    K classes, N views, S kept views, M context vectors of width D. A field that the method does not
    compute is None. In a batch, the rows of images that `tpt.Gate` skipped are padded with NaN, and
    with -1 in `selected`; `image` removes the padding.
    """

    logits: Tensor  # (K,) the prediction for view 0; votes, if the method votes
    initial_logits: Tensor  # (K,) view 0 under the start context, before anything was tuned
    selected: Tensor  # (S,) kept views, most confident first
    view_entropy: Tensor  # (N,) nats, before this image's tuning
    vectors: Tensor | None = None  # (M, D) tuned context
    shift: Tensor | None = None  # (K, E) added to the class features
    gradient: Tensor | None = None  # of `loss`, shaped like `vectors` or `shift`
    loss: Tensor | None = None  # () the minimised loss, before the first step
    final_loss: Tensor | None = None  # () the same after the last step
    entropy: Tensor | None = None  # () nats, marginal entropy of the kept views before tuning
    final_entropy: Tensor | None = None  # () the same after tuning
    votes: Tensor | None = None  # (K,) how many kept views name each class
    adapted: Tensor | None = None  # () False where `tpt.Gate` skipped the image

    @property
    def is_finite(self) -> bool:
        """False where the method diverged, so that the logits predict nothing."""
        return bool(self.logits.isfinite().all())

    def image(self, index: int) -> Adapted:
        """One image of a batch."""
        # A number that the whole batch shares has no axis to index.
        one = Adapted(
            **{k: v if v is None or not v.ndim else v[index] for k, v in vars(self).items()}
        )
        if one.adapted is None or bool(one.adapted):
            return one
        return Adapted(
            logits=one.logits,
            initial_logits=one.initial_logits,
            selected=one.selected[one.selected >= 0],
            view_entropy=one.view_entropy[one.view_entropy.isfinite()],
            votes=one.votes,
            adapted=one.adapted,
        )


@dataclass(frozen=True)
class NoSettings:
    """For methods without anything to set."""


class Method:
    """Base of the methods: the two calls, the settings, where every image starts.

    A subclass sets its `Settings` and defines `_adapt`. The constructor then takes `engine`, one
    argument per setting and, if `takes_templates`, `templates`: sentences with one `{}` each, taken
    word for word, whose ensemble replaces the engine's context.

    Raises:
        MethodError: a setting out of its range.
        PromptError: a template without exactly one `{}`, or too long with some class name.
    """

    Settings: ClassVar[type] = NoSettings
    title: ClassVar[str] = ""  # as in its paper; the class's name if empty
    summary: ClassVar[str] = ""  # what it does, in a line
    cost: ClassVar[str] = ""  # of one image, besides encoding its views
    paper: ClassVar[str] = ""  # arXiv id
    gradient: ClassVar[bool] = False  # whether it takes optimiser steps
    takes_templates: ClassVar[bool] = True  # False if the context itself is tuned
    gives_probabilities: Any = True  # False if `logits` are votes: their softmax means nothing
    reads_views: Any = True  # False if only view 0 matters: then only view 0 is made
    keeps_state: Any = False  # True if the result depends on other images, usually earlier ones
    reading: Any = Reading()  # how its logits become scores; `tpt calibrate` finds one
    needs_pictures: Any = False  # True if it tunes the image tower: then only `adapt` is called
    together: Any = None  # the batch size, if the images of a batch decide about one another

    _signature: ClassVar[Signature]  # of this constructor: the settings as arguments

    def __init_subclass__(cls) -> None:
        kind = Parameter.POSITIONAL_OR_KEYWORD
        known = [
            Parameter(field.name, kind, default=field.default, annotation=field.type)
            for field in fields(cls.Settings)
        ]
        if cls.takes_templates:
            known.append(Parameter("templates", kind, default=None))
        cls._signature = Signature([Parameter("engine", kind), *known])
        shown = cls._signature
        if "__init__" in vars(cls) and "Settings" not in vars(cls):
            # A constructor of its own, such as the gate's.
            shown = Signature(list(signature(cls.__init__).parameters.values())[1:])
        cls.__signature__ = shown  # type: ignore[attr-defined]

    def __init__(self, engine: PromptEngine, *values: Any, **options: Any) -> None:
        given = self._signature.bind(engine, *values, **options).arguments
        del given["engine"]
        self.engine = engine
        self.templates = check_templates(given.pop("templates", None) or ())
        if engine.has_head and (self.gradient or self.templates):
            raise MethodError(
                f"A few-shot head answers by image features, so {self.title or type(self).__name__}"
                f" has {'nothing to tune' if self.gradient else 'no place for templates'}. "
                "Use a method that tunes nothing (zero_shot, vte, zero, mta, tda), without "
                "templates."
            )
        self.settings: Any = self.Settings(**given)

    # --- what a method defines ---

    def _adapt(self, features: Tensor) -> Adapted:
        """Predict checked unit view features (B, N, E); view 0 is the plain one."""
        raise NotImplementedError(f"{type(self).__name__} does not define _adapt(features).")

    def reset(self) -> None:
        """Forget the images before, if the method keeps state."""

    def start_stream(self) -> None:
        """Called by `tpt.stream` before its first image."""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve one stream: call `start_stream`, and refuse a second stream until the block ends.

        Raises:
            MethodError: the method keeps state and already serves another stream.
        """
        turn: Lock = vars(self).setdefault("_turn", Lock())
        if not self.keeps_state:
            self.start_stream()
            yield
            return
        if not turn.take():
            raise MethodError(
                f"This {type(self).__name__} serves another stream already, and the state of one "
                "would affect the other. Exhaust or close() the first stream, or make a method "
                "for each."
            )
        try:
            self.start_stream()
            yield
        finally:
            turn.free()

    # --- what callers use ---

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to those of B images (B, N, 3, H, W).

        Raises:
            MethodError: another shape or picture size.
        """
        count = None if self.reads_views else 1
        return self.adapt_features(encode_views(self.engine.clip, views, count))

    def adapt_features(self, features: Tensor) -> Adapted:
        """Adapt to unit view features (N, E), or to those of B images (B, N, E).

        View 0 is the plain one.

        Returns:
            `Adapted`, with a leading axis B if `features` has one.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        result = self.adapt_checked(check_features(self.engine.clip, features))
        return result if features.ndim == 3 else result.image(0)

    @steady()
    def adapt_checked(self, features: Tensor) -> Adapted:
        """Adapt to features (B, N, E) without checking them, which would wait for the device.

        They must be finite, float32 and on the device, as `Clip.encode_views` gives them.
        """
        clip = self.engine.clip
        batch = features if self.reads_views else features[:, :1]
        images = 1 if self.keeps_state else clip.images_a_pass(len(batch))
        if self.together is not None:
            images = len(batch)
        with self._one_at_a_time(), multiplying(clip.precision, clip.device):
            return join_images([self._adapt(part) for part in batch.split(images)])

    @property
    def weighs_others(self) -> bool:
        """Whether an image's outcome depends on earlier images or on its batch."""
        return bool(self.keeps_state) or self.together is not None

    @property
    def batch_size(self) -> int:
        """How many images a stream adapts at once by default."""
        return int(self.together or self.engine.clip.batch_size)

    def _one_at_a_time(self) -> AbstractContextManager[None]:
        """A lock for methods that keep state, so that threads adapt their images in turn."""
        lock: Lock = vars(self).setdefault("_state", Lock())
        return lock if self.keeps_state else nullcontext()

    @property
    def first_views(self) -> int | None:
        """How many of an image's views `begin` takes; None for all of them."""
        return None if self.reads_views else 1

    def begin(self, features: Tensor) -> tuple[Adapted, Tensor | None]:
        """The outcome of B images from their first views (B, `first_views`, E), not checked.

        Returns:
            The outcome, and (B,) True for images that `go_on` must adapt with all their views, or
            None if there are none.
        """
        return self.adapt_checked(features), None

    @property
    def go_on(self) -> Method:
        """The method for the images that `begin` leaves undecided."""
        return self

    @torch.no_grad()
    def start_classes(self, plain: Tensor) -> Tensor:
        """The class features before any adaptation, for images of view-0 features (B, E).

        Returns:
            (K, E) if all images share them, (B, K, E) with a conditional (CoCoOp) context.
        """
        if self.templates:
            return self.engine.template_features(self.templates)
        if self.engine.conditional:
            return self.engine.class_features(self.engine.start_for(plain))
        return self.engine.start_features()


def join_images(parts: Sequence[Adapted]) -> Adapted:
    """Join the parts of a batch; all have the same fields."""

    def join(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    return Adapted(**{name: join(name) for name in Adapted.__dataclass_fields__})  # type: ignore[arg-type]


def encode_views(clip: Clip, views: Tensor, count: int | None = None) -> Tensor:
    """Unit features (N, E) or (B, N, E) of normalised views (N, 3, H, W) or (B, N, 3, H, W).

    Args:
        count: encode only the first `count` views of each image; default all.

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
    """Unit view features as float32 (B, N, E) on the model's device.

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
