"""The bytes of a picture file become an open PIL image, by their signature and not by their name.

Pillow reads most formats. Plugins read HEIC and JPEG XL; the extra `formats` installs them, and
they are loaded when such a picture comes.
"""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

from PIL import Image

from tpt.errors import ImageError, LargeImageError
from tpt.images._errors import missing_extra, unreadable
from tpt.images._tiff import open_tiff, read_rare

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO"),
    *("PSD", "DDS", "QOI", "SGI", "PCX", "HEIF", "JXL", "TGA"),
)
"""Pillow's names of the formats that are tried, in this order. Formats that start another program
(EPS) or unpack without a limit (FITS) stay out. HEIF and JXL need a plugin; TGA has no signature,
so it comes last."""

# Pillow loads its plugins on demand; doing it here keeps that out of the decoding threads.
Image.init()

_PLUGINS = {
    "HEIF": "pillow_heif.HeifImageFile",
    "JXL": "pillow_jxl.JpegXLImagePlugin.JXLImageFile",
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


def may_be_image(start: bytes) -> bool:
    """Whether a file's first 16 bytes are those of a format with a signature."""
    return _plugin_of(start) is not None or any(_accepts(kind, start) for kind in FORMATS[:-1])


def open_image(data: bytes, name: str, notes: list[str], most_pixels: int) -> Image.Image:
    """Read the header only.

    `PIL.Image.open` is not used: it warns of a "decompression bomb" at half the size at which it
    refuses, its limit is a global that belongs to the host application, and warnings cannot be
    silenced safely for one thread. This is its loop, over `FORMATS`, without that check.

    Raises:
        ImageError: no image, a broken header, or a missing format or plugin.
    """
    start = data[:16]
    if not start:
        raise ImageError(f"{name} is empty (0 bytes): expected an image file. Fetch it again.")
    damage: tuple[str, Exception] | None = None
    for kind in FORMATS:
        verdict = _accepts(kind, start)
        if not verdict:
            continue
        try:
            if isinstance(verdict, str):  # the signature fits, but Pillow lacks the codec
                raise NotImplementedError(verdict)
            if kind == "TIFF":
                return _open_tiff(data, name, notes, most_pixels)
            return Image.OPEN[kind][0](io.BytesIO(data), "")
        except ImageError:
            raise
        except Exception as error:  # plugins raise nearly every kind on a broken header
            if damage is None and kind != "TGA":
                damage = kind, error
    plugin = _plugin_of(start)
    # AVIF and HEIC share the signature of their container: what is no AVIF may be HEIC.
    if plugin is not None and (damage is None or damage[0] == "AVIF"):
        return _open_with_plugin(plugin, data, name, most_pixels)
    if damage is not None:
        kind, cause = damage
        raise unreadable(name, f"its {kind} header cannot be read", cause) from cause
    raise ImageError(
        f"{name} is not an image: it starts with {start[:12]!r}, which fits none of "
        f"{', '.join(FORMATS)}. Convert it to one of these, or leave it out."
    )


def _accepts(kind: str, start: bytes) -> bool | str:
    """What Pillow's plugin for a format says of a signature; text if it lacks the codec."""
    accept = Image.OPEN[kind][1] if kind in Image.OPEN and kind not in ("HEIF", "JXL") else None
    if kind == "TGA":
        return True
    try:
        return accept(start) if accept else False
    except Exception:  # a start that is shorter than a signature
        return False


def _open_tiff(data: bytes, name: str, notes: list[str], most_pixels: int) -> Image.Image:
    try:
        return open_tiff(io.BytesIO(data), notes)
    except (SyntaxError, KeyError) as error:
        if "unknown pixel mode" not in str(error):
            raise
        return read_rare(data, name, notes, most_pixels)


# --- formats that need a plugin ---


def _plugin_of(start: bytes) -> str | None:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        return "HEIF"
    return "JXL" if start.startswith(_JXL) else None


def _open_with_plugin(kind: str, data: bytes, name: str, most_pixels: int) -> Image.Image:
    """Call the plugin's class directly, so that nothing is registered for the whole process."""
    try:
        module, _, name_of_class = _PLUGINS[kind].rpartition(".")
        reader: Any = getattr(importlib.import_module(module), name_of_class)
    except ImportError:
        if kind not in Image.OPEN:  # where the host has registered another plugin
            raise missing_extra(name, "HEIC" if kind == "HEIF" else "JPEG XL") from None
        reader = Image.OPEN[kind][0]
    try:
        if kind == "JXL":  # decoded as a whole when it is opened, so its size is read before
            check_size(_read_jxl_size(data), name, most_pixels)
        image: Image.Image = reader(io.BytesIO(data), "")
        return image
    except ImageError:
        raise
    except Exception as error:
        raise unreadable(name, f"its {kind} header cannot be read", error) from error


def check_size(size: tuple[int, int], name: str, most_pixels: int) -> None:
    """Refuse a declared width and height with too many pixels (`LargeImageError`), or none."""
    width, height = size
    if width * height > most_pixels:
        raise LargeImageError(
            f"{name} declares {width} x {height} pixels: expected at most {most_pixels:,} in all. "
            "Scale it down, or leave it out."
        )
    if width * height == 0:
        raise ImageError(f"{name} has no pixels: its size is {width} x {height}. Leave it out.")


def _read_jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the SizeHeader of ISO/IEC 18181-1, in a box of its container or bare."""
    place = 0
    while not data.startswith(b"\xff\x0a", place):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind in (b"jxlc", b"jxlp"):
            place += 8 + (8 if length == 1 else 0) + (4 if kind == b"jxlp" else 0)
            break
        place += struct.unpack_from(">Q", data, place + 8)[0] if length == 1 else max(8, length)
    bits = int.from_bytes(data[place + 2 : place + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def take_side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height = take_side()
    ratio = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return (height * ratio[0] // ratio[1] if ratio[0] else take_side()), height
