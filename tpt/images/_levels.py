"""Grey levels and colours of any depth become bytes: scaled, never clipped or wrapped.

If a file states its depth, it is scaled by that, so that a dark picture stays dark. If not, the
numbers themselves tell the range, and a note says which range was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tpt.errors import ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]

_PART = 2**20  # numbers converted at a time


@dataclass(frozen=True)
class Depth:
    """What a file's numbers mean, by its tags."""

    bits: int = 16  # how many of an unsigned 16-bit number's bits are used
    view: Any = None  # the numpy type that Pillow's numbers really are
    white_is_zero: bool = False  # 0 is white, and the highest level black
    no_data: float | None = None  # marks pixels without a measurement, which become white


def to_bytes(values: npt.NDArray[Any], name: str, notes: list[str], depth: Depth) -> Pixels:
    """Levels as a file has them, in bytes of the same shape.

    Args:
        values: unsigned bytes or 16 bits, integers of any other kind, or floats.
        name: how messages name the picture.
        notes: gets a sentence on what had to be assumed.

    Raises:
        ImageError: numbers that are not finite, or no data at all.
    """
    holes: Any = None
    no_data = depth.no_data
    if no_data is not None:
        if values.dtype.kind == "f":  # as the file's own numbers round it; or not a number
            with np.errstate(all="ignore"):
                holes = (values == np.asarray(no_data).astype(values.dtype)) | np.isnan(values)
        else:
            holes = values == no_data
        if holes.all():
            raise ImageError(
                f"{name} holds nothing but its no-data value {no_data:g}: expected a picture. "
                "Leave it out."
            )
    known = values if holes is None or not holes.any() else values[~holes]
    if known is not values:
        # Only measured values may decide the range, so holes are filled with one of them.
        values = np.where(holes, known[0], values)
        notes.append(f"Pixels with the no-data value {no_data:g} are white.")
    if values.dtype.kind == "f":
        pixels = _from_floats(values, name, notes)
    elif values.dtype.kind == "u" and values.dtype.itemsize == 1:
        pixels = values
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        pixels = from_16_bits(values, depth.bits)
        if 0 < int(known.max()) < 256 and depth.bits == 16:
            notes.append(
                f"Its 16-bit levels reach {int(known.max())} of 65,535, which is nearly black. If "
                "they were meant as bytes, save it with 8 bits."
            )
    else:
        pixels = _from_integers(values, notes)
    if depth.white_is_zero:
        pixels = 255 - pixels
    return pixels if known is values else np.where(holes, np.uint8(255), pixels)


def grey(values: Pixels) -> Pixels:
    """(H, W) to (H, W, 3)."""
    return np.repeat(values[:, :, None], 3, axis=2)


def from_16_bits(values: npt.NDArray[Any], bits: int = 16) -> Pixels:
    """round(v * 255 / (2 ** bits - 1)): of 16 bits 65535 becomes 255, and 257 * k becomes k."""
    top = np.uint32(2**bits - 1)

    def scale(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scaled = (part.astype(np.uint32) * np.uint32(255) + top // np.uint32(2)) // top
        return np.minimum(scaled, 255)

    return _in_parts(values, scale)


def round_to_bytes(
    values: npt.NDArray[Any], scale: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = np.asarray
) -> Pixels:
    """Floats that `scale` brings into [0, 255], to the nearest byte."""
    return _in_parts(values, lambda part: np.rint(scale(part)))


def _in_parts(
    values: npt.NDArray[Any], convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> Pixels:
    """Bytes of numbers, without a second large array in between."""
    flat = values.reshape(-1)
    result = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _PART):
        part = slice(start, start + _PART)
        result[part] = convert(flat[part])
    return result.reshape(values.shape)


def check_finite(values: npt.NDArray[Any], name: str) -> None:
    """Refuse NaN and infinite values."""
    if not np.isfinite(values).all():
        raise ImageError(
            f"{name} holds NaN or infinite values: expected finite numbers. Replace them first."
        )


def _from_integers(values: npt.NDArray[Any], notes: list[str]) -> Pixels:
    """Wide integers do not state their range, so the values have to tell it."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 255:
        notes.append(_assumed("integers", "0 to 255"))
        return values.astype(np.uint8)
    if low >= 0 and high <= 65535:
        notes.append(_assumed("integers", "0 to 65,535"))
        return from_16_bits(values)
    if values.dtype.kind == "u" and values.dtype.itemsize == 4 and high >= 2**28:
        # Its highest bits are in use.
        return round_to_bytes(values, lambda part: part * (255 / (2**32 - 1)))
    notes.append(_assumed("integers", f"{low} to {high}"))
    return _stretch(values, low, high)


def _from_floats(values: npt.NDArray[Any], name: str, notes: list[str]) -> Pixels:
    """Floats do not state their range either: [0, 1], [0, 255], or anything."""
    check_finite(values, name)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return round_to_bytes(values, lambda part: part.astype(np.float32) * 255)
    if low >= 0 and high <= 255:
        notes.append(_assumed("floats", "0 to 255"))
        return round_to_bytes(values)
    notes.append(_assumed("floats", f"{low:g} to {high:g}"))
    return _stretch(values, low, high)


def _assumed(kind: str, span: str) -> str:
    return f"Its {kind} do not say their range: {span} was taken for black to white."


def _stretch(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    if low == high:  # one flat grey: nothing to stretch
        return np.full(values.shape, min(max(low, 0), 255), dtype=np.uint8)
    # Halves, because the span of the largest doubles would overflow.
    half, span = low / 2, high / 2 - low / 2
    return round_to_bytes(values, lambda part: (part.astype(np.float64) / 2 - half) / span * 255)
