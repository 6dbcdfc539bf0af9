"""AugMix on a batch of views: three chains of one to three small operations, mixed.

Dan Hendrycks et al., "AugMix" (1912.02781), at severity 1 and with the operations of the TPT
paper: autocontrast, equalize, posterize, rotate, solarize, shear x/y, translate x/y. The weights
of the chains are Dirichlet(1), the weight of the clean view is Beta(1, 1). Every operation runs on
all views that drew it at once, with kornia; pixels are rounded to 8 bits after each, as in Pillow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import kornia
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tpt.model.transfers import send

CHAINS, DEPTH, SEVERITY = 3, 3, 1.0
PIXEL_OPS = ("autocontrast", "equalize", "posterize", "solarize")
WARP_OPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPS = (*PIXEL_OPS, *WARP_OPS)


class Chains(NamedTuple):
    """What was drawn for n views."""

    ops: npt.NDArray[Any]  # (CHAINS, DEPTH, n) index OPS
    level: npt.NDArray[Any]  # (CHAINS, DEPTH, n)
    sign: npt.NDArray[Any]  # (CHAINS, DEPTH, n)
    depth: npt.NDArray[Any]  # (CHAINS, n)
    weight: npt.NDArray[Any]  # (CHAINS, n)
    clean: npt.NDArray[Any]  # (1, n)


def draw_chains(rng: np.random.Generator, count: int) -> Chains:
    """Draw the chains of one picture's views."""
    draws = rng.random((4, CHAINS, DEPTH, count))
    depth = 1 + np.floor(rng.random((CHAINS, count)) * DEPTH).astype(np.int64)
    weight = -np.log1p(-rng.random((CHAINS, count)))  # exponentials: Dirichlet(1) once summed
    return Chains(
        ops=np.floor(draws[0] * len(OPS)).astype(np.int64),
        level=0.1 + (SEVERITY - 0.1) * draws[1],
        sign=np.where(draws[2] < 0.5, -1.0, 1.0),
        depth=depth,
        weight=weight / weight.sum(0),
        clean=rng.random((1, count)),
    )


def mix_chains(views: Tensor, *rngs: np.random.Generator) -> Tensor:
    """AugMix of views (n, 3, H, W) with values in [0, 1]; the same shape and range.

    Args:
        views: the same number of each picture, one picture after the other.
        rngs: each picture's own, so that its views do not depend on its neighbours.
    """
    drawn = [draw_chains(rng, len(views) // len(rngs)) for rng in rngs]
    chains = Chains(*(np.concatenate(parts, axis=-1) for parts in zip(*drawn, strict=True)))
    clean = _each(chains.clean[0], views)
    mixed = torch.zeros_like(views)
    for chain in range(CHAINS):
        changed = views
        for step in range(DEPTH):
            active = np.where(step < chains.depth[chain], chains.ops[chain, step], -1)
            changed = _apply(changed, active, chains.level[chain, step], chains.sign[chain, step])
        mixed += _each(chains.weight[chain], views) * changed
    return clean * views + (1 - clean) * mixed


def _each(values: npt.NDArray[Any], views: Tensor) -> Tensor:
    """A number for each view (n,), beside them: (n, 1, 1, 1)."""
    return send(torch.from_numpy(values).to(views.dtype), views.device).view(-1, 1, 1, 1)


def _apply(
    views: Tensor, ops: npt.NDArray[Any], level: npt.NDArray[Any], sign: npt.NDArray[Any]
) -> Tensor:
    """One operation a view: `ops` (n,) indexes OPS, -1 leaves the view as it is."""
    result = views.clone()
    for index, name in enumerate(PIXEL_OPS):
        where = np.flatnonzero(ops == index)
        if len(where):
            here = send(torch.from_numpy(where), views.device)
            result[here] = _round(_change_pixels(name, views[here], level[where]))
    where = np.flatnonzero(ops >= len(PIXEL_OPS))
    if len(where):
        names = [OPS[i] for i in ops[where]]
        size = views.shape[-2:]
        maps = [
            _source_map(n, v, s, size)
            for n, v, s in zip(names, level[where], sign[where], strict=True)
        ]
        here = send(torch.from_numpy(where), views.device)
        result[here] = _round(_warp(views[here], torch.from_numpy(np.stack(maps))))
    return result


def _change_pixels(name: str, views: Tensor, level: npt.NDArray[Any]) -> Tensor:
    if name == "autocontrast":
        low, high = views.amin((-2, -1), keepdim=True), views.amax((-2, -1), keepdim=True)
        flat = (high - low) < 0.5 / 255
        return torch.where(flat, views, kornia.enhance.normalize_min_max(views))
    if name == "equalize":
        return kornia.enhance.equalize(views)
    if name == "posterize":
        bits = 4 - np.floor(level * 4 / 10).astype(np.int64)
        return kornia.enhance.posterize(views, send(torch.from_numpy(bits), views.device))
    threshold = (256 - np.floor(level * 256 / 10)) / 255
    return torch.where(views < _each(threshold, views) - 1e-4, views, 1 - views)


def _source_map(name: str, level: float, sign: float, size: torch.Size) -> npt.NDArray[Any]:
    """(2, 3): where in the old view each pixel of the new one comes from, as Pillow writes it."""
    height, width = size
    shift = sign * math.floor(level * (width / 3) / 10)
    shear = sign * level * 0.3 / 10
    angle = -math.radians(sign * math.floor(level * 30 / 10))  # counter-clockwise, as in Pillow
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    maps = {
        "translate_x": [[1, 0, shift], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, shift]],
        "shear_x": [[1, shear, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [shear, 1, 0]],
        "rotate": [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]],
    }
    return np.array(maps[name], dtype=np.float64)


def _warp(views: Tensor, source: Tensor) -> Tensor:
    """Views resampled bilinearly by maps (n, 2, 3) between pixel corners; black outside."""
    if 1 in views.shape[-2:]:  # turned, sheared or moved this little, a line of pixels stays
        return views
    # kornia maps pixel centres forward; Pillow's maps go backward between corners.
    centre = source.clone()
    centre[:, :, 2] += source[:, :, :2].sum(-1) / 2 - 0.5
    square = torch.cat([centre, centre.new_tensor([[[0, 0, 1]]]).expand(len(centre), 1, 3)], dim=1)
    forward = send(torch.linalg.inv(square)[:, :2].to(views.dtype), views.device)
    size = (views.shape[-2], views.shape[-1])
    return kornia.geometry.transform.warp_affine(
        views, forward, dsize=size, mode="bilinear", padding_mode="zeros", align_corners=True
    )


def _round(pixels: Tensor) -> Tensor:
    return (pixels.clamp(0, 1) * 255).round() / 255
