"""One image, whatever it came as, becomes pixels as a person would see them.

Every result is (H, W, 3) uint8 RGB: turned upright by its EXIF orientation, converted to sRGB if a
colour profile is embedded, laid on white where it is transparent, scaled (never clipped) if it has
more than eight bits, and the first frame of many. `Picture.warning` says what had to be assumed.

It does not resize, and does not use JPEG draft mode, so that pixels never depend on a later size.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from tpt.errors import ImageError, why
from tpt.images._arrays import from_array, from_tensor
from tpt.images._colours import to_rgb
from tpt.images._errors import BrokenImageError, unreadable
from tpt.images._files import FORMATS as FORMATS
from tpt.images._files import check_size, may_be_image, open_image
from tpt.images._levels import Pixels as Pixels
from tpt.images._mend import (
    JPEG,
    LOST_END,
    PNG,
    bare_png,
    cut_webp,
    drop_bad_chunks,
    note_lost_end,
    without_end,
)
from tpt.text import is_url

MAX_PIXELS = 178_956_970
"""Larger images are refused by their declared size, before memory is taken. Pillow raises an error
at the same size by default."""

_MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits for the largest image
_MOST_HEADER = 2**19  # bytes of the header of a TGA, the format without a signature

_LOCKS = tuple(RLock() for _ in range(64))
"""Only one thread at a time reads an object in place (a PIL image not loaded yet, an open file).
The object's address chooses the lock."""

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
    digest: str  # of its content; it seeds the picture's views
    warning: str | None = None  # what had to be assumed, in sentences


def load_picture(source: object, max_pixels: int | None = None) -> Picture:
    """Decode one image, and take the digest of its content.

    For files and bytes the digest is that of the encoded bytes, so that a file is the same picture
    under any path, in a tar or uploaded; for images in memory, of shape and pixels.

    Args:
        source: as for `decode_image`.
        max_pixels: encoded images that declare more are refused; default `MAX_PIXELS`.

    Raises:
        ImageError: whatever is wrong with the image, in one line that names it.
    """
    encoded = read_source(source)
    if encoded is not None:
        return load_encoded(*encoded, max_pixels)
    notes: list[str] = []
    pixels = _from_memory(source, notes)
    content = hashlib.sha256(repr(pixels.shape).encode())
    content.update(pixels.data)
    return Picture(pixels, content.hexdigest(), _join(notes))


def load_encoded(name: str, data: bytes, max_pixels: int | None = None) -> Picture:
    """`load_picture` of encoded bytes; messages call them `name`."""
    notes: list[str] = []
    pixels = _decode(data, name, notes, MAX_PIXELS if max_pixels is None else max_pixels)
    return Picture(pixels, hashlib.sha256(data).hexdigest(), _join(notes))


def _join(notes: list[str]) -> str | None:
    return " ".join(dict.fromkeys(notes)) or None


def decode_image(source: object) -> Pixels:
    """Decode one image to RGB pixels.

    Args:
        source: a path (str or os.PathLike); the bytes of an image file; an open binary file or
            BytesIO, read from its beginning; a `PIL.Image.Image` (its current frame); a numpy
            array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool, or floats in
            [0, 1]; a torch tensor (H, W), (1, H, W), (3, H, W) or (4, H, W) of the same kinds, on
            any device.

    Returns:
        (H, W, 3) uint8, contiguous, writable, and sharing no memory with `source`.

    Raises:
        ImageError: whatever is wrong with the image, in one line that names it.
    """
    return load_picture(source).pixels


def is_one_image(images: Any) -> bool:
    """Whether an argument for many images is a single one, whose rows would be taken for images."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)):
        return True
    shape: tuple[int, ...] = getattr(images, "shape", ())
    if len(shape) == 3:  # stacked grey images are many
        return shape[0] in (1, 3, 4) or shape[2] in (1, 3, 4)
    return len(shape) == 2 or callable(getattr(images, "read", None))


# --- what it came as ---


def read_source(source: object) -> tuple[str, bytes] | None:
    """How messages name an encoded image, and its bytes; None for an image in memory.

    Raises:
        ImageError: it cannot be read, or is no image by its first bytes.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "The image given as bytes", bytes(source)
    if isinstance(source, io.BytesIO):
        return "The image given as bytes", source.getvalue()
    if callable(getattr(source, "read", None)):
        return _read_handle(source)
    return None


def _from_memory(source: object, notes: list[str]) -> Pixels:
    if isinstance(source, Image.Image):
        with _lock_of(source):
            return _from_pil(source, "The PIL image", notes, MAX_PIXELS)
    if isinstance(source, np.ndarray):
        return from_array(source, "The array", notes)
    torch: Any = sys.modules.get("torch")  # a tensor can only come from a torch already imported
    if torch is not None and isinstance(source, torch.Tensor):
        return from_tensor(source, torch, notes)
    raise ImageError(
        f"An object of type {type(source).__name__} is not an image: expected a path, the bytes "
        "of an image file, an open file, a PIL image, a numpy array or a torch tensor. Convert it "
        "to one."
    )


