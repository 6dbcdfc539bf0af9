"""Gate: adapt only the images that need it.

If CLIP is sure of an image, adaptation gains nothing. The gate looks at the first n views of an
image, by default only at the plain one, and measures how far they agree with it:

    score = 1/n sum_i p_i(c) (f_0 . f_i),   c = the class that view 0 names

with p_i the probabilities and f_i the unit features of view i: the cosine to view 0, weighted by
agreement with it. For n = 1 that is view 0's own confidence. If the score reaches the threshold,
the image keeps its zero-shot prediction. (Such a rule is reported to skip two of three images for
TPT; here it depends on the threshold and on the images.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods.base import Adapted, Method, check_features, encode_views
from tpt.methods.checks import check_count, check_share
from tpt.methods.first_look import FirstLook, take_first_look
from tpt.model.surroundings import Lock, steady


@dataclass(frozen=True)
class GateSettings:
    """A cautious threshold: an image is skipped only if CLIP is nearly sure."""

    threshold: float = 0.9  # images with this score or more are skipped
    views: int = 1  # how many views the gate looks at

    def __post_init__(self) -> None:
        check_share(
            self.threshold,
            "threshold is the score from which an image is left as it is, in (0, 1]; got "
            f"{self.threshold}. For no adaptation at all use tpt.ZeroShot.",
        )
        check_count("views", self.views, "how many views the gate looks at", least=1)


class Gate(Method):
    """Adapt with another method if view 0 is not sure, or if the other views disagree.

    `adapt` and `tpt.stream` (by `begin`) encode the other views only of the images that need them,
    so a skipped image costs one view (or `views`) in the image tower and no text pass.
    `adapt_features` gets all views, so it only saves the method's own work.

    A skipped image's `Adapted` has view 0's zero-shot logits, `adapted` False and no `loss`. For a
    method that votes it has one vote, from view 0.

    Args:
        method: adapts the other images; its start context (or templates) makes the decision.
        threshold: the score, in (0, 1], from which an image is skipped. Crops of a picture have a
            cosine well below one, so with several views it must be lower.
        views: how many of the first views the gate looks at.

    Raises:
        MethodError: a setting out of its range; several views of a method that reads only one.
    """

    def __init__(self, method: Method, threshold: float = 0.9, views: int = 1) -> None:
        self.method, self.engine, self.templates = method, method.engine, method.templates
        self.settings = GateSettings(threshold, views)
        self.reads_views, self.keeps_state = method.reads_views, method.keeps_state
        self.gives_probabilities, self.together = method.gives_probabilities, method.together
        if views > 1 and not method.reads_views:
            raise MethodError(
                f"The gate is to look at {views} views, but {type(method).__name__} reads the "
                "plain one alone, so no others are made. Use views=1."
            )
        self.seen = self.skipped = 0
        self._counting = Lock()

    @property
    def share_skipped(self) -> float:
        """The share of images since the last `reset` that were not adapted; 0 before the first."""
        return self.skipped / self.seen if self.seen else 0.0

    def reset(self) -> None:
        """Reset the method and the counts."""
        self.seen = self.skipped = 0
        self.method.reset()

    def start_stream(self) -> None:
        self.method.start_stream()

    @contextmanager
    def serving(self) -> Iterator[None]:
        with self.method.serving():  # the method owns the state
            yield

    def start_classes(self, plain: Tensor) -> Tensor:
        return self.method.start_classes(plain)

    def adapt(self, views: Tensor) -> Adapted:
        """Adapt to normalised views (N, 3, H, W), or to those of B images (B, N, 3, H, W)."""
        clip = self.engine.clip
        first = encode_views(clip, views, self.settings.views)
        first = first if views.ndim == 5 else first.unsqueeze(0)  # (B, n, E)
        result, needs = self.leave(first)
        places = needs.nonzero().squeeze(1)
        if len(places):
            features, batch = first[places], views if views.ndim == 5 else views.unsqueeze(0)
            rest = batch[places.to(batch.device), self.settings.views :]
            if self.reads_views and rest.numel():
                features = torch.cat([features, encode_views(clip, rest)], dim=1)
            result = _merge(result, self.method.adapt_features(features), places)
        return result if views.ndim == 5 else result.image(0)

    def adapt_checked(self, features: Tensor) -> Adapted:
        result, needs = self._leave(features)
        places = needs.nonzero().squeeze(1)
        if len(places):
            result = _merge(result, self.method.adapt_checked(features[places]), places)
        return result

    @property
    def first_views(self) -> int:
        return int(self.settings.views)

    def begin(self, features: Tensor) -> tuple[Adapted, Tensor | None]:
        return self._leave(features)

    @property
    def go_on(self) -> Method:
        return self.method

    def leave(self, features: Tensor) -> tuple[Adapted, Tensor]:
        """Decide which of B images to skip.

        Args:
            features: unit features (B, n, E) of the images' first views; views beyond the
                setting `views` are ignored.

        Returns:
            `Adapted` of all B images as if skipped, and (B,) True for those that need adaptation.

        Raises:
            MethodError: features that are not finite unit vectors of the expected shape.
        """
        return self._leave(check_features(self.engine.clip, features))

    @steady()
    @torch.no_grad()
    def _leave(self, features: Tensor) -> tuple[Adapted, Tensor]:
        first = features[:, : self.settings.views]
        parts = first.split(self.engine.clip.images_a_pass(len(first)))
        looks = [take_first_look(self, part, keep=1.0) for part in parts]
        scores = [_score(look, part) for look, part in zip(looks, parts, strict=True)]
        needs = torch.cat(scores) < self.settings.threshold
        with self._counting:
            self.seen += len(needs)
            self.skipped += len(needs) - int(needs.sum())
        plain = torch.cat([look.logits[:, 0] for look in looks])  # (B, K)
        one_vote = F.one_hot(plain.argmax(-1), plain.shape[-1])  # (B, K)
        left = Adapted(
            logits=plain,
            initial_logits=plain.clone(),
            selected=torch.zeros(len(plain), 1, dtype=torch.long, device=plain.device),
            view_entropy=torch.cat([look.view_entropy for look in looks]),
            votes=None if self.gives_probabilities else one_vote,
            adapted=torch.zeros_like(needs),
        )
        return left, needs


def _score(look: FirstLook, features: Tensor) -> Tensor:
    """1/n sum_i p_i(c) (f_0 . f_i) of unit features (B, n, E): (B,)."""
    named = look.logits[:, :1].argmax(-1, keepdim=True)  # (B, 1, 1)
    agree = look.logits.softmax(-1).take_along_dim(named, dim=-1).squeeze(-1)  # (B, n)
    cosine = (features @ features[:, 0].unsqueeze(-1)).squeeze(-1)
    cosine[:, 0] = 1  # of view 0 to itself, without rounding
    return (agree * cosine).mean(-1)


def _merge(left: Adapted, done: Adapted, places: Tensor) -> Adapted:
    """All B images: the adapted ones at `places` (b,) from `done`, the others from `left` (B)."""
    if done.adapted is None:  # it is set if the method is a gate too
        done = replace(done, adapted=torch.ones_like(places, dtype=torch.bool))
    return Adapted(**{name: _merge_field(name, left, done, places) for name in vars(left)})  # type: ignore[arg-type]


def _merge_field(name: str, left: Adapted, done: Adapted, places: Tensor) -> Tensor | None:
    """One field of both: the rows of `left` are padded to those of `done`, with NaN or -1."""
    new, old = getattr(done, name), getattr(left, name)
    if new is None:
        return None
    padding = float("nan") if new.is_floating_point() else -1
    merged = new.new_full((len(left.logits), *new.shape[1:]), padding)
    if old is not None:
        size = min(old.shape[-1], merged.shape[-1]) if merged.ndim > 1 else None
        merged[..., :size] = old[..., :size]
    merged[places] = new
    return merged
