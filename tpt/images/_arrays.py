"""Arrays and tensors in memory become pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tpt.errors import ImageError, why
from tpt.images._colours import on_white
from tpt.images._levels import Pixels, check_finite, from_16_bits, grey, round_to_bytes

_ROUNDING = 0.5 / 255
"""How far floats may be outside [0, 1]: they are clamped, and no byte is another for it."""


def from_array(array: npt.NDArray[Any], name: str, notes: list[str]) -> Pixels:
    """Pixels of an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        ImageError: another shape, dtype or range of values.
    """
    if np.ma.is_masked(array):
        notes.append("Some pixels are masked: they were read as they are stored.")
    array = np.asarray(array)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "transpose(1, 2, 0) puts channels last" if first else "pass one image at a time"
        raise ImageError(
            f"{name} has shape {array.shape}: expected (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4); {hint}."
        )
    if array.size == 0:
        raise ImageError(f"{name} has no pixels: its shape is {array.shape}. Leave it out.")
    values = _to_bytes(array, name)
    if values.ndim == 2 or values.shape[2] == 1:
        return grey(values.reshape(values.shape[:2]))
    if values.shape[2] == 4:
        return on_white(Image.fromarray(np.ascontiguousarray(values)), notes)
    return np.array(values, order="C")


def from_tensor(tensor: Any, torch: Any, notes: list[str]) -> Pixels:
    """Pixels of a torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W), on any device.

    Raises:
        ImageError: as `from_array`, or a tensor without dense values.
    """
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3, 4)):
        last = len(shape) == 3 and shape[2] in (1, 3, 4)
        hint = "permute(2, 0, 1) puts channels first" if last else "pass one image at a time"
        raise ImageError(
            f"The tensor has shape {shape}: expected (3, H, W), (1, H, W) or (H, W), or "
            f"(4, H, W) with transparency; {hint}."
        )
    try:
        plain = tensor.detach().cpu()
        if plain.dtype == torch.bfloat16:  # numpy has no such type
            plain = plain.float()
        array = np.asarray(plain.numpy())
    except Exception as error:  # meta, sparse and quantised tensors have no pixels to hand over
        raise ImageError(
            f"The tensor cannot be read as an array ({why(error)}): expected a dense tensor. "
            "Convert it first."
        ) from error
    return from_array(array if array.ndim == 2 else np.moveaxis(array, 0, 2), "The tensor", notes)


def _to_bytes(array: npt.NDArray[Any], name: str) -> Pixels:
    kind = array.dtype.kind, array.dtype.itemsize  # not the dtype: either byte order will do
    if kind[0] == "b":
        return np.where(array, 255, 0).astype(np.uint8)
    if kind == ("u", 1):
        return array
    if kind == ("u", 2):
        high = int(array.max())
        if 0 < high < 256:  # 0 is black either way
            raise ImageError(
                f"{name} has dtype uint16, but no value above {high}: bytes in a wider type, or a "
                "picture of 16 bits that is nearly black? Pass array.astype('uint8') for the "
                "first, array / 65535 for the second."
            )
        return from_16_bits(array)
    if kind[0] == "f":
        check_finite(array, name)
        low, top = float(array.min()), float(array.max())
        if low < -_ROUNDING or top > 1 + _ROUNDING:
            raise ImageError(
                f"{name} holds floats from {low:.9g} to {top:.9g}: floats are expected in "
                "[0, 1]. Divide by the largest possible value, or pass uint8."
            )
        return round_to_bytes(array, lambda part: np.clip(part.astype(np.float32), 0, 1) * 255)
    raise ImageError(
        f"{name} has dtype {array.dtype}: expected uint8, uint16, bool, or floats in [0, 1]. "
        "Convert it to one of these."
    )
