"""Crops as two batched products: rows by picture by columns, for all crops of all pictures at once.

An antialiased resize is separable: with A (size, H) and B (size, W) the weights of the filter,
view = A picture B^T. However far it shrinks, it is Pillow's filter to a grey level, without the
rounding between the two passes. It suits GPUs, where launches are slow and products fast; a CPU's
kernel on bytes needs fewer operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tpt.images.resample import Crops
from tpt.model.transfers import send

_MOST = 2**28  # numbers between the two products


def cut_by_products(
    pictures: Sequence[Tensor], crops: Sequence[Crops], size: tuple[int, int], most: int = _MOST
) -> Tensor:
    """Bilinear crops of B pictures (1, 3, H, W), n of each: (B, n, 3, *size) grey levels, float32.

    Args:
        pictures: bytes of any sizes, on one device.
        crops: n boxes of each picture, and which of them are mirrored.
        size: of the crops.
        most: numbers between the two products; if there would be more, it works in parts.
    """
    device, count = pictures[0].device, len(crops[0].boxes)
    boxes = send(torch.from_numpy(np.stack([crop.boxes for crop in crops])), device)  # (B, n, 4)
    flips = send(torch.from_numpy(np.stack([crop.flips for crop in crops])), device)  # (B, n)
    parts = []
    for here in _split(pictures, count * size[0] * 3, most):
        canvas = lay_out(pictures[here])
        room = max(1, most // (len(canvas) * size[0] * 3 * canvas.shape[-1]))
        pieces = zip(boxes[here].split(room, 1), flips[here].split(room, 1), strict=True)
        parts.append(torch.cat([_cut(canvas, *piece, size) for piece in pieces], dim=1))
    return torch.cat(parts)


def _split(pictures: Sequence[Tensor], rows: int, most: int) -> Iterator[slice]:
    """Groups of pictures whose rows, as wide as the widest of the group, are within bounds."""
    first, widest = 0, 0
    for place, picture in enumerate(pictures):
        widest = max(widest, picture.shape[-1])
        if place > first and (place + 1 - first) * rows * widest > most:
            yield slice(first, place)
            first, widest = place, picture.shape[-1]
    yield slice(first, len(pictures))


def lay_out(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (1, 3, h, w) side by side as floats (B, H, 3, W), zero where one is smaller."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (-2, -1))
    canvas = torch.zeros(len(pictures), height, 3, width, device=pictures[0].device)
    for place, picture in zip(canvas, pictures, strict=True):
        h, w = picture.shape[-2:]
        place[:h, :, :w] = picture[0].permute(1, 0, 2)
    return canvas


def _cut(canvas: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """Crops (B, n, 3, *size) of pictures (B, H, 3, W)."""
    batch, height, _, width = canvas.shape
    top, left, tall, wide = boxes.float().unbind(-1)
    rows = weigh(top, tall, torch.zeros_like(flips), size[0], height)  # (B, n, size, H)
    columns = weigh(left, wide, flips, size[1], width)
    shrunk = rows.flatten(1, 2) @ canvas.flatten(2)  # (B, n * size, 3 * W)
    shrunk = shrunk.view(batch, -1, size[0] * 3, width)
    views = (shrunk @ columns.transpose(-1, -2)).round_().clamp_(0, 255)
    return views.view(batch, -1, size[0], 3, size[1]).transpose(2, 3)


def weigh(start: Tensor, length: Tensor, mirrored: Tensor, wanted: int, whole: int) -> Tensor:
    """(B, n, wanted, whole): the weight of each old pixel in each new one, bilinear, antialiased.

    The crops begin at `start` (B, n) and are `length` (B, n) long; nothing outside them counts.
    """
    place = torch.arange(wanted, device=start.device).expand(*start.shape, -1)
    place = torch.where(mirrored.unsqueeze(-1), wanted - 1 - place, place)
    scale = (length / wanted).unsqueeze(-1)
    centre = (place + 0.5) * scale  # (B, n, wanted), within the crop
    inside = torch.arange(whole, device=start.device) - start.unsqueeze(-1)  # (B, n, whole)
    x = (inside + 0.5).unsqueeze(-2) - centre.unsqueeze(-1)
    weights = (1 - x.abs_().div_(scale.clamp(min=1).unsqueeze(-1))).clamp_(min=0)
    within = (inside >= 0) & (inside < length.unsqueeze(-1))
    weights *= within.unsqueeze(-2)
    return weights.div_(weights.sum(-1, keepdim=True))
