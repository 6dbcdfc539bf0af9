"""TIFF, whose tags say what its numbers mean: how deep, which end is white, what is no data.

Pillow reads the pixels, and this module reads the tags that Pillow leaves to its caller. Samples
that Pillow does not know (half and double floats, 64 bits, floats in three channels) need tifffile,
from the extra `formats`.
"""

from __future__ import annotations

import io
import logging
import zlib
from functools import cache
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL import TiffImagePlugin as Plugin

from tpt.images._errors import missing_extra, unreadable, unsupported
from tpt.images._levels import Depth, to_bytes

_NO_DATA = 42113  # GDAL's tag, the number as text
_MOST_PAGES = 100  # are looked at
_MOST_SAMPLES = 16
_RGB, _MULTIPLIED = 2, 1  # values of the tags for photometric interpretation and extra samples


def find_depth(image: Image.Image) -> Depth | None:
    """What the numbers of a TIFF with one channel mean; None where Pillow has seen to it."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or image.mode not in ("L", "I", "F", "I;16", "I;16B"):
        return None
    signed = tags.get(Plugin.SAMPLEFORMAT, (1,))[0] == 2
    bits = max(tags.get(Plugin.BITSPERSAMPLE, (1,)))
    if image.mode == "L":  # Pillow takes signed bytes for unsigned ones
        return Depth(view=np.int8, no_data=read_no_data(tags)) if signed and bits == 8 else None
    return Depth(
        bits=bits if image.mode.startswith("I;16") else 16,
        view=np.uint32 if image.mode == "I" and bits == 32 and not signed else None,
        white_is_zero=tags.get(Plugin.PHOTOMETRIC_INTERPRETATION) == 0,
        no_data=read_no_data(tags),
    )


def read_no_data(tags: Any) -> float | None:
    """The number that GDAL writes where nothing was measured."""
    try:
        return float(str(tags[_NO_DATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None


class TiffFile(Plugin.TiffImageFile):
    """Pillow's reader, with corrections for what it does not know or gets wrong."""

    is_multiplied = False
    """Whether colours are multiplied by their alpha. They are left so, because Pillow would make a
    picture black whose alpha is zero everywhere."""

    has_no_photometric = False
    has_unnamed_alpha = False
    """Whether there are four channels, and no tag says what the fourth is."""

    def _setup(self) -> None:
        tags = self.tag_v2
        compression = tags.get(Plugin.COMPRESSION, 1)
        if compression not in Plugin.COMPRESSION_INFO:
            raise NotImplementedError(f"TIFF compression {compression}")
        if tags.get(Plugin.SAMPLESPERPIXEL, 1) > Plugin.MAX_SAMPLESPERPIXEL:
            raise SyntaxError("unknown pixel mode")  # as Pillow says of others; it would log this
        self.has_no_photometric |= Plugin.PHOTOMETRIC_INTERPRETATION not in tags
        tags.setdefault(Plugin.PHOTOMETRIC_INTERPRETATION, _guess_photometric(tags))
        changed: dict[int, Any] = {}
        deep = max(tags.get(Plugin.BITSPERSAMPLE, (1,))) > 8
        if tags[Plugin.PHOTOMETRIC_INTERPRETATION] == 0 and deep:
            changed[Plugin.PHOTOMETRIC_INTERPRETATION] = 1  # `Depth` swaps black and white
        extra = tags.get(Plugin.EXTRASAMPLES, ())
        self.is_multiplied = (
            extra[:1] == (_MULTIPLIED,) and tags[Plugin.PHOTOMETRIC_INTERPRETATION] == _RGB
        )
        if self.is_multiplied:
            changed[Plugin.EXTRASAMPLES] = (2, *extra[1:])
        kept: dict[int, Any] = {tag: tags[tag] for tag in changed}
        order = tags._prefix
        try:
            for tag, value in changed.items():
                tags[tag] = value
            if tags.get(Plugin.BITSPERSAMPLE) == (12,):
                tags._prefix = Plugin.II  # the order of packed bits, whatever the file's
            super()._setup()
        finally:
            tags._prefix = order
            for tag, value in kept.items():
                tags[tag] = value


def _guess_photometric(tags: Any) -> int:
    """What viewers take where the tag is missing (Pillow takes 0, white is zero)."""
    if tags.get(Plugin.SAMPLESPERPIXEL, 1) >= 3:
        return _RGB
    return 0 if tags.get(Plugin.COMPRESSION) in (2, 3, 4) else 1  # fax


