"""Ways in which a picture is less than a clean photograph; the templates use the same words.

Each function takes pictures (n, 3, H, W) in [0, 1] and draws its strength from torch's generator.
They are not the corruptions that `tpt corrupt` measures with: other kernels, other strengths.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import kornia.filters as kf
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from lite.backbone import to_tensor


def clean(x: Tensor) -> Tensor:
    return x


def blur(x: Tensor) -> Tensor:
    """A Gaussian or a disc."""
    if torch.rand(()) < 0.5:
        sigma = _one(1.5, 5)
        size = 2 * math.ceil(2.5 * sigma) + 1
        return kf.gaussian_blur2d(x, (size, size), (sigma, sigma))
    radius = _one(2, 7)
    across = torch.arange(-math.ceil(radius), math.ceil(radius) + 1).float()
    disc = (torch.hypot(across[:, None], across[None]) <= radius).float()[None]
    return kf.filter2d(x, disc / disc.sum())


def noise(x: Tensor) -> Tensor:
    """Gaussian, or salt and pepper."""
    if torch.rand(()) < 0.7:
        return (x + torch.randn_like(x) * _each(x, 0.06, 0.3)).clamp(0, 1)
    at, share = torch.rand_like(x[:, :1]), _each(x, 0.02, 0.12)
    return torch.where(at < share / 2, 0.0, torch.where(at > 1 - share / 2, 1.0, x))


def lowres(x: Tensor) -> Tensor:
    side = int(torch.randint(20, 56, ()))
    mode = "nearest" if torch.rand(()) < 0.4 else "bicubic"
    return _resize(F.interpolate(x, size=(side, side), mode="area"), x, mode)


def jpeg(x: Tensor) -> Tensor:
    pictures = []
    for pixels in (x * 255).byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(torch.randint(4, 20, ())))
        pictures.append(to_tensor(Image.open(file)))
    return torch.stack(pictures) / 255


def dark(x: Tensor) -> Tensor:
    return (x ** _each(x, 1, 1.6) * _each(x, 0.12, 0.5)).clamp(0, 1)


def bright(x: Tensor) -> Tensor:
    return (x ** _each(x, 0.5, 1) * _each(x, 1.1, 1.7) + _each(x, 0.05, 0.3)).clamp(0, 1)


def lowcontrast(x: Tensor) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    return (mean + (x - mean) * _each(x, 0.1, 0.45)).clamp(0, 1)


def fog(x: Tensor) -> Tensor:
    """A cloud of four octaves before the picture, brightness kept."""
    octaves = ((3, 1.0), (6, 0.6), (12, 0.35), (24, 0.2))
    cloud = sum(
        weight * F.interpolate(torch.rand(len(x), 1, n, n), size=x.shape[-2:], mode="bicubic")
        for n, weight in octaves
    )
    assert isinstance(cloud, Tensor)
    low, high = cloud.amin((1, 2, 3), keepdim=True), cloud.amax((1, 2, 3), keepdim=True)
    depth, top = _each(x, 0.8, 2.5), x.amax((1, 2, 3), keepdim=True)
    return ((x + depth * (cloud - low) / (high - low)) * top / (top + depth)).clamp(0, 1)


def gray(x: Tensor) -> Tensor:
    return _grey(x).expand_as(x)


def sketch(x: Tensor) -> Tensor:
    """Edges as dark lines on white, or pencil shading (colour dodge)."""
    grey, sigma = _grey(x), _one(0.6, 2)
    if torch.rand(()) < 0.5:
        edges = _edges(grey, 7, sigma)
        return (1 - (edges * _each(x, 0.8, 1.6)).clamp(0, 1)).expand_as(x)
    soft = kf.gaussian_blur2d(1 - grey, (21, 21), (3 * sigma, 3 * sigma))
    shade = (grey / (1 - soft).clamp(min=0.05)).clamp(0, 1)
    return ((shade - 0.5) * _each(x, 1, 3) + 0.6).clamp(0, 1).expand_as(x)


def cartoon(x: Tensor) -> Tensor:
    """Flat, saturated colours with black outlines."""
    levels = int(torch.randint(3, 6, ()))
    flat = (_median(x, 7) * levels).round() / levels
    flat = (flat + (flat - _grey(flat)) * 0.5).clamp(0, 1)
    return torch.where(_edges(_grey(x), 5, 1.2) > 0.6, 0.0, flat)


def painting(x: Tensor) -> Tensor:
    """Brush strokes (a median), a warped canvas and shifted colours."""
    size = 2 * int(torch.randint(2, 4, ())) + 1
    warp = _resize(torch.randn(len(x), 2, 28, 28), x, "bicubic", limit=False) * 0.02
    straight = torch.eye(2, 3).expand(len(x), 2, 3)
    grid = F.affine_grid(straight, list(x.shape), align_corners=False) + warp.permute(0, 2, 3, 1)
    strokes = F.grid_sample(_median(x, size), grid, padding_mode="reflection", align_corners=False)
    mean, tint = strokes.mean((2, 3), keepdim=True), 1 + 0.15 * torch.randn(len(x), 3, 1, 1)
    return ((strokes - mean) * _each(x, 0.8, 1.4) + mean * tint).clamp(0, 1)


def closeup(x: Tensor) -> Tensor:
    zoom = _each(x, 0.35, 0.6).flatten()
    shift = (torch.rand(2, len(x)) * 2 - 1) * (1 - zoom)
    zero = torch.zeros_like(zoom)
    rows = [torch.stack([zoom, zero, shift[0]], 1), torch.stack([zero, zoom, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def far(x: Tensor) -> Tensor:
    """The picture small, somewhere on the blurred picture of another."""
    height = x.shape[-1]
    side = int(_one(0.3, 0.55) * height)
    ground = F.interpolate(x.flip(0), size=(32, 32), mode="area")
    ground = _resize(kf.gaussian_blur2d(ground, (9, 9), (3.0, 3.0)), x, "bicubic")
    top, left = torch.randint(0, height - side, (2,)).tolist()
    small = F.interpolate(x, size=(side, side), mode="area")
    ground[:, :, top : top + side, left : left + side] = small
    return ground


STYLES: tuple[Callable[[Tensor], Tensor], ...] = (
    clean, blur, noise, lowres, jpeg, dark, bright, lowcontrast, fog, gray, sketch, cartoon,
    painting, closeup, far,
)  # fmt: skip
STYLE_NAMES = tuple(style.__name__ for style in STYLES)


def _one(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def _each(x: Tensor, low: float, high: float) -> Tensor:
    return torch.rand(len(x), 1, 1, 1) * (high - low) + low


def _grey(x: Tensor) -> Tensor:
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _edges(grey: Tensor, size: int, sigma: float) -> Tensor:
    """Strength of edges; 1 where the strongest fiftieth begins."""
    edges = kf.sobel(kf.gaussian_blur2d(grey, (size, size), (sigma, sigma)))
    strong = edges.flatten(1).quantile(0.98, dim=1).view(-1, 1, 1, 1)
    return edges / strong.clamp(min=1e-3)


def _median(x: Tensor, size: int) -> Tensor:
    """Pillow's: kornia's gathers every window first and takes a second a picture."""
    smooth = ImageFilter.MedianFilter(size)
    pixels = (x * 255).byte().permute(0, 2, 3, 1).numpy()
    return torch.stack([to_tensor(Image.fromarray(p).filter(smooth)) for p in pixels]) / 255


def _resize(x: Tensor, like: Tensor, mode: str, limit: bool = True) -> Tensor:
    x = F.interpolate(x, size=like.shape[-2:], mode=mode)
    return x.clamp(0, 1) if limit else x
