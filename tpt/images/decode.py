"""One image, whatever it came as, becomes pixels as a person would see them.

Rests on Pillow for file formats. Every result is (H, W, 3) uint8 RGB: turned upright by its EXIF
orientation, laid on white where it is transparent, scaled (never clipped) where it has more than
eight bits, and the first frame where there are many.

It does not resize, does not apply ICC colour profiles (CLIP's own preprocessing does not either),
and does not use JPEG draft mode, so that pixels never depend on a later size.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin

from tpt.errors import ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970
"""Larger images are refused by their declared size, before any pixel has memory. It is the size
at which Pillow itself raises an error by default."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO"),
    *("PSD", "DDS", "QOI", "SGI", "PCX", "HEIF", "JXL", "TGA"),
)
"""Pillow's names of the formats that are tried, in this order. Formats that start another program
(EPS) or unpack without a limit (FITS) stay out. HEIF and JXL count once the host has registered a
plugin for them; TGA has no signature, so it comes last."""

# Pillow loads its plugins on demand; doing it here keeps that out of the decoding threads.
Image.init()

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image."""

    pixels: Pixels  # (H, W, 3) uint8
    digest: str  # of its content: what its views are drawn from


def load_picture(source: object) -> Picture:
    """Decode one image, and take the digest of its content.

    The digest is that of the encoded bytes for files and bytes, so that one file is the same
    picture under any path, in a tar or uploaded; of shape and pixels for images in memory.

    Args:
        source: as for `decode_image`.

    Raises:
        ImageError: whatever is wrong with the image, in one line that names it.
    """
    if isinstance(source, (str, os.PathLike)):
        name, data = _read_file(os.fsdecode(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "The image given as bytes", bytes(source)
    else:
        pixels = _from_memory(source)
        content = hashlib.sha256(repr(pixels.shape).encode())
        content.update(pixels.data)
        return Picture(pixels, content.hexdigest())
    pixels = _from_pil(_open(io.BytesIO(data), name), name)
    return Picture(pixels, hashlib.sha256(data).hexdigest())


def decode_image(source: object) -> Pixels:
    """Decode one image to RGB pixels.

    Args:
        source: a path (str or os.PathLike); the bytes of an image file; a `PIL.Image.Image` (its
            current frame); a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
            uint16, bool, or floats in [0, 1]; a torch tensor (H, W), (1, H, W) or (3, H, W) of
            the same kinds, on any device.

    Returns:
        (H, W, 3) uint8, contiguous, writable, and sharing no memory with `source`.

    Raises:
        ImageError: whatever is wrong with the image, in one line that names it.
    """
    return load_picture(source).pixels


def _from_memory(source: object) -> Pixels:
    if isinstance(source, Image.Image):
        return _from_pil(source, "The PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source, "The array")
    torch: Any = sys.modules.get("torch")  # a tensor can only come from a torch already imported
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source, torch)
    raise ImageError(
        f"An object of type {type(source).__name__} is not an image: expected a path, the bytes "
        "of an image file, a PIL image, a numpy array or a torch tensor. Convert it to one."
    )


def _read_file(path: str) -> tuple[str, bytes]:
    """How messages name a file, and its bytes."""
    name = repr(path)  # keeps a message on one line when the name holds newlines or odd bytes
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise ImageError(f"{name} is {kind}: expected an image file. Name such a file instead.")
        with open(path, "rb") as file:
            _open(file, name)  # what is no image may be larger than memory
            file.seek(0)
            return name, file.read()
    except FileNotFoundError as error:
        raise ImageError(
            f"{name} does not exist: expected an image file. Check the spelling, and the folder "
            "that the path is relative to."
        ) from error
    except PermissionError as error:
        raise ImageError(
            f"{name} may not be read: permission denied. Give this user the right to read it."
        ) from error
    except (OSError, ValueError) as error:  # a name too long, a NUL in the name, a failing disk
        raise ImageError(
            f"{name} cannot be opened ({_why(error)}): expected an image file. Check the path."
        ) from error


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Read the header only.

    `PIL.Image.open` is not used: it warns of a "decompression bomb" at half the size at which it
    refuses, its limit is a global that belongs to the host application, and warnings cannot be
    silenced safely for one thread. This is its loop, over `FORMATS`, without that check.
    """
    start = file.read(16)
    if not start:
        raise ImageError(f"{name} is empty (0 bytes): expected an image file. Fetch it again.")
    damage: tuple[str, Exception] | None = None
    for kind in FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        signed = False
        try:
            verdict = accept(start) if accept else True
            signed = bool(accept and verdict)
            if isinstance(verdict, str):  # the signature fits, but Pillow lacks the codec
                raise NotImplementedError(verdict)
            if verdict:
                file.seek(0)
                return factory(file, "")
        except Exception as error:  # plugins raise nearly every kind on a broken header
            if signed and damage is None:
                damage = kind, error
    if damage is not None:
        kind, cause = damage
        raise _damaged(name, f"its {kind} header cannot be read", cause) from cause
    raise ImageError(
        f"{name} is not an image: it starts with {start[:12]!r}, which fits none of "
        f"{', '.join(FORMATS)}. Convert it to one of these, or leave it out."
    )


