"""Augmented views of images, made on the model's device.

View 0 is the plain picture, preprocessed as the model wants it (open_clip's own resize and centre
crop). The others are random resized crops with flips ("crop"), or those crops put through AugMix
("augmix", Hendrycks et al., 1912.02781, severity 1 as in the TPT paper's fine-grained sets).

An image's views depend only on the seed and on the image's content (`Picture.digest`), because the
two seed all random numbers. So a picture has the same views under any path, at any place of a
stream, in any batch, on any machine.

`tpt.images.resample` cuts, resizes and normalises; on a GPU `tpt.images._products` cuts all crops
of a batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.images._augmix import mix_chains
from tpt.images._products import cut_by_products
from tpt.images.decode import Picture, is_one_image, load_picture
from tpt.images.resample import (
    ASPECT,
    Crops,
    cut_each,
    make_room,
    normalise,
    preprocess_plain,
    shrink_huge,
    works_on_bytes,
)
from tpt.images.rng import make_rng
from tpt.model.clip import Clip
from tpt.model.surroundings import steady
from tpt.model.transfers import Sender

KINDS = ("crop", "augmix")
_TRIES = 10


class Views:
    """Make N views of each image.

    Args:
        clip: the model; its picture size, statistics and device are used.
        n: views an image, the plain one included; the published number is 64.
        kind: "crop" (random resized crop and flip) or "augmix" (the same, then AugMix).
        seed: with an image's content it seeds the image's views.
        scale: the smallest and largest share of the image's area that a crop covers.

    Raises:
        MethodError: a setting out of its range.
    """

    def __init__(
        self,
        clip: Clip,
        n: int = 64,
        kind: str = "crop",
        seed: int = 0,
        scale: tuple[float, float] = (0.08, 1.0),
    ) -> None:
        if n < 1:
            raise MethodError(f"The number of views must be at least 1; got {n}.")
        if kind not in KINDS:
            raise MethodError(f'Unknown kind of views "{kind}": expected crop or augmix.')
        if not 0 < scale[0] <= scale[1] <= 1:
            raise MethodError(
                f"scale is the smallest and largest share of the area that a crop covers, within "
                f"(0, 1]; got {scale}."
            )
        self.clip, self.n, self.kind, self.seed, self.scale = clip, n, kind, seed, scale
        self._send = Sender()

    def check_model(self, clip: Clip) -> None:
        """Refuse to make views for a model that wants its pictures otherwise.

        Raises:
            MethodError: naming both models and what they want.
        """
        if clip.preprocess != self.clip.preprocess:
            raise MethodError(
                f"These views are made for {_describe(self.clip)}, but the method's model is "
                f"{_describe(clip)}. Use tpt.Views(method.engine.clip)."
            )

    @steady()
    def __call__(self, images: Any, keys: Sequence[str | int] | None = None) -> Tensor:
        """Normalised views (B, N, 3, H, W), float32, on the model's device.

        Args:
            images: B images of any sizes: a list of tensors (3, H, W) (uint8, or floats in
                [0, 1]), arrays (H, W, 3), PIL images, paths or decoded pictures; or one tensor
                (B, 3, H, W).
            keys: what seeds each image's views besides the seed; default its content.

        Raises:
            ImageError: an image that cannot be read.
            MethodError: no image, one that is not in a list, or another number of keys.
        """
        pictures = self._load(images)
        keys = [picture.digest for picture in pictures] if keys is None else keys
        if len(keys) != len(pictures):
            raise MethodError(
                f"{len(pictures)} images came with {len(keys)} keys; expected as many."
            )
        levels = self._cut(self._to_device(pictures), keys)
        if self.kind == "augmix" and self.n > 1:
            rngs = [self._rng(key, "augmix") for key in keys]
            mixed = mix_chains(levels[:, 1:].flatten(0, 1) / 255, *rngs)
            levels[:, 1:] = (mixed * 255).unflatten(0, (len(levels), -1))
        return normalise(levels.flatten(0, 1), self.clip.preprocess).view(levels.shape)

    @steady()
    def plain(self, images: Any) -> Tensor:
        """View 0 alone, (B, 1, 3, H, W): all that a method without adaptation needs."""
        pictures = self._to_device(self._load(images))
        views = torch.stack([preprocess_plain(p, self.clip.preprocess) for p in pictures])
        return normalise(views.float(), self.clip.preprocess).unsqueeze(1)

    def _load(self, images: Any) -> list[Picture]:
        """The images one by one, decoded once."""
        many = isinstance(images, (Tensor, np.ndarray))
        if is_one_image(images) or (many and images.ndim != 4):
            shape = f" of shape {tuple(images.shape)}" if many else ""
            raise MethodError(
                f"Images are expected as a list, or as one tensor (B, 3, H, W), but a single "
                f"{type(images).__name__}{shape} came. Write views([image])."
            )
        pictures = [i if isinstance(i, Picture) else load_picture(i) for i in images]
        if not pictures:
            raise MethodError("No images came; views can be made of at least one.")
        return pictures

    def _to_device(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Images as uint8 (1, 3, H, W) in channels-last order, the resampler's fastest."""
        sent = self._send([picture.pixels for picture in pictures], self.clip.device)
        return [pixels.permute(2, 0, 1).unsqueeze(0) for pixels in sent]

    def _cut(self, pictures: Sequence[Tensor], keys: Sequence[str | int]) -> Tensor:
        """Grey levels (B, N, 3, H, W), float32 whole numbers: the plain views and the crops."""
        facts, device = self.clip.preprocess, self.clip.device
        views = make_room((len(pictures), self.n, 3, *facts.size), device)
        for view, picture in zip(views, pictures, strict=True):
            view[0] = preprocess_plain(picture, facts)
        if self.n == 1:
            return views
        sources = [shrink_huge(picture, facts.size, self.scale[0]) for picture in pictures]
        crops = [
            draw_crops(self._rng(key, "crop"), source.shape[-2:], self.n - 1, self.scale)
            for source, key in zip(sources, keys, strict=True)
        ]
        if not works_on_bytes(device):
            views[:, 1:] = cut_by_products(sources, crops, facts.size)
            return views
        for view, source, some in zip(views, sources, crops, strict=True):
            for place, part in enumerate(cut_each(source, some, facts.size), start=1):
                view[place] = part
        return views

    def _rng(self, key: str | int, purpose: str) -> np.random.Generator:
        return make_rng(self.seed, purpose, type(key).__name__, key)