def _lock_of(thing: object) -> RLock:
    return _LOCKS[id(thing) // 64 % len(_LOCKS)]


def _read_handle(file: Any) -> tuple[str, bytes]:
    """`read_source` of an open file: from its start if it can be, and its position is restored."""
    given = getattr(file, "name", None)
    name = repr(given) if isinstance(given, str) else "The open file"
    try:
        with _lock_of(file):
            if callable(getattr(file, "seekable", None)) and not file.seekable():
                data = file.read(_MAX_BYTES + 1)
            else:
                stood = file.tell()
                file.seek(0)
                data = file.read(_MAX_BYTES + 1)
                file.seek(stood)
    except Exception as error:  # a closed file, or whatever another's object raises
        raise ImageError(
            f"{name} cannot be read ({why(error)}): expected an open image file. Open it again."
        ) from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"{name} gives {type(data).__name__} where bytes were expected. Open it with mode 'rb'."
        )
    _check_length(len(data), name)
    return name, data


def _read_file(path: str) -> tuple[str, bytes]:
    name = repr(path)  # keeps a message on one line when the name holds newlines or odd bytes
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise ImageError(f"{name} is {kind}: expected an image file. Name such a file instead.")
        with open(path, "rb") as file:
            if not may_be_image(file.read(16)):  # do not read all of it: it may exceed memory
                file.seek(0)
                open_image(file.read(_MOST_HEADER), name, [], MAX_PIXELS)
            _check_length(about.st_size, name)
            file.seek(0)
            return name, file.read()
    except FileNotFoundError as error:
        raise _not_found(path) from error
    except PermissionError as error:
        raise ImageError(
            f"{name} may not be read: permission denied. Give this user the right to read it."
        ) from error
    except (OSError, ValueError) as error:  # a name too long, a NUL in the name, a failing disk
        if is_url(path):
            raise _not_found(path) from error
        raise ImageError(
            f"{name} cannot be opened ({why(error)}): expected an image file. Check the path."
        ) from error


def read_encoded(path: str) -> bytes:
    """The bytes of an image file, to be decoded elsewhere.

    Raises:
        ImageError: it cannot be read, or is no image by its first bytes.
    """
    return _read_file(path)[1]


def begins_as_image(path: str) -> bool:
    """Whether a file begins as an image does, whatever its name; only its start is read."""
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            return may_be_image(file.read(16))
    except OSError:
        return True  # its error record says why


def _not_found(path: str) -> ImageError:
    if is_url(path):
        short = path if len(path) <= 200 else path[:200] + "..."
        return ImageError(
            f"{short!r} is a URL: expected an image file. Nothing is fetched from the network: "
            "download it first, and name the file."
        )
    return ImageError(
        f"{path!r} does not exist: expected an image file. Check the spelling, and the folder "
        "that the path is relative to."
    )


def _check_length(length: int, name: str) -> None:
    if length > _MAX_BYTES:
        raise ImageError(
            f"{name} has {length:,} bytes: expected at most {_MAX_BYTES:,}. Scale it down, or "
            "leave it out."
        )


# --- from a file's bytes to pixels ---


def _decode(data: bytes, name: str, notes: list[str], most: int) -> Pixels:
    """Pixels of an image file; a slightly broken one is mended."""
    whole = drop_bad_chunks(data, notes) if data.startswith(PNG) else data
    more: list[str] = []

    def decode(encoded: bytes, profile: bytes | None = None) -> Pixels:
        more.clear()
        image = open_image(encoded, name, more, most)
        if profile is not None:
            image.info["icc_profile"] = profile or None
        return _from_pil(image, name, more, most)

    try:
        pixels = decode(whole)
        note_lost_end(data, notes)
    except BrokenImageError:
        mended = None
        if data.startswith(PNG):
            bare = bare_png(whole, notes, _MAX_BYTES)
            mended = decode(*bare) if bare else None
        elif data.startswith(JPEG):
            mended = without_end(data, decode)
            notes.append(LOST_END)
        elif data[8:12] == b"WEBP" and (cut := cut_webp(data)) is not None:
            mended = decode(cut)
            notes.append(LOST_END)
        if mended is None:
            raise
        pixels = mended
    notes += more
    return pixels


def _from_pil(image: Image.Image, name: str, notes: list[str], most: int) -> Pixels:
    check_size(image.size, name, most)
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
            # Loading would check the size against Pillow's limit, unless memory is there already.
            image.im = Image.new(image.mode, image._tile_size, None).im
        image.load()
        pixels = to_rgb(image, name, notes)
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly every kind on broken data
        raise unreadable(name, "its pixels cannot be decoded", error) from error
    turn = _UPRIGHT.get(_orientation(image))
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, read after loading: Pillow turns TIFF by itself and clears the tag.

    The decoder of JPEG XL follows the file's own orientation, unless it was made of a JPEG.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata does not make the picture unreadable; viewers ignore it too
        return 1
    return orientation if isinstance(orientation, int) else 1
