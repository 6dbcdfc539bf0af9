"""The fifteen common corruptions of ImageNet-C: what each does, and its five levels.

Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations" (1903.12261); severities 1 to 5 are the published parameters. They were chosen
for pictures of 224 x 224 pixels, so lengths (radii, shifts, block sides, the grain of snow, fog
and frost) grow and shrink with the shorter side / 224.

It is written anew on numpy, torch and Pillow and does not reproduce the published pictures bit by
bit. Differences on purpose: frost is a drawn texture, not one of the published photographs;
glass_blur moves all pixels of a pass at once instead of swapping one by one; elastic_transform has
parameters of its own, and snow one number in severity 5, because the published ones do not grow
with severity; noise, JPEG's blocks, and pixelate on pictures below 224 pixels, count in the
picture's own pixels. `docs/corruptions.md` has the table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from tpt.corrupt import _optics as optics
from tpt.corrupt._optics import Floats
from tpt.errors import ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator

REVISION = 1
"""Grows whenever a kind's pixels change, so that no set is continued with other pixels."""

LONGEST_JPEG = 65_500
"""The longest side, in pixels, of a JPEG file."""


@dataclass(frozen=True)
class Corruption:
    """One kind: what it does to a picture (H, W, 3) in [0, 1], and its five levels."""

    apply: Callable[[Floats, Any, Rng], Floats]
    levels: tuple[Any, Any, Any, Any, Any]
    random: bool


# --- noise ---


def _add_gaussian_noise(x: Floats, deviation: float, rng: Rng) -> Floats:
    return x + np.float32(deviation) * rng.standard_normal(x.shape, dtype=np.float32)


def _add_shot_noise(x: Floats, photons: float, rng: Rng) -> Floats:
    """Light counted in photons: a white pixel gives `photons` on average."""
    return (rng.poisson(x * photons) / photons).astype(np.float32)


def _add_impulse_noise(x: Floats, share: float, rng: Rng) -> Floats:
    """Salt and pepper: `share` of all values become 0 or 1."""
    u = rng.random(x.shape, dtype=np.float32)
    return np.where(u < share, (u < share / 2).astype(np.float32), x)


# --- blur ---


def _blur_defocus(x: Floats, radius: float, rng: Rng) -> Floats:
    return optics.convolve(x, optics.disc_kernel(radius * optics.reference_scale(x)))


def _blur_glass(x: Floats, level: tuple[float, float, int], rng: Rng) -> Floats:
    """Blur, shuffle neighbours up to `reach` apart in some passes, blur again."""
    sigma, reach, passes = level
    kernel = optics.gaussian_kernel(sigma * optics.reference_scale(x))
    x = optics.convolve(x, kernel)
    rows, columns = optics.pixel_positions(x)
    for _ in range(passes):
        down, right = (_draw_grains(x, reach, rng) for _ in range(2))
        x = optics.sample(x, rows + down, columns + right)
    return optics.convolve(x, kernel)


def _draw_grains(x: Floats, reach: float, rng: Rng) -> Floats:
    """Random shifts (H, W) in pixels, uniform in +-reach; in large pictures one a grain."""
    height, width = x.shape[:2]
    h, w = optics.reference_grid(x)
    scale = optics.reference_scale(x)
    if h >= height:  # a grain is at most a pixel large: shifts are parts of a pixel
        return rng.uniform(-reach, reach, (height, width)).astype(np.float32) * scale
    grains = np.rint(rng.uniform(-reach, reach, (h, w))).astype(np.float32)
    down = np.arange(height) * h // height
    right = np.arange(width) * w // width
    return grains[down[:, None], right] * np.float32(scale)


def _blur_motion(x: Floats, level: tuple[float, float], rng: Rng) -> Floats:
    radius, sigma = level
    angle = rng.uniform(-45, 45)
    scale = optics.reference_scale(x)
    return optics.convolve(x, optics.streak_kernel(radius * scale, sigma * scale, angle))


def _blur_zoom(x: Floats, level: tuple[float, int], rng: Rng) -> Floats:
    """The mean of the picture and its enlargements, `count` of them from 1 to `largest`."""
    largest, count = level
    total = x.copy()
    for factor in np.linspace(1, largest, count):
        total += optics.zoom(x, float(factor))
    return total / np.float32(count + 1)


# --- weather ---


def _let_snow(x: Floats, level: tuple[float, ...], rng: Rng) -> Floats:
    mean, deviation, size, threshold, radius, sigma, clear = level
    grid = optics.reference_grid(x)
    flakes = mean + deviation * rng.standard_normal((*grid, 1), dtype=np.float32)
    flakes = optics.zoom(flakes, size)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1)).astype(np.float32)
    kernel = optics.streak_kernel(radius, sigma, rng.uniform(-135, -45))
    layer = optics.fit(optics.convolve(flakes, kernel)[..., 0], x)[..., None]
    grey = x @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    pale = np.maximum(x, 1.5 * grey[..., None] + 0.5)
    return clear * x + (1 - clear) * pale + layer + layer[::-1, ::-1]


