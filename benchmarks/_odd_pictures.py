"""Unusual but legal image files, by name, as bytes: input of the fuzzing and of tests.

The image is 64 wide and 48 high. Its left half is dark grey 40, its right half 200, with a square
of 250. Its colours are (g, g / 2, 255 - g). Files in `grey/` and `colour/` hold exactly that, those
in `lossy/` nearly, those in `other/` something else.
"""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

WIDTH, HEIGHT = 64, 48
GREY = np.full((HEIGHT, WIDTH), 40, np.uint8)
GREY[:, WIDTH // 2 :] = 200
GREY[10:20, 5:15] = 250
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
OPAQUE = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
CLEAR = np.zeros((HEIGHT, WIDTH, 1), np.uint8)

MOVING: dict[str, Any] = {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]}

_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 12: "d"}  # struct's, by TIFF's types
Tags = dict[int, tuple[int, Any]]


def tiff(*pages: tuple[Tags, bytes], big_endian: bool = False) -> bytes:
    """A TIFF of pages: tags as {number: (type, values)}, and one strip of pixels."""
    order = ">" if big_endian else "<"
    out = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 8)
    for number, (tags, strip) in enumerate(pages):
        tags = {273: (4, [0]), 279: (4, [len(strip)]), **tags}
        size = 2 + 12 * len(tags) + 4
        extra = b""
        entries = b""
        for tag in sorted(tags):
            kind, values = tags[tag]
            count = len(values)
            form = f"{order}{count}{_CODES[kind]}"
            body = values if kind == 2 else struct.pack(form, *values)
            if len(body) > 4:
                place = struct.pack(order + "I", len(out) + size + len(extra))
                extra += body + b"\0" * (len(body) % 2)
            else:
                place = body.ljust(4, b"\0")
            entries += struct.pack(order + "HHI", tag, kind, count) + place
        start = len(out) + size + len(extra)
        shift = [value + start for value in tags[273][1]]
        if len(shift) == 1:
            field = struct.pack(order + "HHII", 273, 4, 1, 0)
            entries = entries.replace(field, struct.pack(order + "HHII", 273, 4, 1, start), 1)
        else:
            old = struct.pack(f"{order}{len(shift)}I", *tags[273][1])
            extra = extra.replace(old, struct.pack(f"{order}{len(shift)}I", *shift), 1)
        end = start + len(strip)
        following = struct.pack(order + "I", end if number + 1 < len(pages) else 0)
        out += struct.pack(order + "H", len(tags)) + entries + following + extra + strip
    return out


def tags(bits: int, photometric: int, samples: int = 1, **more: Any) -> Tags:
    """The tags of a page; `more` as t339=(3, [2])."""
    return {
        **{256: (3, [WIDTH]), 257: (3, [HEIGHT]), 258: (3, [bits] * samples), 259: (3, [1])},
        **{262: (3, [photometric]), 277: (3, [samples]), 278: (3, [HEIGHT])},
        **{int(name[1:]): value for name, value in more.items()},
    }


