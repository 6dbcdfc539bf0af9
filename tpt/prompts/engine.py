"""The prompt engine: class features as a differentiable function of the context vectors.

Training (`coop`) and test-time methods (`tpt.methods`) share it. It chooses the text path by what
the model is: the exact shared-prefix packed encoder for causal towers, open_clip's own
full-length forward pass for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import PromptError
from tpt.model.clip import Clip
from tpt.model.precision import multiplying
from tpt.model.surroundings import Lock, steady
from tpt.prompts._full_length import FullEncoder
from tpt.prompts._graphs import Recorder, Replayed
from tpt.prompts._jacobian import StartJacobian, build_start_jacobian, pull_back_each
from tpt.prompts._shared_prefix import PackedEncoder
from tpt.prompts.checks import check_fit, check_names, check_templates
from tpt.prompts.context import Context
from tpt.prompts.sentences import encode_templates
from tpt.prompts.token_rows import build_rows


class PromptEngine:
    """Class features of K classes under a context.

    Args:
        classes: K class names, in the order of the logits; `_` is a space. The same name may
            stand twice (the field's ImageNet list has two such pairs).
        context: the start context; default the words "a photo of a".
        path: "auto", or "packed" / "full" to choose the text path (for tests and benchmarks).
        force: accept a context that was learned with another model of the same width, with a
            warning.

    Raises:
        PromptError: no class, an empty name, a prompt longer than the model reads, a context of
            another width, another model or other classes.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Sequence[str],
        context: Context | None = None,
        *,
        path: str = "auto",
        force: bool = False,
    ) -> None:
        self.clip = clip
        self.classes = check_names(classes)
        self.context = Context.from_words(clip, "a photo of a") if context is None else context
        check_fit(self.context, clip, self.classes, force)
        self._lock = Lock()  # of what is computed once
        self._building = Lock()  # of the Jacobian
        if path not in ("auto", "packed", "full"):
            raise PromptError(f'Unknown text path "{path}": expected auto, packed or full.')
        if path == "packed" and not clip.text.packable:
            raise PromptError(
                "This model's text tower is not causal, or unusually built: its prompts cannot "
                'share work. Use path="auto" or path="full".'
            )
        self.path = "packed" if path != "full" and clip.text.packable else "full"
        self._start_features: Tensor | None = None
        self._start_graph: tuple[Tensor, Tensor] | None = None
        self._jacobian: StartJacobian | None = None
        self._template_features: dict[tuple[str, ...], Tensor] = {}
        records = clip.cuda_graphs and self.path == "packed"
        self._recorder = Recorder(clip.device) if records else None
        self._features_of = Replayed(self._compute_features, self._recorder)
        self._pull_back_of = Replayed(self._pull_back_by_graph, self._recorder)
        with steady(), torch.inference_mode(False), torch.no_grad():
            self._prepare()

    def _prepare(self) -> None:
        """All that is made of the classes and the context, as copies: both may be edited later."""
        clip, context = self.clip, self.context
        self._encode = self._make_encoder(self.classes, context.class_specific)
        self._start = context.vectors.to(clip.device, copy=True)
        self._meta = context.meta.to(clip.device) if context.meta else None
        self._head = context.head.to(clip.device) if context.head else None
        blend = context.blend
        self._hand: Tensor | None = None
        if blend is not None:
            self._hand = encode_templates(clip, self.classes, blend.templates)

    def _make_encoder(
        self, classes: Sequence[str], class_specific: bool
    ) -> PackedEncoder | FullEncoder:
        context = self.context
        count = context.vectors.shape[-2]
        rows = build_rows(self.clip, classes, count, context.before, context.position)
        if self.path == "packed":
            return PackedEncoder(self.clip, rows, class_specific)
        return FullEncoder(self.clip, rows)

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle cannot carry an autograd graph: it makes its own when it needs one.
        return {**vars(self), "_start_graph": None}

    @property
    def start(self) -> Tensor:
        """The start context (M, D) or (K, M, D), a copy."""
        return self._start.clone()

    @property
    def conditional(self) -> bool:
        """Whether each image has a start context of its own (CoCoOp)."""
        return self._meta is not None

    @property
    def has_head(self) -> bool:
        """Whether a few-shot head answers, so that class features have no say in the logits."""
        return self._head is not None

    def start_for(self, features: Tensor) -> Tensor:
        """Start contexts (B, M, D), or (B, K, M, D), of images with unit features (B, E).

        They differ between images only where the context is conditional.
        """
        if self._meta is None:
            return self._start.expand(len(features), *self._start.shape)
        return self._start + self._meta(features).unsqueeze(1)

    @steady()
    def class_features(self, vectors: Tensor | None = None) -> Tensor:
        """Unit class features, differentiable in `vectors`.

        Args:
            vectors: (M, D) -> (K, E) or (B, M, D) -> (B, K, E) for a unified context;
                (K, M, D) -> (K, E) or (B, K, M, D) -> (B, K, E) for a class-specific one.
                Default: the start context, where all images share one.

        Raises:
            PromptError: another shape; no vectors, where every image has its own.
        """
        if vectors is None and self.conditional:
            raise PromptError(
                "This context is conditional (CoCoOp): every image has its own class features. "
                "Give class_features the vectors that start_for(features) makes."
            )
        vectors = self._start if vectors is None else vectors.to(self.clip.device, torch.float32)
        single = self._start.ndim
        if vectors.ndim not in (single, single + 1) or vectors.shape[-single:] != self._start.shape:
            shape = ", ".join(map(str, self._start.shape))
            raise PromptError(
                f"Context vectors have shape {tuple(vectors.shape)}; this engine's context expects "
                f"({shape}), or (B, {shape}) for a batch."
            )
        if vectors.ndim == single:
            return self._compute_features(vectors.unsqueeze(0)).squeeze(0)
        if torch.is_grad_enabled() and vectors.requires_grad:
            return self._compute_features(vectors)
        return self._features_of(vectors)

    def _compute_features(self, vectors: Tensor) -> Tensor:
        with multiplying(self.clip.precision, self.clip.device):
            return self._mix(self._encode(vectors))

    # What every image starts from is a constant of the engine, computed when first asked for and
    # shared by all methods on it. It outlives the caller, who may be in inference mode or in one of
    # many threads, and who gets a copy.

    @torch.inference_mode(False)
    @torch.no_grad()
    def start_features(self) -> Tensor:
        """Unit class features (K, E) at the start context; not for a conditional one.

        Where a few-shot head answers, the class features that it was fitted beside.
        """
        if self._head is not None:
            return self._head.text.clone()
        with self._lock:
            if self._start_features is None:
                self._start_features = self.class_features()
        return self._start_features.clone()

    @torch.inference_mode(False)
    @torch.enable_grad()
    def start_graph(self) -> tuple[Tensor, Tensor]:
        """The start context and its class features (K, E) with their autograd graph.

        The graph of 1,000 classes holds about 1.5 GB, so it is made once. Keep it alive with
        `retain_graph=True`, and do not edit what is returned: it is no copy.
        """
        with self._lock:
            if self._start_graph is None:
                with self._recorder.on_side_stream() if self._recorder else nullcontext():
                    vectors = self._start.clone().requires_grad_()
                    self._start_graph = vectors, self.class_features(vectors)
            return self._start_graph

    def start_point(self) -> tuple[Tensor, Tensor]:
        """What `start_graph` gives; without the graph where `pull_back` does not go through it."""
        if self._jacobian is not None:
            return self.start, self.start_features()
        return self.start_graph()

    @steady()
    def pull_back(self, pull: Tensor) -> Tensor:
        """Gradients (B, M, D) at the start context of what has gradients (B, K, E) at its features.

        By the graph of `start_graph`, or by the Jacobian, where `build_jacobian` made one. Not for
        a conditional context. Class-specific vectors have gradients (B, K, M, D).

        Raises:
            PromptError: another shape.
        """
        expected = len(self.classes), self.clip.embedding_width
        if pull.ndim != 3 or pull.shape[1:] != expected:
            raise PromptError(
                f"Gradients at the class features are expected as (B, {expected[0]}, "
                f"{expected[1]}), but {tuple(pull.shape)} came."
            )
        jacobian = self._jacobian
        if jacobian is not None:
            with multiplying(self.clip.precision, self.clip.device):
                return jacobian.pull_back(pull)
        return self._pull_back_of(pull)

    def _pull_back_by_graph(self, pull: Tensor) -> Tensor:
        return pull_back_each(*self.start_graph(), pull, self.path == "packed")

    @steady()
    @torch.inference_mode(False)
    @torch.enable_grad()
    def build_jacobian(self, show: Callable[[int], None] | None = None) -> None:
        """From now on an image's first gradient is one product, for all methods on this engine.

        It holds K E M D numbers (4.2 GB in float32 for 1,000 classes of ViT-B/16 and four vectors)
        and takes about as long as 2.4 E images' gradients, so it pays only in long runs
        (`tpt.prompts.operations.count_jacobian` tells).

        Args:
            show: called with the number of classes that are done, first 0.

        Raises:
            PromptError: a conditional context; no memory.
        """
        self.check_jacobian()
        with self._building:  # minutes, in which others may use the engine
            if self._jacobian is not None:
                return
            self._jacobian = build_start_jacobian(
                self._own_contexts,
                len(self.classes),
                self._start.shape,
                self.clip.text_dtype,
                vectorised=self.path == "packed",
                show=show or (lambda done: None),
            )
            self._pull_back_of.forget()
            with self._lock:
                self._start_graph = None

    def check_jacobian(self) -> None:
        """Refuse a context whose images have no start in common.

        Raises:
            PromptError: it is conditional.
        """
        if self.conditional:
            raise PromptError(
                "This context is conditional (CoCoOp): every image has a start of its own, so "
                "there is no Jacobian that all share. Go without it (no --jacobian)."
            )

    def _own_contexts(self, part: slice) -> tuple[Tensor, Tensor]:
        """Start contexts (k, M, D) of some classes, one each, and features (k, E) with a graph."""
        classes = self.classes[part]
        start = self._start if self._start.ndim == 2 else self._start[part]
        vectors = start.expand(len(classes), *start.shape[-2:]).clone().requires_grad_()
        with multiplying(self.clip.precision, self.clip.device):
            soft = self._make_encoder(classes, True)(vectors.unsqueeze(0)).squeeze(0)
            return vectors, self._mix(soft, part)

    @torch.inference_mode(False)
    def template_features(self, templates: Sequence[str]) -> Tensor:
        """Unit class features (K, E) of an ensemble of templates, taken word for word.

        Raises:
            PromptError: a template without exactly one `{}`, or too long with some class name.
        """
        key = check_templates(templates)
        with self._lock:
            if key not in self._template_features:
                self._template_features[key] = encode_templates(self.clip, self.classes, key)
        return self._template_features[key].clone()

    def _mix(self, soft: Tensor, part: slice = slice(None)) -> Tensor:
        """Class features (..., K, E), of a part of them, with the blend's templates if it has."""
        if self._hand is None or self.context.blend is None:
            return soft
        weight = self.context.blend.weight
        return F.normalize(weight * soft + (1 - weight) * self._hand[part], dim=-1)

    def logits(self, features: Tensor, class_features: Tensor) -> Tensor:
        """exp(logit_scale) * f . t: (..., n, E) and class features (..., K, E) to (..., n, K).

        A few-shot head's logits, whatever the class features, where the context has one.
        """
        if self._head is not None:
            return self._head.logits(features)
        return self.clip.logit_scale * (features @ class_features.transpose(-1, -2))
