"""What the corruptions are made of: blur kernels, warps and seeded textures, at any picture size.

Lengths are given for a picture whose shorter side is 224 pixels; `reference_scale` converts them to
the picture at hand. Textures are drawn on a grid of that size and then resized, so that they look
the same on a thumbnail and on a photograph of 12 megapixels.

Arrays are float32, pictures (H, W, 3) in [0, 1] and maps (H, W). Convolution goes through numpy's
FFT, whose bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Floats: TypeAlias = npt.NDArray[np.float32]

REFERENCE = 224
"""The side for which the published parameters were chosen."""

_LONGEST = 4  # the scale of a strip longer than this many short sides follows its length


def reference_scale(x: Floats) -> float:
    """Pixels of this picture for one pixel of a picture whose shorter side is 224."""
    short, long = sorted(x.shape[:2])
    return max(short, long / _LONGEST) / REFERENCE


def reference_grid(x: Floats) -> tuple[int, int]:
    """The height and width of this picture brought to a shorter side of 224."""
    scale = reference_scale(x)
    height, width = x.shape[:2]
    return max(1, round(height / scale)), max(1, round(width / scale))


# --- blur ---


def convolve(x: Floats, kernel: Floats) -> Floats:
    """Picture (H, W, C) with every channel convolved with a kernel of odd sides, mirrored edges."""
    height, width, channels = x.shape
    rows, columns = kernel.shape
    size = [_fast_length(height + rows - 1), _fast_length(width + columns - 1)]
    spectrum = np.fft.rfft2(kernel, s=size, axes=(0, 1))
    out = np.empty_like(x)
    for channel in range(channels):
        around = ((rows // 2, rows // 2), (columns // 2, columns // 2))
        padded = np.pad(x[..., channel], around, mode="symmetric")
        full = np.fft.irfft2(
            np.fft.rfft2(padded, s=size, axes=(0, 1)) * spectrum, s=size, axes=(0, 1)
        )
        out[..., channel] = full[rows - 1 :, columns - 1 :][:height, :width]
    return out


def _fast_length(least: int) -> int:
    """The next length without large prime factors, which make Fourier transforms slow."""
    step = 1 << max(0, least.bit_length() - 5)
    return -(-least // step) * step


def splat(points: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> Floats:
    """A kernel of sum 1 with a weight at each point (n, 2) as (y, x) from its centre.

    Points between pixels are spread bilinearly, so that a blur of a third of a pixel shows too.
    """
    radius = math.ceil(float(np.abs(points).max())) + 1
    side = 2 * radius + 1
    floor = np.floor(points)
    part = points - floor
    at = floor.astype(np.int64) + radius
    kernel = np.zeros(side * side)
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            place = (at[:, 0] + dy) * side + at[:, 1] + dx
            kernel += np.bincount(place, share * weights, minlength=side * side)
    return (kernel / kernel.sum()).reshape(side, side).astype(np.float32)


def disc_kernel(radius: float) -> Floats:
    """A lens out of focus: an even disc."""
    steps = np.linspace(-radius, radius, 2 * max(8, math.ceil(2 * radius)) + 1)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    inside = y**2 + x**2 <= radius**2 * (1 + 1e-9)
    points = np.stack([y[inside], x[inside]], axis=1)
    return splat(points, np.ones(len(points)))


def streak_kernel(radius: float, sigma: float, degrees: float) -> Floats:
    """A moving camera: half a Gaussian bell along a line of length twice the radius."""
    along = np.linspace(0, 2 * radius, max(9, math.ceil(4 * radius) + 1))
    angle = math.radians(degrees)
    points = np.stack([along * math.sin(angle), along * math.cos(angle)], axis=1)
    return splat(points, np.exp(-((along / sigma) ** 2) / 2))


def gaussian_kernel(sigma: float) -> Floats:
    """A Gaussian bell, integrated over each pixel so that a small sigma is right too."""
    radius = max(1, math.ceil(4 * sigma))
    edges = [
        math.erf((k - 0.5) / (sigma * math.sqrt(2))) for k in range(-radius, radius + 2)
    ]  # at the left of each pixel, and at the right of the last
    line = np.diff(np.array(edges))
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype(np.float32)


# --- warps ---


def sample(x: Floats, rows: Floats, columns: Floats) -> Floats:
    """Picture (H, W, C) read bilinearly at pixel positions (h, w), mirrored at its edges."""
    height, width = x.shape[:2]
    grid = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], axis=-1)
    out = F.grid_sample(
        torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1).unsqueeze(0),
        torch.from_numpy(grid.astype(np.float32)).unsqueeze(0),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    picture: Floats = out[0].permute(1, 2, 0).numpy()
    return picture


def pixel_positions(x: Floats) -> tuple[Floats, Floats]:
    """The row and the column of every pixel, each (H, W)."""
    height, width = x.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    return rows, columns


def zoom(x: Floats, factor: float) -> Floats:
    """The picture's middle, enlarged by the factor to the picture's size."""
    middle_y, middle_x = ((side - 1) / 2 for side in x.shape[:2])
    rows, columns = pixel_positions(x)
    return sample(
        x, middle_y + (rows - middle_y) / factor, middle_x + (columns - middle_x) / factor
    )


def fit(field: Floats, x: Floats) -> Floats:
    """A map of the reference size brought to the picture's, bilinearly and antialiased."""
    if field.shape == x.shape[:2]:
        return field
    out = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(field))[None, None],
        size=x.shape[:2],
        mode="bilinear",
        antialias=True,
    )
    resized: Floats = out[0, 0].numpy()
    return resized