def pack(values: npt.NDArray[Any], bits: int) -> bytes:
    """Rows of numbers of any depth, the highest bit first, each row filled up to a byte."""
    places = np.arange(bits - 1, -1, -1)
    spread = (values[..., None].astype(np.int64) >> places) & 1
    return np.packbits(spread.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def scale(bits: int) -> npt.NDArray[np.int64]:
    """The grey subject, in levels of a depth."""
    return np.rint(GREY.astype(np.float64) * (2**bits - 1) / 255).astype(np.int64)


def save(pixels: npt.NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*, before: bytes = b"", after: bytes = b"", **options: Any) -> bytes:
    """A PNG with extra chunks before or after its pixels."""
    data = save(COLOUR, "PNG", **options)
    return data[:33] + before + data[33:-12] + after + data[-12:]


def bmp(header: int, masks: tuple[int, ...] = (), fourth: int = 0) -> bytes:
    """A BMP of 32 bits per pixel with the given header length and bit masks."""
    fill = np.full((HEIGHT, WIDTH, 1), fourth, np.uint8)
    pixels = np.concatenate([COLOUR[::-1, :, ::-1], fill], axis=-1).tobytes()
    sizes = (WIDTH, HEIGHT, 1, 32, 3 if masks else 0, len(pixels), 2835, 2835, 0, 0)
    head = struct.pack("<IiiHHIIiiII", header, *sizes) + struct.pack(f"<{len(masks)}I", *masks)
    head = head.ljust(header, b"\0")
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + pixels


def tga(depth: int, pixels: bytes, alpha_bits: int = 0) -> bytes:
    """A TGA of true colours, its first row on top."""
    fields = (0, 0, 2, 0, 0, 0, 0, 0, WIDTH, HEIGHT, depth, 32 | alpha_bits)
    return struct.pack("<BBBHHBHHHHBB", *fields) + pixels


def make_pictures() -> dict[str, bytes]:
    """All files, by name. HEIC and JPEG XL only if their plugins are installed."""
    return {**_grey_tiffs(), **_colour_tiffs(), **_pngs(), **_others(), **_plugin_formats()}


def _grey_tiffs() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for white in (0, 1):  # WhiteIsZero is 0
        end = "black" if white else "white"
        for bits in (8, 16):
            levels = scale(bits) if white else 2**bits - 1 - scale(bits)
            for order in "<>":
                strip = levels.astype(f"{order}u{bits // 8}").tobytes()
                name = f"grey/{end}-is-zero-{bits}{'be' if order == '>' else ''}.tif"
                files[name] = tiff((tags(bits, white), strip), big_endian=order == ">")
            packed = zlib.compress(levels.astype(f"<u{bits // 8}").tobytes())
            files[f"grey/{end}-is-zero-{bits}-deflate.tif"] = tiff(
                (tags(bits, white, t259=(3, [8])), packed)
            )
        for big in (False, True):
            levels = scale(12) if white else 4095 - scale(12)
            name = f"grey/{end}-is-zero-12{'be' if big else ''}.tif"
            files[name] = tiff((tags(12, white), pack(levels, 12)), big_endian=big)
        levels = scale(4) if white else 15 - scale(4)
        files[f"other/{end}-is-zero-4.tif"] = tiff((tags(4, white), pack(levels, 4)))
        levels = scale(32) if white else 2**32 - 1 - scale(32)
        for order in "<>":
            page = (tags(32, white), levels.astype(f"{order}u4").tobytes())
            name = f"grey/{end}-is-zero-32{'be' if order == '>' else ''}.tif"
            files[name] = tiff(page, big_endian=order == ">")
        unit = GREY / 255 if white else 1 - GREY / 255
        for bits in (16, 32, 64):
            for order in "<>":
                strip = unit.astype(f"{order}f{bits // 8}").tobytes()
                page = (tags(bits, white, t339=(3, [3])), strip)
                name = f"grey/{end}-is-zero-float{bits}{'be' if order == '>' else ''}.tif"
                files[name] = tiff(page, big_endian=order == ">")
    wide = GREY.astype("<i2")
    files["grey/signed-16.tif"] = tiff((tags(16, 1, t339=(3, [2])), wide.tobytes()))
    files["grey/no-photometric.tif"] = tiff(
        ({k: v for k, v in tags(8, 1).items() if k != 262}, GREY.tobytes())
    )
    least = b"-1.7976931348623157e+308\0"
    for kind, value in (("<f4", b"-9999\0"), ("<f8", least), ("<f4", b"nan\0")):
        levels = GREY.astype(kind)
        levels[:3] = float(value[:-1])
        bits = levels.dtype.itemsize * 8
        page = (tags(bits, 1, t339=(3, [3]), t42113=(2, value)), levels.tobytes())
        files[f"other/no-data-float{bits}-{value[:3].decode()}.tif"] = tiff(page)
    for kind, number in (("<i2", -32768), ("<i4", -9999), ("<u4", 2**32 - 1)):
        levels = GREY.astype(kind)
        levels[:3] = number
        form = 2 if kind[1] == "i" else 1
        text = str(number).encode() + b"\0"
        bits = levels.dtype.itemsize * 8
        page = (tags(bits, 1, t339=(3, [form]), t42113=(2, text)), levels.tobytes())
        files[f"other/no-data-{kind[1:]}.tif"] = tiff(page)
    return files


def _colour_tiffs() -> dict[str, bytes]:
    colour, deep = COLOUR.tobytes(), COLOUR.astype("<u2") * 257
    zero = np.concatenate([COLOUR, CLEAR], axis=-1)
    full = np.concatenate([COLOUR, OPAQUE], axis=-1)
    thumb = tags(8, 2, 3, t254=(4, [1])) | {256: (3, [4]), 257: (3, [4]), 278: (3, [4])}
    planes = COLOUR.transpose(2, 0, 1).tobytes()
    starts, counts = [n * GREY.size for n in range(3)], [GREY.size] * 3
    planar = tags(8, 2, 3, t284=(3, [2]), t273=(4, starts), t279=(4, counts))
    floats = (COLOUR / 255).astype("<f4").tobytes()
    return {
        "colour/rgb.tif": tiff((tags(8, 2, 3), colour)),
        "colour/rgb-16.tif": tiff((tags(16, 2, 3), deep.tobytes())),
        "colour/rgb-float.tif": tiff((tags(32, 2, 3, t339=(3, [3] * 3)), floats)),
        "colour/planar.tif": tiff((planar, planes)),
        "colour/fourth-zero.tif": tiff((tags(8, 2, 4), zero.tobytes())),
        "colour/fourth-zero-16.tif": tiff((tags(16, 2, 4), (zero.astype("<u2") * 257).tobytes())),
        "colour/unspecified-zero.tif": tiff((tags(8, 2, 4, t338=(3, [0])), zero.tobytes())),
        "colour/multiplied-zero.tif": tiff((tags(8, 2, 4, t338=(3, [1])), zero.tobytes())),
        "colour/alpha-zero.tif": tiff((tags(8, 2, 4, t338=(3, [2])), zero.tobytes())),
        "colour/alpha-full.tif": tiff((tags(8, 2, 4, t338=(3, [2])), full.tobytes())),
        "colour/thumbnail-first.tif": tiff((thumb, bytes(48)), (tags(8, 2, 3), colour)),
        "colour/mask-second.tif": tiff(
            (tags(8, 2, 3), colour), (tags(8, 1, t254=(4, [4])), GREY.tobytes())
        ),
        "colour/two-pages.tif": tiff((tags(8, 2, 3), colour), (tags(8, 1), GREY.tobytes())),
    }


def _pngs() -> dict[str, bytes]:
    text = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"workflow" * 300_000))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    long_profile = zlib.compress(profile.ljust(2_000_000, b"\0"))
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 600_000))
    wrong = chunk(b"tEXt", b"a\0b")[:-1] + b"\0"
    whole = save(COLOUR, "PNG")
    return {
        "colour/text-before.png": png_with(before=text),
        "colour/text-after.png": png_with(after=text),
        "colour/xmp.png": png_with(before=xmp),
        "colour/long-profile.png": png_with(before=chunk(b"iCCP", b"x\0\0" + long_profile)),
        "colour/broken-profile.png": png_with(before=chunk(b"iCCP", b"x\0\0not packed")),
        "colour/text-wrong-checksum.png": png_with(before=wrong),
        "colour/text-behind-wrong-checksum.png": png_with(after=wrong),
        "colour/no-end.png": whole[:-12],
        "colour/pixels-without-checksum.png": whole[:-20],
        "colour/alpha-zero.png": save(np.concatenate([COLOUR, CLEAR], axis=-1), "PNG"),
        "colour/moving.png": save(COLOUR, "PNG", **MOVING),
        "grey/16.png": save(scale(16).astype(np.uint16), "PNG"),
        "other/dark-16.png": save(GREY.astype(np.uint16), "PNG"),
    }


