"""Odd but legal files show what viewers show, and say in a warning what had to be assumed."""

from __future__ import annotations

import importlib
import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from _odd_pictures import (
    CLEAR,
    COLOUR,
    GREY,
    HEIGHT,
    MOVING,
    WIDTH,
    bmp,
    chunk,
    make_pictures,
    png_with,
    save,
    tags,
    tiff,
)
from PIL import Image, ImageCms
from refusals import refusal

from tpt.errors import ImageError
from tpt.images import _tiff, decode
from tpt.images._mend import bare_png
from tpt.images.decode import Picture, decode_image, load_picture

FILES = make_pictures()
AS_RGB = np.repeat(GREY[:, :, None], 3, axis=2)

INVISIBLE = "By its fourth channel it is transparent everywhere: the channel was left out."
LOST_END = "Its last bytes are missing or wrong, but all its pixels are there."
PROFILE = "Its colour profile cannot be used: sRGB was assumed."
CHECKSUM = "A part of it that holds no pixels has a wrong checksum: it was left out."
DARK = "Its 16-bit levels reach 250 of 65,535, which is nearly black."

WARNINGS = {
    **{name: INVISIBLE for name in FILES if "zero." in name and "colour" in name},
    **{name: LOST_END for name in FILES if "no-end" in name or "half-an-end" in name},
    "colour/unspecified-zero.tif": None,  # it says that its fourth channel is nothing special
    "colour/fourth-zero-16.tif": INVISIBLE,
    "colour/v5-alpha-one.bmp": INVISIBLE,
    "colour/pixels-without-checksum.png": LOST_END,
    "colour/broken-profile.png": PROFILE,
    "colour/text-wrong-checksum.png": CHECKSUM,
    "colour/text-behind-wrong-checksum.png": CHECKSUM,
    "colour/two-pages.tif": "It has more than one page: the first was read.",
    "grey/no-photometric.tif": "It does not say what its numbers are",
    "grey/signed-16.tif": "Its integers do not say their range: 0 to 255 was taken",
    "other/dark-16.png": DARK,
    "other/dark-16.pgm": DARK,
}


def message_of(source: object) -> str:
    return refusal(ImageError, decode_image, source)


@pytest.mark.parametrize("name", sorted(FILES))
def test_it_is_the_picture_that_viewers_show(name: str) -> None:
    pixels = decode_image(FILES[name]).astype(int)
    expected = AS_RGB if name.startswith(("grey", "other")) else COLOUR
    differs = np.abs(pixels - expected)
    if name.startswith("lossy"):
        assert np.median(differs) <= 6
        assert differs.mean() < 10
    elif name.startswith("other/dark"):
        assert pixels[40, 5, 0] == 0
        assert pixels[40, 60, 0] == pixels[15, 10, 0] == 1
    elif "no-data" in name:
        assert differs[3:].max() == 0
        assert pixels[:3].min() == 255
    else:
        assert differs.max() <= (6 if "-4." in name else 0)


@pytest.mark.parametrize("name", sorted(FILES))
def test_it_says_what_it_assumed(name: str) -> None:
    expected = WARNINGS.get(name)
    warning = load_picture(FILES[name]).warning
    if "no-data" in name:
        assert warning is not None
        assert warning.startswith("Pixels with the no-data value ")
    elif expected is None:
        assert warning is None
    else:
        assert warning is not None
        assert expected in warning
        assert warning.endswith(".")


@pytest.mark.parametrize("name", sorted(n for n in FILES if n.endswith("black-is-zero-16.tif")))
def test_a_pil_image_of_the_file_is_read_alike(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name.replace("black", "white")])) as image:
        assert np.array_equal(decode_image(image), AS_RGB)


# --- transparency ---


def test_a_page_that_is_transparent_and_empty_says_so() -> None:
    picture = load_picture(save(np.zeros((4, 4, 4), np.uint8), "PNG"))
    assert picture.pixels.min() == 255
    assert picture.warning == "It is transparent everywhere: a white page."