# --- textures ---


def make_plasma(
    rng: np.random.Generator, height: int, width: int, decay: float, coarsest: int = 2
) -> Floats:
    """A cloud (H, W) from 0 to 1: ever finer noise, each octave 1 / decay^2 as strong.

    Args:
        coarsest: cells of the first octave along the longer side.
    """
    side, strength = coarsest + 1, 1.0
    field = rng.uniform(-1, 1, (side, side)).astype(np.float32)
    while side < max(height, width):
        side, strength = 2 * side - 1, strength / decay**2
        field = _refine(field)
        field += np.float32(strength) * rng.uniform(-1, 1, (side, side)).astype(np.float32)
    field = field[:height, :width]
    low, high = float(field.min()), float(field.max())
    return (field - np.float32(low)) / np.float32(max(high - low, 1e-6))


def _refine(field: Floats) -> Floats:
    """Midpoints put between the points of a square map: side n becomes 2 n - 1."""
    side = 2 * len(field) - 1
    out = np.empty((side, side), dtype=np.float32)
    out[::2, ::2] = field
    out[::2, 1::2] = (field[:, 1:] + field[:, :-1]) / 2
    out[1::2] = (out[2::2] + out[:-1:2]) / 2
    return out


def make_frost(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Ice on a window, (H, W, 3): a milky film, bright veins, and needles in bundles."""
    film = make_plasma(rng, height, width, decay=1.4, coarsest=6)
    veins = 1 - np.abs(2 * make_plasma(rng, height, width, decay=1.3, coarsest=8) - 1)
    needles = np.zeros((height, width, 1), dtype=np.float32)
    first = rng.uniform(0, 360)
    for bundle in range(6):  # crystals grow in directions 60 degrees apart
        seeds = (rng.random((height, width, 1)) > 0.994).astype(np.float32)
        patch = make_plasma(rng, height, width, decay=2, coarsest=3)[..., None]
        streak = streak_kernel(12, 10, first + 60 * bundle + rng.uniform(-8, 8))
        needles = np.maximum(needles, convolve(seeds * patch, streak / streak.max()))
    ice = 0.05 + 0.3 * film + 0.4 * veins**6 + 0.45 * needles[..., 0]
    ice = np.clip(ice, 0, 1)[..., None]
    tint = np.array([1.2, 1.0, 0.9], dtype=np.float32)  # thin ice is bluish, thick ice white
    return ice**tint
