"""A loaded PIL image of any mode becomes RGB pixels as a viewer shows them.

Embedded ICC profiles are converted to sRGB, transparent pixels are laid on white, levels deeper
than a byte are scaled. Notes say what had to be assumed.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tpt.images._levels import Depth, Pixels, to_bytes
from tpt.images._tiff import find_depth

_SPACES = {"L": ("GRAY", "RGB"), "RGB": ("RGB",), "CMYK": ("CMYK",), "LAB": ("LAB",)}
"""The colour spaces that a profile may have for a mode; grey is also read as R = G = B."""

_SAME = 2  # a profile that moves no probed colour by more levels is sRGB itself

_NO_PROFILE = "Its colour profile cannot be used: sRGB was assumed."


def to_rgb(image: Image.Image, name: str, notes: list[str]) -> Pixels:
    """Pixels (H, W, 3) of an image whose data is loaded.

    Raises:
        ImageError: levels that cannot be read.
    """
    profile = image.info.get("icc_profile", b"")
    if profile is None:  # there was one
        notes.append(_NO_PROFILE)
    depth = find_depth(image)
    if depth is not None or image.mode[0] in "IF":  # I, I;16, I;16B, F
        image = Image.fromarray(_read_deep(image, name, notes, depth or Depth()))
    return _flatten(image, profile, notes)


def _read_deep(image: Image.Image, name: str, notes: list[str], depth: Depth) -> Pixels:
    values = np.array(image)
    if image.format == "PPM" and image.mode == "I":  # Pillow has scaled them to 16 bits
        values = values.astype(np.uint16)
    elif depth.view is not None:
        values = values.view(depth.view)
    pixels = to_bytes(values, name, notes, depth)
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode.startswith("I;16"):
        pixels[values == key] = 255  # a PNG may declare one grey level transparent
    return pixels


def _flatten(image: Image.Image, profile: Any, notes: list[str]) -> Pixels:
    """Pixels of an image of 8 bits a channel."""
    if image.mode in ("RGBa", "La"):
        return _on_white_multiplied(image, notes)
    has_key = image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data
    if has_key or image.mode in ("LA", "PA", "RGBA"):
        rgba = image.convert("RGBA")
        if profile:
            plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
            alpha = rgba.getchannel("A")
            rgba = _to_srgb(plain, profile, notes).convert("RGB")
            rgba.putalpha(alpha)
        if getattr(image, "is_multiplied", False):
            return _on_white_multiplied(rgba, notes)
        return on_white(rgba, notes, getattr(image, "has_unnamed_alpha", False))
    if profile:
        image = _to_srgb(image if image.mode in _SPACES else image.convert("RGB"), profile, notes)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def on_white(rgba: Image.Image, notes: list[str], unnamed: bool = False) -> Pixels:
    """Pixels of an RGBA image, laid on white where it is transparent.

    Args:
        notes: gets a sentence on what was assumed.
        unnamed: the file does not say that its fourth channel is transparency.
    """
    if _is_invisible(rgba, notes):
        return np.array(rgba.convert("RGB"))
    if unnamed:
        notes.append("It does not say what its fourth channel is: transparency was assumed.")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(white)


def _on_white_multiplied(image: Image.Image, notes: list[str]) -> Pixels:
    """The same for colours that are already multiplied by their alpha."""
    values = np.array(image)
    if image.mode == "La":
        values = values[:, :, [0, 0, 0, 1]]
    if _is_invisible(Image.fromarray(values), notes):
        return np.ascontiguousarray(values[:, :, :3])
    background = 255 - values[:, :, 3:].astype(np.uint16)
    return np.minimum(values[:, :, :3] + background, 255).astype(np.uint8, order="C")


def _is_invisible(rgba: Image.Image, notes: list[str]) -> bool:
    """Whether all is transparent though there is a picture, so that its alpha means nothing.

    Programs that know three channels but write four leave the fourth zero.
    """
    extrema: Any = rgba.getextrema()
    *colours, (_, most_opaque) = extrema
    if most_opaque > 1:
        return False
    if all(low == high for low, high in colours):
        notes.append("It is transparent everywhere: a white page.")
        return False
    notes.append("By its fourth channel it is transparent everywhere: the channel was left out.")
    return True


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """The image in sRGB, by its embedded profile; unchanged if the profile cannot be used."""
    try:
        transform = _find_transform(bytes(profile), image.mode)
    except Exception:  # a profile that is none, or of other colours than the image's
        notes.append(_NO_PROFILE)
        return image
    if transform is None:
        return image
    converted: Image.Image = transform.apply(image.convert(transform.input_mode))
    return converted


@lru_cache(maxsize=8)
def _find_transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB, for images of a mode; None if it changes nothing."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip().upper()
    if space not in _SPACES[mode]:
        raise ValueError(f"a {space} profile of a {mode} image")
    entry = "RGB" if space == "RGB" else mode
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), entry, "RGB")
    if entry == "RGB":
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3)
        moved = np.asarray(transform.apply(Image.fromarray(grid))).astype(int) - grid
        if np.abs(moved).max() <= _SAME:
            return None
    return transform