def _describe(clip: Clip) -> str:
    """A model with what it wants of its pictures."""
    facts = ", ".join(f"{key} {value}" for key, value in vars(clip.preprocess).items())
    return f"{clip.name or 'a model without a name'} ({facts})"


def draw_crops(
    rng: np.random.Generator, size: Sequence[int], count: int, scale: tuple[float, float]
) -> Crops:
    """Random resized crops by torchvision's rule: area in `scale`, log-uniform aspect 3/4 to 4/3.

    Ten tries each; where none fits the image, the largest centred box of allowed aspect.
    """
    height, width = int(size[0]), int(size[1])
    u = rng.random((4, count, _TRIES))
    flips = rng.random(count) < 0.5
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[0])
    low, high = np.log(ASPECT)
    aspect = np.exp(low + (high - low) * u[1])
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, each = fits.argmax(1), np.arange(count)
    w, h = w[each, first], h[each, first]
    top = np.floor(u[2][each, first] * (height - h + 1)).astype(np.int64)
    left = np.floor(u[3][each, first] * (width - w + 1)).astype(np.int64)
    boxes = np.stack([top, left, h, w], axis=1)
    boxes[~fits.any(1)] = _central_box(height, width)
    return Crops(boxes, flips)


def _central_box(height: int, width: int) -> tuple[int, int, int, int]:
    h, w = height, width
    if width / height < ASPECT[0]:
        h = max(1, round(width / ASPECT[0]))
    elif width / height > ASPECT[1]:
        w = max(1, round(height * ASPECT[1]))
    h, w = min(h, height), min(w, width)
    return (height - h) // 2, (width - w) // 2, h, w
