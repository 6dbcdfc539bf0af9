"""TDA: two caches of the stream's own images correct the zero-shot logits.

Adilbek Karmanov et al. (2403.18293). Every image counts for its zero-shot class c, with the entropy
H of its prediction p. The positive cache keeps, for each class, the 3 images of lowest H. The
negative cache keeps 2 of those with 0.2 < H / log2(K) < 0.5 (H in nats, as published), and with
each a mask of the classes k that it might be, 0.03 < p_k < 1. With keys q_j, the unit features of
cached images:

    logits = scale f T^T + alpha sum_j exp(-beta (1 - f . q_j)) onehot(c_j)
                         - alpha' sum_j exp(-beta' (1 - f . q_j)) mask_j

An image enters the caches before it is predicted. Published (alpha, beta): (2, 5) on ImageNet and
ImageNet-A, (1, 8) on V2 and R; (alpha', beta') = (0.117, 1).
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.methods._feature_cache import Cache
from tpt.methods._stream_state import StreamMethod
from tpt.methods.base import Adapted
from tpt.methods.checks import check_count, check_keep, check_number, check_reset
from tpt.methods.first_look import take_first_look
from tpt.methods.objective import marginal_entropy

WINDOW, SHARE = 50, 0.9  # a stream looks correlated if this share of the window is of one class


@dataclass(frozen=True)
class TDASettings:
    """Published defaults, those for ImageNet."""

    positive_capacity: int = 3  # images a class in the positive cache; 0: no such cache
    alpha: float = 2.0  # weight of the positive cache's logits
    beta: float = 5.0  # how fast a cached image's influence falls with its distance
    negative_capacity: int = 2  # 0: no such cache; its masks take K * capacity * K bytes
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    entropy_low: float = 0.2  # the negative cache takes images with H / log2(K) from here ...
    entropy_high: float = 0.5  # ... to here
    mask_low: float = 0.03  # they count against classes with more than this probability ...
    mask_high: float = 1.0  # ... and less than this
    keep: float | None = None  # share of the views whose mean is used; None: view 0 alone
    reset: str = "stream"  # when the caches are emptied: at each stream's start, or "never"

    def __post_init__(self) -> None:
        for name in ("positive_capacity", "negative_capacity"):
            check_count(name, getattr(self, name), "how many images a class are cached")
        if self.positive_capacity == self.negative_capacity == 0:
            raise MethodError(
                "Without any cache the method is zero-shot: use tpt.ZeroShot, or --method "
                "zero_shot."
            )
        for name in ("alpha", "beta", "negative_alpha", "negative_beta"):
            check_number(name, getattr(self, name), "a weight of the caches", above=False)
        for kind in ("entropy", "mask"):
            low, high = getattr(self, f"{kind}_low"), getattr(self, f"{kind}_high")
            numbers = isinstance(low, Real) and isinstance(high, Real)
            if not (numbers and 0 <= low < high <= 1):
                raise MethodError(
                    f"{kind}_low and {kind}_high bound a share: 0 <= low < high <= 1 is expected; "
                    f"got {low} and {high}."
                )
        if self.keep is not None:
            check_keep(self.keep)
        check_reset(self.reset, "stream", "never", default="stream")


class TDA(StreamMethod):
    """Zero-shot prediction corrected by caches of the images before.

    The caches help on mixed streams. On a correlated one (video frames, images sorted by class) the
    published gains vanish or turn negative, because the caches fill with near-copies of the image.
    Call `reset()` between scenes, or shuffle. With more than two classes, a warning appears, once a
    stream, if more than 90 % of the last 50 images were taken for the same class.

    With `keep`, the mean of the confident views represents the image, as in the public program on
    ImageNet-A, V2, R and Sketch.
    """

    Settings = TDASettings

    @property
    def reads_views(self) -> bool:
        return bool(self.settings.keep is not None)

    def _empty(self) -> None:
        sizes = {"positive": self.settings.positive_capacity}
        sizes["negative"] = self.settings.negative_capacity
        clip, count = self.engine.clip, len(self.engine.classes)
        self._caches = {
            name: Cache(count, size, clip.embedding_width, name == "negative", clip.device)
            for name, size in sizes.items()
            if size
        }
        self._begin()

    def _begin(self) -> None:
        """Start to watch for a correlated stream anew."""
        self._recent: deque[int] = deque(maxlen=WINDOW)
        self._warned = False

    def start_stream(self) -> None:
        super().start_stream()
        self._begin()

    @property
    def cached(self) -> dict[str, int]:
        """How many images each cache holds."""
        return {name: len(cache) for name, cache in self._caches.items()}

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        for name, cache in self._caches.items():
            own = (key for key in tensors if key.startswith(f"{name}."))
            cache.take({key.split(".", 1)[1]: tensors[key] for key in own})
        self._begin()

    def _tensors(self) -> dict[str, Tensor]:
        caches = self._caches.items()
        return {f"{name}.{key}": t for name, cache in caches for key, t in cache.tensors().items()}

    @torch.inference_mode(False)
    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        """Predict one image's views (1, N, E)."""
        self._loaded = False
        keep = self.settings.keep
        look = take_first_look(self, features, 1.0 if keep is None else keep)
        kept = look.kept(look.logits)[0]  # (S, K)
        feature = look.kept(features)[0].mean(0)  # (E,); as published, not made unit again
        plain = kept.mean(0)  # (K,)
        self._remember(feature, int(plain.argmax()), kept)
        return look.outcome((plain + self._correction(feature)).unsqueeze(0))

    def _remember(self, feature: Tensor, label: int, kept: Tensor) -> None:
        """Offer an image of class `label` with its views' logits (S, K) to the caches."""
        wanted, uncertainty = self.settings, marginal_entropy(kept)
        if "positive" in self._caches:
            self._caches["positive"].offer(label, uncertainty, feature)
        count = kept.shape[-1]
        share = float(uncertainty) / math.log2(count) if count > 1 else 0.0
        if "negative" in self._caches and wanted.entropy_low < share < wanted.entropy_high:
            p = kept.softmax(-1).mean(0)
            mark = (p > wanted.mask_low) & (p < wanted.mask_high)
            self._caches["negative"].offer(label, uncertainty, feature, mark)
        self._watch(label)

    def _correction(self, feature: Tensor) -> Tensor:
        """What the caches add (K,) to the logits of a feature (E,)."""
        wanted = self.settings
        added = torch.zeros(len(self.engine.classes), device=feature.device)
        if "positive" in self._caches:
            added += wanted.alpha * self._caches["positive"].affinity(feature, wanted.beta).sum(1)
        if "negative" in self._caches:
            cache = self._caches["negative"]
            near = cache.affinity(feature, wanted.negative_beta).flatten()  # (K * C,)
            assert cache.marks is not None
            added -= wanted.negative_alpha * (near @ cache.marks.flatten(0, 1).float())
        return added

    def _watch(self, label: int) -> None:
        """Warn, once, if nearly all of the last images were taken for one class."""
        self._recent.append(label)
        count = self._recent.count(label)
        classes = self.engine.classes
        if self._warned or len(classes) <= 2 or count <= SHARE * WINDOW:
            return
        self._warned = True
        warnings.warn(
            f'{count} of the last {WINDOW} images were taken for "{classes[label]}": the stream '
            "looks correlated (video, or images sorted by class). There TDA is no better than "
            "zero-shot, or worse. Shuffle the images, call reset() between scenes, or use a method "
            "that keeps no state.",
            UserWarning,
            stacklevel=2,
        )