def _others() -> dict[str, bytes]:
    image, wide = Image.fromarray(COLOUR), COLOUR[:, :, ::-1]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    jpeg = save(COLOUR, "JPEG", quality=95)
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    return {
        "colour/v3.bmp": bmp(40),
        "colour/v4-alpha-zero.bmp": bmp(108, masks),
        "colour/v5-alpha-zero.bmp": bmp(124, masks),
        "colour/v5-alpha-one.bmp": bmp(124, masks, fourth=1),
        "colour/v5-alpha.bmp": bmp(124, masks, fourth=255),
        "colour/alpha-zero.tga": tga(32, np.concatenate([wide, CLEAR], axis=-1).tobytes(), 8),
        "colour/plain.tga": tga(24, wide.tobytes()),
        "colour/alpha-zero.webp": save(
            np.concatenate([COLOUR, CLEAR], axis=-1), "WEBP", lossless=True, exact=True
        ),
        "colour/moving.webp": save(COLOUR, "WEBP", lossless=True, **MOVING),
        "colour/moving.gif": save(image.quantize(), "GIF", **MOVING),
        "colour/picture.ico": save(COLOUR, "ICO", sizes=[(WIDTH, HEIGHT)]),
        "colour/picture.qoi": save(COLOUR, "QOI"),
        "colour/picture.sgi": save(COLOUR, "SGI"),
        "colour/picture.pcx": save(COLOUR, "PCX"),
        "colour/picture.dds": save(COLOUR, "DDS"),
        "colour/16.ppm": b"P6\n" + size + b"65535\n" + (COLOUR.astype(">u2") * 257).tobytes(),
        "colour/comment.ppm": b"P6 # made\n# by\n" + size + b"255\n" + COLOUR.tobytes(),
        "grey/10.pgm": b"P5\n" + size + b"1023\n" + scale(10).astype(">u2").tobytes(),
        "grey/picture.pfm": b"Pf\n" + size + b"-1.0\n" + (GREY[::-1] / 255).astype("<f4").tobytes(),
        "other/dark-16.pgm": b"P5\n" + size + b"65535\n" + GREY.astype(">u2").tobytes(),
        "lossy/picture.jpg": jpeg,
        "lossy/no-end.jpg": jpeg[:-2],
        "lossy/half-an-end.jpg": jpeg[:-1],
        "lossy/more-behind.jpg": jpeg + bytes(5000) + b"extra",
        "lossy/progressive.jpg": save(COLOUR, "JPEG", quality=95, progressive=True),
        "lossy/progressive-no-end.jpg": save(COLOUR, "JPEG", quality=95, progressive=True)[:-2],
        "lossy/cmyk.jpg": save(image.convert("CMYK"), "JPEG", quality=95),
        "lossy/two.mpo": save(COLOUR, "MPO", quality=95, **MOVING),
        "lossy/picture.jp2": save(COLOUR, "JPEG2000"),
        "lossy/moving.avif": save(COLOUR, "AVIF", quality=95, **MOVING),
    }


def _plugin_formats() -> dict[str, bytes]:
    try:
        import pillow_heif

        pillow_jxl: Any = importlib.import_module("pillow_jxl")
    except ImportError:
        return {}
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(COLOUR)).save(heic, quality=95, chroma=444)
    encoder = pillow_jxl.Encoder(mode="RGB", lossless=True)
    files = {"lossy/picture.heic": heic.getvalue()}
    files["colour/picture.jxl"] = encoder(COLOUR.tobytes(), WIDTH, HEIGHT, False)
    return files