def test_an_unnamed_fourth_channel_is_transparency_aloud() -> None:
    half = np.concatenate([COLOUR, np.where(GREY[..., None] == CLEAR, 0, 255 - CLEAR)], axis=-1)
    half[:, :32, 3] = 0
    picture = load_picture(tiff((tags(8, 2, 4), half.tobytes())))
    assert picture.warning is not None
    assert picture.warning.startswith("It does not say what its fourth channel is")
    assert picture.pixels[:, :32].min() == 255
    assert np.array_equal(picture.pixels[:, 32:], COLOUR[:, 32:])


def test_arrays_and_pil_images_that_are_transparent_everywhere() -> None:
    four = np.concatenate([COLOUR, CLEAR], axis=-1)
    multiplied = Image.merge("RGBa", Image.fromarray(four).split())
    for source in (four, Image.fromarray(four), multiplied):
        picture = load_picture(source)
        assert np.array_equal(picture.pixels, COLOUR)
        assert picture.warning == INVISIBLE


# --- no data ---


def no_data(text: bytes, values: np.ndarray[Any, Any]) -> bytes:
    form = {"f": 3, "i": 2, "u": 1}[values.dtype.kind]
    more = {"t339": (3, [form]), "t42113": (2, text)}
    return tiff((tags(values.dtype.itemsize * 8, 1, **more), values.tobytes()))


def test_heights_keep_their_contrast_beside_no_data() -> None:
    heights = GREY.astype("<f4") * 10 - 500  # -100 to 2000 metres
    heights[:3] = -3.4028235e38
    pixels = decode_image(no_data(b"-3.4028234663852886e+38\0", heights))[3:, :, 0]
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert pixels[40, 60] == round(160 / 210 * 255)


def test_16_bit_levels_keep_their_scale_beside_no_data() -> None:
    levels = GREY.astype("<u2") * 257
    levels[:3] = 65535
    assert np.array_equal(decode_image(no_data(b"65535\0", levels))[3:], AS_RGB[3:])


def test_a_no_data_value_that_the_numbers_cannot_hold_marks_none() -> None:
    levels = GREY.astype("<u2") * 257
    levels[:3] = 65536 - 9999
    picture = load_picture(no_data(b"-9999\0", levels))
    assert np.array_equal(picture.pixels[3:], AS_RGB[3:])
    assert picture.pixels[:3].max() < 250
    assert picture.warning is None


def test_not_a_number_is_no_data_where_that_is_marked() -> None:
    levels = GREY.astype("<f4")
    levels[0], levels[1] = -9999, np.nan
    pixels = decode_image(no_data(b"-9999\0", levels))
    assert pixels[:2].min() == 255
    assert np.array_equal(pixels[2:], AS_RGB[2:])


def test_colours_of_floats_keep_their_contrast_beside_no_data() -> None:
    levels = COLOUR.astype("<f4")
    levels[:3] = -9999
    more = {"t339": (3, [3] * 3), "t42113": (2, b"-9999\0")}
    pixels = decode_image(tiff((tags(32, 2, 3, **more), levels.tobytes())))
    assert pixels[:3].min() == 255
    assert np.array_equal(pixels[3:], COLOUR[3:])


def test_channels_that_are_no_colours_are_told() -> None:
    bands = np.stack([GREY, GREY // 2, GREY // 3, GREY], axis=-1).astype("<u2") * 257
    picture = load_picture(tiff((tags(16, 1, 4, t338=(3, [0] * 3)), bands.tobytes())))
    assert np.array_equal(picture.pixels, AS_RGB)
    assert picture.warning == "It has 4 channels: the first alone was read."


def test_a_file_without_any_data_is_refused() -> None:
    levels = np.full((HEIGHT, WIDTH), -9999, "<f4")
    assert "nothing but its no-data value -9999" in message_of(no_data(b"-9999\0", levels))


def test_a_no_data_value_that_is_none_is_no_harm() -> None:
    assert np.array_equal(decode_image(no_data(b"none\0", GREY.astype("<f4"))), AS_RGB)


# --- TIFF kinds and pages ---


def test_rare_samples_name_the_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    _tiff._import_tifffile.cache_clear()
    message = message_of(FILES["grey/black-is-zero-float16.tif"])
    assert "needs the extra formats" in message
    assert "pip install 'tpt-runtime[formats]'" in message


PSD_16 = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 48, 64, 16, 3) + bytes(20000)
JPEG_12 = save(COLOUR, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PSD_16, "(3, 16)"),
        (JPEG_12, "12-bit"),
        (bmp(108, (0x3FF00000, 0xFFC00, 0x3FF, 0)), "bitfields layout"),
        (tiff((tags(10, 1), bytes(HEIGHT * 80))), "TIFF"),
        (tiff((tags(16, 1, t339=(3, [5])), bytes(9000))), "data type"),
        (tiff((tags(8, 1, t259=(3, [34887])), bytes(900))), "TIFF compression 34887"),
        (tiff((tags(8, 9, 3), COLOUR.tobytes())), "photometric interpretation"),
        (tiff((tags(64, 1, t339=(3, [3]), t259=(3, [5])), bytes(900))), "compression"),
    ],
)
def test_sound_files_of_rare_kinds_are_not_called_damaged(data: bytes, words: str) -> None:
    message = message_of(data)
    assert "is of a kind that is not supported" in message
    assert words in message
    assert "damaged" not in message


