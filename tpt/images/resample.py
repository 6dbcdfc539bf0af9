"""Resampling as Pillow does it: crops, the model's own preprocessing, huge pictures made smaller.

Crops are resampled by torch's antialiased kernel, which is Pillow's filter: on a CPU it works on
bytes as Pillow does and differs from it by at most one grey level. kornia's own crops
(`crop_and_resize`) do not antialias: on 40 real pictures their features have a mean cosine of 0.889
to those of Pillow's crops, ours 1.000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.model.clip import Preprocess
from tpt.model.transfers import send

_FAR = 16  # devices other than a CPU shrink by more than this with matrix products

ASPECT = (3 / 4, 4 / 3)  # of a crop, width by height, smallest and largest


@dataclass(frozen=True)
class Crops:
    """Boxes (n, 4) as top, left, height, width in pixels, and which of them are mirrored (n,)."""

    boxes: npt.NDArray[Any]
    flips: npt.NDArray[Any]


def normalise(levels: Tensor, facts: Preprocess) -> Tensor:
    """Grey levels (n, 3, H, W), 0 to 255, made relative to the model's channel statistics.

    In place. On a CPU one picture after the other, which stays in its cache for the three steps.
    """
    mean, std = send(torch.tensor([facts.mean, facts.std]), levels.device).view(2, 3, 1, 1)
    for part in levels.split(1 if works_on_bytes(levels.device) else max(1, len(levels))):
        part.div_(255).sub_(mean).div_(std)
    return levels


def make_room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """An empty float32 tensor. On a CPU NumPy asks the system for huge pages, which torch does not.

    40 MB of small pages cost a fifth of the time that a picture's views take.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def works_on_bytes(device: torch.device) -> bool:
    """Whether pictures are resized by the kernel on bytes, one by one, rather than on floats."""
    return device.type == "cpu"


def cut(
    picture: Tensor, crops: Crops, size: tuple[int, int], filter_name: str = "bilinear"
) -> Tensor:
    """Crops of a picture (1, 3, H, W), resampled to `size` and mirrored: (n, 3, *size), uint8."""
    return torch.stack(list(cut_each(picture, crops, size, filter_name)))


def cut_each(
    picture: Tensor, crops: Crops, size: tuple[int, int], filter_name: str = "bilinear"
) -> Iterator[Tensor]:
    """As `cut`, crop by crop."""
    for (top, left, h, w), flip in zip(crops.boxes.tolist(), crops.flips.tolist(), strict=True):
        part = resize(picture[:, :, top : top + h, left : left + w], size, filter_name)[0]
        yield part.flip(-1) if flip else part


def resize(picture: Tensor, size: tuple[int, int], filter_name: str) -> Tensor:
    """Antialiased resize of bytes (1, 3, H, W) to bytes, as Pillow does it.

    On a CPU the kernel works on bytes; elsewhere on floats, rounded (0.2 levels off on average).
    Kernels of other devices refuse to shrink far (CUDA's to a 47th), so two matrix products apply
    the same filter there.
    """
    if works_on_bytes(picture.device):
        return F.interpolate(picture, size=size, mode=filter_name, antialias=True)
    pixels = picture.float()
    if max(picture.shape[-2] / size[0], picture.shape[-1] / size[1]) > _FAR:
        exact = shrink_far(pixels, size, filter_name)
    else:
        exact = F.interpolate(pixels, size=size, mode=filter_name, antialias=True)
    return exact.clamp(0, 255).round().to(torch.uint8)


def shrink_far(pixels: Tensor, size: tuple[int, int], filter_name: str) -> Tensor:
    """The antialiased resize of floats (1, 3, H, W), however far: rows by pixels by columns."""
    rows, columns = (
        send(_filter_weights(length, wanted, filter_name).to(pixels.dtype), pixels.device)
        for length, wanted in zip(pixels.shape[-2:], size, strict=True)
    )
    return rows @ pixels @ columns.T


def _filter_weights(length: int, wanted: int, filter_name: str) -> Tensor:
    """(wanted, length): the weight of each old pixel in each new one, as in Pillow."""
    scale = length / wanted
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale
    places = torch.arange(length, dtype=torch.float64) + 0.5
    x = ((places - centres[:, None]) / max(scale, 1)).abs()
    if filter_name == "bilinear":
        weights = (1 - x).clamp(min=0)
    else:  # bicubic with a = -0.5
        near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdim=True)


def shrink_huge(picture: Tensor, size: tuple[int, int], smallest: float) -> Tensor:
    """Average a very large picture down by a whole factor before many crops are cut from it.

    The factor leaves the smallest crop at least twice the model's input on each side, where the
    antialiasing filter hardly sees a difference. A 12-megapixel photograph cropped to 64 x 64 costs
    a twentieth that way; pictures of up to 1,000 pixels are never touched.
    """
    shortest_crop = min(picture.shape[-2:]) * (smallest * ASPECT[0]) ** 0.5
    factor = int(shortest_crop / (2 * max(size)))
    if factor < 2:
        return picture
    small = F.avg_pool2d(picture.float(), factor).round().to(torch.uint8)
    return small.contiguous(memory_format=torch.channels_last)


def preprocess_plain(picture: Tensor, facts: Preprocess) -> Tensor:
    """The model's own evaluation preprocessing of bytes (1, 3, H, W), before normalisation.

    Returns (3, h, w) uint8. "shortest" resizes the short side and crops the centre; "longest"
    resizes the long side and adds a border; "squash" ignores the aspect. Rounding follows
    torchvision and open_clip.
    """
    size = facts.size
    if facts.resize_mode == "squash":
        return resize(picture, size, facts.interpolation)[0]
    if facts.resize_mode == "longest":
        ratio = max(picture.shape[-2] / size[0], picture.shape[-1] / size[1])
        inner = tuple(max(1, round(side / ratio)) for side in picture.shape[-2:])
        return _centre(resize(picture, (inner[0], inner[1]), facts.interpolation), facts)
    picture = _trim_long(picture)
    height, width = picture.shape[-2:]
    if size[0] == size[1]:
        short = min(height, width)
        inner = (int(size[0] * height / short), int(size[0] * width / short))
    else:
        ratio = min(height / size[0], width / size[1])
        inner = (max(size[0], round(height / ratio)), max(size[1], round(width / ratio)))
    return _centre(resize(picture, inner, facts.interpolation), facts)


def _trim_long(picture: Tensor) -> Tensor:
    """Drop the far ends of a very long picture, which the centre crop would drop anyway.

    Resizing a 1 x 5000 strip until its short side fits would make a million pixels for nothing.
    """
    short = min(picture.shape[-2:])
    for axis in (-2, -1):
        length = picture.shape[axis]
        if length > 8 * short:
            start = (length - 4 * short) // 2
            picture = picture.narrow(axis, start, length - 2 * start)  # the middle stays the middle
    return picture


def _centre(picture: Tensor, facts: Preprocess) -> Tensor:
    """Centre crop, or centre in a border of grey level `facts.fill`, to the model's size."""
    for axis, wanted in ((-2, facts.size[0]), (-1, facts.size[1])):
        length = picture.shape[axis]
        if length >= wanted:
            spare = length - wanted
            start = spare // 2 if facts.centre == "floor" else round(spare / 2)
            picture = picture.narrow(axis, start, wanted)
        else:
            ahead = (wanted - length) // 2
            pad = [ahead, wanted - length - ahead]
            picture = F.pad(picture, pad if axis == -1 else [0, 0, *pad], value=facts.fill)
    return picture[0]