def _let_freeze(x: Floats, level: tuple[float, float], rng: Rng) -> Floats:
    picture, ice = level
    frost = optics.make_frost(rng, *optics.reference_grid(x))
    fitted = [optics.fit(frost[..., c], x) for c in range(3)]
    return picture * x + ice * np.stack(fitted, axis=-1)


def _let_fog_in(x: Floats, level: tuple[float, float], rng: Rng) -> Floats:
    thickness, decay = level
    cloud = optics.make_plasma(rng, *optics.reference_grid(x), decay)
    brightest = float(x.max())
    fogged = x + thickness * optics.fit(cloud, x)[..., None]
    return fogged * np.float32(brightest / (brightest + thickness))


# --- digital ---


def _brighten(x: Floats, more: float, rng: Rng) -> Floats:
    """More of HSV's value at the same hue and saturation: the three channels, scaled together."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(more), 1)
    return np.where(value > 0, x * (brighter / np.maximum(value, 1e-6)), brighter)


def _lower_contrast(x: Floats, share: float, rng: Rng) -> Floats:
    means = x.mean(axis=(0, 1), keepdims=True, dtype=np.float64).astype(np.float32)
    return (x - means) * np.float32(share) + means


def _warp_elastically(x: Floats, level: tuple[float, float, float], rng: Rng) -> Floats:
    """A random affine map, three points of which move by up to `jitter`, and a smooth local warp.

    The local warp is noise uniform in +-1, smoothed by a Gaussian `smoothness` wide, times
    `strength`.
    """
    strength, smoothness, jitter = level
    height, width = x.shape[:2]
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    arm = min(height, width) / 3
    points = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-jitter, jitter, points.shape) * optics.reference_scale(x)
    affine = np.linalg.lstsq(np.c_[points, np.ones(3)], moved, rcond=None)[0].astype(np.float32)
    grid = optics.reference_grid(x)
    noise = rng.uniform(-1, 1, (*grid, 2)).astype(np.float32)
    local = optics.convolve(noise, optics.gaussian_kernel(smoothness)) * (
        strength * optics.reference_scale(x)
    )
    rows, columns = optics.pixel_positions(x)
    down, right = (
        rows * affine[0, axis]
        + columns * affine[1, axis]
        + affine[2, axis]
        + optics.fit(local[..., axis], x)
        for axis in range(2)
    )
    return optics.sample(x, down, right)


def _pixelate(x: Floats, share: float, rng: Rng) -> Floats:
    """Shrunk to `share` of 224 pixels (of its own below that), and enlarged without smoothing."""
    height, width = x.shape[:2]
    factor = share / max(1.0, optics.reference_scale(x))
    picture = Image.fromarray(to_bytes(x))
    small = picture.resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BOX
    )
    return to_floats(np.asarray(small.resize((width, height), Image.Resampling.BOX)))


def _compress_jpeg(x: Floats, quality: int, rng: Rng) -> Floats:
    if max(x.shape) > LONGEST_JPEG:
        raise ImageError(
            f"A picture of {x.shape[1]} x {x.shape[0]} pixels cannot be compressed as JPEG, which "
            f"holds at most {LONGEST_JPEG:,} a side. Scale it down, or leave it out."
        )
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(x)).save(buffer, "JPEG", quality=quality)
    return to_floats(np.asarray(Image.open(buffer)))


def to_bytes(x: Floats) -> Pixels:
    """[0, 1] to the nearest byte; what lies outside is cut off."""
    pixels: Pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return pixels


def to_floats(pixels: Pixels) -> Floats:
    """Bytes to [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": Corruption(_add_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), True),
        "shot_noise": Corruption(_add_shot_noise, (60, 25, 12, 5, 3), True),
        "impulse_noise": Corruption(_add_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), True),
        "defocus_blur": Corruption(_blur_defocus, (3, 4, 6, 8, 10), False),
        "glass_blur": Corruption(
            _blur_glass, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), True
        ),
        "motion_blur": Corruption(
            _blur_motion, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), True
        ),
        "zoom_blur": Corruption(
            _blur_zoom, ((1.11, 12), (1.15, 16), (1.2, 11), (1.24, 13), (1.3, 11)), False
        ),
        "snow": Corruption(
            _let_snow,
            (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 4.5, 0.85, 12, 12, 0.55),
            ),
            True,
        ),
        "frost": Corruption(
            _let_freeze, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), True
        ),
        "fog": Corruption(_let_fog_in, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), True),
        "brightness": Corruption(_brighten, (0.1, 0.2, 0.3, 0.4, 0.5), False),
        "contrast": Corruption(_lower_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), False),
        "elastic_transform": Corruption(
            _warp_elastically,
            ((60, 9.76, 4), (120, 9.76, 8), (180, 9.76, 12), (240, 9.76, 16), (300, 9.76, 20)),
            True,
        ),
        "pixelate": Corruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), False),
        "jpeg_compression": Corruption(_compress_jpeg, (25, 18, 15, 10, 7), False),
    }
)
"""The kinds by name, in the paper's order: noise, blur, weather, digital."""