def _from_pil(image: Image.Image, name: str) -> Pixels:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} declares {width} x {height} pixels: expected at most {MAX_PIXELS:,} in all. "
            "Scale it down, or leave it out."
        )
    if width * height == 0:
        raise ImageError(f"{name} has no pixels: its size is {width} x {height}. Leave it out.")
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
            # Its load would check the size against Pillow's limit, unless memory is there already.
            image.im = Image.new(image.mode, image._tile_size, None).im
        image.load()
        pixels = _to_rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly every kind on broken data
        raise _damaged(name, "its pixels cannot be decoded", error) from error
    turn = _UPRIGHT.get(_orientation(image))
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, read after loading: Pillow turns TIFF by itself and clears the tag."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make the picture unreadable; viewers ignore it too
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image, name: str) -> Pixels:
    if image.mode.startswith("I;16"):
        values = np.array(image)
        key = image.info.get("transparency")
        if isinstance(key, int):  # a PNG may declare one grey level transparent
            values[values == key] = 65535
        return _grey(_from_16_bits(values))
    if image.mode == "I":
        return _grey(_from_integers(np.asarray(image)))
    if image.mode == "F":
        return _grey(_from_floats(np.asarray(image), name))
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if has_alpha or (image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data):
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> Pixels:
    if image.mode == "La":  # Pillow converts premultiplied grey only to LA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(white)


def _grey(values: Pixels) -> Pixels:
    return np.repeat(values[:, :, None], 3, axis=2)  # (H, W) -> (H, W, 3)


def _from_16_bits(values: npt.NDArray[Any]) -> Pixels:
    """round(v / 257): 65535 becomes 255, and 257 * k becomes k."""
    return ((values.astype(np.uint32) + np.uint32(128)) // np.uint32(257)).astype(np.uint8)


def _from_integers(values: npt.NDArray[Any]) -> Pixels:
    """Pillow's 32-bit grey does not say its range, so the values have to."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 255:
        return values.astype(np.uint8)
    if low >= 0 and high <= 65535:
        return _from_16_bits(values)
    return _stretch(values, low, high)


def _from_floats(values: npt.NDArray[Any], name: str) -> Pixels:
    """Float TIFF and PFM do not say their range either: [0, 1], [0, 255], or anything."""
    _check_finite(values, name)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return _round(values * 255)
    if low >= 0 and high <= 255:
        return _round(values)
    return _stretch(values, low, high)


def _stretch(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    if low == high:  # one flat grey: nothing to stretch
        return np.full(values.shape, min(max(low, 0), 255), dtype=np.uint8)
    return _round((values.astype(np.float64) - low) * 255 / (high - low))


def _round(values: npt.NDArray[Any]) -> Pixels:
    return np.asarray(np.rint(values), dtype=np.uint8)


def _from_array(array: npt.NDArray[Any], name: str) -> Pixels:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "transpose(1, 2, 0) puts channels last" if first else "pass one image at a time"
        raise ImageError(
            f"{name} has shape {array.shape}: expected (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4); {hint}."
        )
    if array.size == 0:
        raise ImageError(f"{name} has no pixels: its shape is {array.shape}. Leave it out.")
    values = _to_8_bits(array, name)
    if values.ndim == 2 or values.shape[2] == 1:
        return _grey(values.reshape(values.shape[:2]))
    if values.shape[2] == 4:
        return _on_white(Image.fromarray(np.ascontiguousarray(values)))
    return np.array(values, order="C")


def _to_8_bits(array: npt.NDArray[Any], name: str) -> Pixels:
    kind = array.dtype.kind, array.dtype.itemsize  # not the dtype: either byte order will do
    if kind[0] == "b":
        return np.where(array, 255, 0).astype(np.uint8)
    if kind == ("u", 1):
        return array
    if kind == ("u", 2):
        return _from_16_bits(array)
    if kind[0] == "f":
        _check_finite(array, name)
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise ImageError(
                f"{name} holds floats from {low:.9g} to {high:.9g}: floats are expected in "
                "[0, 1]. Divide by the largest possible value, or pass uint8."
            )
        return _round(array.astype(np.float32, copy=False) * 255)
    raise ImageError(
        f"{name} has dtype {array.dtype}: expected uint8, uint16, bool, or floats in [0, 1]. "
        "Convert it to one of these."
    )


def _from_tensor(tensor: Any, torch: Any) -> Pixels:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        last = len(shape) == 3 and shape[2] in (1, 3)
        hint = "permute(2, 0, 1) puts channels first" if last else "pass one image at a time"
        raise ImageError(
            f"The tensor has shape {shape}: expected (3, H, W), (1, H, W) or (H, W); {hint}."
        )
    try:
        plain = tensor.detach().cpu()
        if plain.dtype == torch.bfloat16:  # numpy has no such type
            plain = plain.float()
        array = np.asarray(plain.numpy())
    except Exception as error:  # meta, sparse and quantised tensors have no pixels to hand over
        raise ImageError(
            f"The tensor cannot be read as an array ({_why(error)}): expected a dense tensor. "
            "Convert it first."
        ) from error
    return _from_array(array if array.ndim == 2 else np.moveaxis(array, 0, 2), "The tensor")


def _check_finite(values: npt.NDArray[Any], name: str) -> None:
    if not np.isfinite(values).all():
        raise ImageError(
            f"{name} holds NaN or infinite values: expected finite numbers. Replace them first."
        )


def _damaged(name: str, what: str, error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):  # a frame or tile inside declares it
        return ImageError(f"{name} is too large to decode ({_why(error)}). Scale it down.")
    return ImageError(
        f"{name} is damaged or cut short: {what} ({_why(error)}). Fetch it again, or leave it out."
    )


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