def test_a_strip_that_unpacks_without_end_is_refused() -> None:
    packed = zlib.compress(bytes(50_000_000), 9)
    page = (tags(64, 1, t339=(3, [3]), t259=(3, [8])), packed)
    assert "unpacks to more than it should" in message_of(tiff(page))


def test_only_reduced_pages_are_read_aloud() -> None:
    page = (tags(8, 2, 3, t254=(4, [1])), COLOUR.tobytes())
    picture = load_picture(tiff(page))
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.warning == "It has no page in full size: a reduced copy was read."


def test_a_first_page_beside_a_broken_one() -> None:
    broken = ({256: (3, [4])}, b"")
    data = tiff((tags(8, 2, 3), COLOUR.tobytes()), broken)
    assert np.array_equal(decode_image(data), COLOUR)


# --- colour profiles ---


def to_profile(space: str) -> tuple[Any, bytes]:
    """A wide RGB profile made by hand: sRGB with red and green swapped, so any use of it shows."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    entries = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = (entries[name] for name in (b"rXYZ", b"gXYZ"))
    kept = profile[red + 4 : red + 12]
    profile[red + 4 : red + 12] = profile[green + 4 : green + 12]
    profile[green + 4 : green + 12] = kept
    return space, bytes(profile)


SWAPPED = to_profile("RGB")[1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_an_embedded_profile_is_converted_to_srgb(kind: str) -> None:
    flat = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = save(flat, kind, icc_profile=SWAPPED, **options)
    sources = (data, Image.open(io.BytesIO(data)))
    for picture in map(load_picture, sources):
        assert np.abs(picture.pixels.astype(int) - (60, 200, 20)).max() <= 4
        assert picture.warning is None


def test_a_profile_of_srgb_changes_nothing() -> None:
    data = save(COLOUR, "PNG", icc_profile=SRGB)
    assert np.array_equal(decode_image(data), COLOUR)


def test_profiles_of_palettes_transparency_and_grey() -> None:
    flat = Image.new("RGB", (4, 4), (200, 60, 20))
    assert tuple(decode_image(save(flat.quantize(), "PNG", icc_profile=SWAPPED))[0, 0]) == (
        60,
        200,
        20,
    )
    clear = flat.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    pixels = decode_image(save(clear, "PNG", icc_profile=SWAPPED))
    assert pixels[0, 0].tolist() == [255] * 3
    assert np.abs(pixels[1, 1].astype(int) - (60, 200, 20)).max() <= 1
    grey = save(GREY, "JPEG", quality=100, icc_profile=SRGB)
    assert np.abs(decode_image(grey).astype(int) - AS_RGB).max() <= 2


@pytest.mark.parametrize(
    "profile", [b"no profile", SRGB[:200], bytes(500)], ids=["words", "cut short", "zeros"]
)
def test_a_profile_that_is_none_is_told(profile: bytes) -> None:
    picture = load_picture(save(COLOUR, "PNG", icc_profile=profile))
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.warning == PROFILE


def test_a_profile_of_other_colours_is_told() -> None:
    picture = load_picture(save(Image.new("CMYK", (4, 4)), "TIFF", icc_profile=SRGB))
    assert picture.warning == PROFILE


def test_a_long_profile_of_a_png_counts() -> None:
    packed = zlib.compress(SWAPPED.ljust(2_000_000, b"\0"))
    data = png_with(before=chunk(b"iCCP", b"x\0\0" + packed))
    pixels = decode_image(data)
    assert np.abs(pixels[40, 60].astype(int) - (100, 200, 55)).max() <= 2


# --- slightly broken ---

PHOTO = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
).resize((90, 70), Image.Resampling.BICUBIC)


def loads(data: bytes) -> Picture | None:
    try:
        return load_picture(data)
    except ImageError:
        return None


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 2}),
        ("JPEG", {"subsampling": 0, "quality": 30}),
        ("PNG", {}),
    ],
)
def test_a_cut_file_is_whole_or_an_error(kind: str, options: dict[str, Any]) -> None:
    data = save(PHOTO, kind, **options)
    expected = decode_image(data)
    cuts = [*range(1, 40), *np.random.default_rng(1).integers(40, len(data) - 20, 40).tolist()]
    found = {cut: loads(data[:-cut]) for cut in cuts}
    for cut, picture in found.items():
        if picture is not None:
            assert np.array_equal(picture.pixels, expected), cut
            assert picture.warning == LOST_END
    ends = 20 if kind == "PNG" else 2  # two checksums and an end; an end
    assert all(found[cut] is not None for cut in range(1, ends + 1))
    assert all(found[cut] is None for cut in cuts if cut > ends + 8)


def test_scans_that_are_missing_are_missing_pixels() -> None:
    """Cut between two scans nothing is torn, but the picture is not what it was."""
    data = save(PHOTO, "JPEG", progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for scan in scans[1:]:
        assert "is damaged or cut short" in message_of(data[:scan])


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_a_png_whose_size_or_palette_fails_its_checksum_is_an_error(kind: bytes) -> None:
    data = bytearray(save(Image.fromarray(COLOUR).quantize(), "PNG"))
    start = data.index(kind)
    data[start + 4 + struct.unpack_from(">I", data, start - 4)[0]] ^= 1
    assert "is damaged or cut short" in message_of(bytes(data))


@pytest.mark.parametrize("moving", [False, True])
def test_a_webp_cut_behind_its_pixels_is_told(moving: bool) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + b"a" * 200
    options = MOVING if moving else {}
    data = save(COLOUR, "WEBP", lossless=True, exif=exif, **options)
    for cut in (1, 50, 210):
        picture = load_picture(data[:-cut])
        assert np.array_equal(picture.pixels, COLOUR)
        assert picture.warning == LOST_END
    assert "is damaged or cut short" in message_of(data[: data.index(b"VP8L") + 40])


def test_a_gif_without_its_end_is_told() -> None:
    data = save(Image.fromarray(COLOUR).quantize(), "GIF")
    assert load_picture(data).warning is None
    assert load_picture(data[:-2]).warning == LOST_END
    assert np.array_equal(decode_image(data[:-2]), COLOUR)


def test_a_png_whose_pixels_fail_their_checksum_is_told() -> None:
    data = bytearray(save(COLOUR, "PNG"))
    data[-13] ^= 1  # the last byte of the last IDAT's
    picture = load_picture(bytes(data))
    assert picture.warning == "The checksum of its pixels is wrong: they may be, too."


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("mode", "depth", "colour"), [("L", 8, 0), ("1", 1, 0), ("RGB", 8, 2)])
def test_bare_pixels_of_every_layout(mode: str, depth: int, colour: int, interlaced: bool) -> None:
    """A text that Pillow refuses makes it read the pixels alone."""
    image = Image.fromarray(COLOUR[:7, :13]).convert(mode)
    data = save(image, "PNG")
    if interlaced:
        grid = np.asarray(image).astype(np.uint8) if mode != "1" else np.asarray(image)
        rows = b""
        for left, top, across, down in (
            *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
            *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
        ):
            part = grid[top::down, left::across]
            lines = np.packbits(part, axis=1) if mode == "1" else part
            if part.size:
                rows += b"".join(b"\0" + line.tobytes() for line in lines)
        header = struct.pack(">IIBBBBB", 13, 7, depth, colour, 0, 0, 1)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_200_000)))
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(decode_image(data), expected)
    assert np.array_equal(decode_image(data[:33] + text + data[33:]), expected)


def test_a_png_that_declares_more_than_can_be_counted_is_an_error() -> None:
    header = struct.pack(">IIBBBBB", 2**32 - 1, 2**32 - 1, 16, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"zTXt", b"a\0\1b")
    assert "not supported" in message_of(data + chunk(b"IDAT", zlib.compress(b"\0")))


def test_mending_takes_no_more_memory_than_a_picture() -> None:
    data = save(COLOUR, "PNG")
    rows = HEIGHT * (1 + 3 * WIDTH)
    assert bare_png(data, [], rows) is not None
    assert bare_png(data, [], rows - 1) is None


def test_a_tiff_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES["grey/black-is-zero-float64.tif"]
    monkeypatch.setattr(decode, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert "damaged" in message_of(data)
    more = tags(64, 1, 16, t338=(3, [0] * 15), t339=(3, [3] * 16))
    monkeypatch.setattr(decode, "MAX_PIXELS", WIDTH * HEIGHT)
    assert np.array_equal(decode_image(data), AS_RGB)
    assert "it unpacks to 393,216 bytes" in message_of(tiff((more, bytes(9))))


def test_what_memory_does_not_hold_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", fail)
    assert "is too large to decode (MemoryError). Scale it down." in message_of(
        FILES["colour/v3.bmp"]
    )


@pytest.mark.parametrize(
    "kind", [b"zTXt" + b"a\0\1b", b"gAMA\0", b"cHRM\0", b"pHYs", b"acTL\0", b"iCCPx\0\1y"]
)
def test_a_png_is_read_beside_chunks_that_nobody_needs(kind: bytes) -> None:
    data = png_with(before=chunk(kind[:4], kind[4:]))
    assert np.array_equal(decode_image(data), COLOUR)


# --- formats of plugins ---


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("lossy/picture.heic", "pillow_heif", "HEIC"),
        ("colour/picture.jxl", "pillow_jxl.JpegXLImagePlugin", "JPEG XL"),
    ],
)
def test_a_missing_plugin_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for registered in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, registered, raising=False)
    message = message_of(FILES[name])
    assert f"is a picture of the kind {kind}, which needs the extra formats." in message
    assert message.endswith("Install it: pip install 'tpt-runtime[formats]'.")


@pytest.mark.parametrize("brand", [b"mif1", b"msf1", b"heic"])
def test_a_heic_is_read_whatever_its_first_brand(brand: bytes) -> None:
    data = FILES["lossy/picture.heic"]
    assert np.array_equal(decode_image(data[:8] + brand + data[12:]), decode_image(data))


def test_a_jxl_that_declares_too_much_is_refused_before_it_is_decoded() -> None:
    # The bits of a size header: not small, 30 bits of height, the ratio 1 to 1.
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33
    data = b"\xff\x0a" + bits.to_bytes(12, "little")
    box = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 22, b"jxlc") + data
    for source in (data, box):
        assert "declares 1073741824 x 1073741824 pixels" in message_of(source)


def test_a_jpeg_xl_is_turned_once() -> None:
    """By its own mark, which its decoder follows; EXIF counts only where it was made of a JPEG."""
    assert "colour/picture.jxl" in FILES
    plugin: Any = importlib.import_module("pillow_jxl")
    exif = Image.Exif()
    exif[0x0112] = 6
    encode = plugin.Encoder(mode="RGB", lossless=True)
    data = encode(COLOUR.tobytes(), WIDTH, HEIGHT, jpeg_encode=False, exif=exif.tobytes()[6:])
    assert np.array_equal(decode_image(data), COLOUR)
    jpeg = save(COLOUR, "JPEG", quality=95, exif=exif)
    data = plugin.Encoder(mode="RGB", lossless=True)(jpeg, WIDTH, HEIGHT, jpeg_encode=True)
    assert np.abs(decode_image(data).astype(int) - np.rot90(COLOUR, -1)).mean() < 10


def test_moving_pictures_of_plugins_start_with_their_first_frame() -> None:
    assert MOVING["append_images"]
    assert np.abs(decode_image(FILES["lossy/moving.avif"]).astype(int) - COLOUR).mean() < 10