def open_tiff(file: IO[bytes], notes: list[str]) -> TiffFile:
    """The first page that is no reduced copy and no mask; raises whatever Pillow raises."""
    image = TiffFile(file)
    if image.is_animated:
        chosen, pages = _choose_page(image)
        if chosen or image.tell():
            file.seek(0)
            image = TiffFile(file)
            image.seek(chosen)
        if pages > 1:
            notes.append("It has more than one page: the first was read.")
    tags = image.tag_v2
    if _is_part(tags):
        notes.append("It has no page in full size: a reduced copy was read.")
    if image.has_no_photometric:
        notes.append("It does not say what its numbers are: what viewers take was assumed.")
    image.has_unnamed_alpha = image.mode == "RGBA" and Plugin.EXTRASAMPLES not in tags
    return image


def _choose_page(image: TiffFile) -> tuple[int, int]:
    """The first full page, and how many of them there are, as far as pages can be read."""
    full = []
    for page in range(_MOST_PAGES):
        try:
            image.seek(page)
        except Exception:  # the end, or a page that is broken or of another kind
            break
        if not _is_part(image.tag_v2):
            full.append(page)
    return (full[0] if full else 0), len(full)


def _is_part(tags: Any) -> bool:
    """Whether a page is a reduced copy or a mask of another, by either of the tags for that."""
    kind = tags.get(254)
    return tags.get(Plugin.OSUBFILETYPE) == 2 or (isinstance(kind, int) and bool(kind & 5))


def read_rare(data: bytes, name: str, notes: list[str], most_pixels: int) -> Image.Image:
    """A TIFF that Pillow has no mode for, as an image of mode L or RGB.

    Raises:
        ImageError: tifffile is missing; a kind that it does not read either; a broken file.
    """
    try:
        tifffile = _import_tifffile()
    except ImportError:
        raise missing_extra(name, "TIFF with rare samples") from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages: list[Any] = list(file.pages[:_MOST_PAGES])
            page = next((page for page in pages if not page.subfiletype & 5), pages[0])
            if not 0 < page.imagewidth * page.imagelength * page.imagedepth <= most_pixels:
                raise ValueError(f"its size is {page.imagewidth} x {page.imagelength}")
            if page.nbytes > 8 * most_pixels:  # four channels of 16 bits
                raise ValueError(f"it unpacks to {page.nbytes:,} bytes")
            _check_segments(page, data)
            values = page.asarray(maxworkers=1)
            values = _choose_channels(values, page, notes)
            white_is_zero = page.photometric == 0
            marked = page.tags.get(_NO_DATA)
            no_data = read_no_data({_NO_DATA: marked.value} if marked else {})
    except (KeyError, NotImplementedError) as error:
        raise unsupported(name, f"TIFF: {error}") from error
    except Exception as error:
        raise unreadable(name, "its pixels cannot be decoded", error) from error
    depth = Depth(white_is_zero=white_is_zero, no_data=no_data)
    pixels = to_bytes(values, name, notes, depth)
    return Image.fromarray(np.ascontiguousarray(pixels))


@cache
def _import_tifffile() -> Any:
    import tifffile

    # Its log on broken files is for hosts that listen, and must not appear on the screen.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


def _check_segments(page: Any, data: bytes) -> None:
    """Refuse compression that nothing here reads, and segments that unpack to too much."""
    if page.compression not in (1, 8, 32946) or page.samplesperpixel > _MOST_SAMPLES:
        raise NotImplementedError(
            f"{page.samplesperpixel} samples of {page.dtype}, compression {page.compression}"
        )
    if page.dtype is None or page.dtype.kind not in "uif":
        what = f"samples of {page.bitspersample} bits"
        raise NotImplementedError(what) if page.bitspersample <= 128 else ValueError(what)
    if page.compression == 1:
        return
    most = int(np.prod(page.chunks)) * page.dtype.itemsize
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        unpack = zlib.decompressobj()
        unpack.decompress(data[start : start + size], most + 1)
        if unpack.unconsumed_tail:
            raise ValueError("a strip unpacks to more than it should")


def _choose_channels(values: npt.NDArray[Any], page: Any, notes: list[str]) -> npt.NDArray[Any]:
    """(H, W) of grey or (H, W, 3) of colours, from what tifffile gives."""
    shape = (page.imagelength, page.imagewidth)
    if page.planarconfig == 2:
        values = values.reshape(page.samplesperpixel, *shape).transpose(1, 2, 0)
    values = values.reshape(*shape, page.samplesperpixel)
    if page.photometric in (0, 1):
        if values.shape[2] > 1:
            notes.append(f"It has {values.shape[2]} channels: the first alone was read.")
        return values[:, :, 0]
    if page.photometric == _RGB and values.shape[2] >= 3:
        if any(kind in (1, 2) for kind in page.extrasamples):
            notes.append("Its transparency was left out.")
        return values[:, :, :3]
    raise NotImplementedError(f"photometric interpretation {page.photometric}")
