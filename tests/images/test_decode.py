"""Every kind of image decodes as a person would see it, and every bad one says what is wrong."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from _odd_pictures import chunk, save
from PIL import Image, ImageFile, ImageOps
from refusals import refusal

from tpt.errors import ImageError
from tpt.images import decode
from tpt.images.decode import decode_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "ICO":  # Pillow 12 writes nothing for a picture below its list of sizes
        options.setdefault("sizes", [image.size])
    return save(image, kind, **options)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that declares a size and holds nearly nothing."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def corners(mode: str = "RGB") -> Image.Image:
    """2 wide, 3 high: red top left, green top right, blue bottom left, the rest white."""
    image = Image.new("RGB", (2, 3), WHITE)
    image.putpixel((0, 0), RED)
    image.putpixel((1, 0), GREEN)
    image.putpixel((0, 2), BLUE)
    return image.convert(mode)


def message_of(source: object) -> str:
    return refusal(ImageError, decode_image, source)


# --- what every result has in common ---


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 3)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_any_size(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(Image.new("RGB", size, WHITE), kind))
    pixels = decode_image(path)
    assert pixels.shape == (size[1], size[0], 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert pixels.min() >= 254


def test_path_bytes_and_pil_agree(tmp_path: Path) -> None:
    expected = np.array(corners())
    data = encode(corners(), "PNG")
    path = tmp_path / "corners.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), corners()):
        assert np.array_equal(decode_image(source), expected)
    with Image.open(path) as lazy:
        assert np.array_equal(decode_image(lazy), expected)


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(corners(), "PNG"))
    assert np.array_equal(decode_image(path), np.array(corners()))


@pytest.mark.parametrize("name", ["a b.png", "quote'\".png", "new\nline.png", "猫é.png", "-", "@x"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(corners(), "PNG"))
    assert decode_image(path).shape == (3, 2, 3)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names there are always Unicode")
def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.png"))
    Path(path).write_bytes(encode(corners(), "PNG"))
    assert decode_image(path).shape == (3, 2, 3)
    os.truncate(path, 0)
    assert "caf\\udce9.png" in message_of(path)


def test_many_threads_agree() -> None:
    data = [encode(corners("P"), "PNG"), encode(corners("CMYK"), "TIFF")] * 16
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(decode_image, data):
            assert np.array_equal(pixels, np.array(corners()))


def test_torch_is_not_imported() -> None:
    program = (
        "import sys, tpt.images.decode, tpt.scale.reading\nassert 'torch' not in sys.modules\n"
    )
    root = Path(decode.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_pillows_global_limit_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode_image(encode(corners(), "PNG"))
    assert before == Image.MAX_IMAGE_PIXELS


# --- modes ---


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", "PNG"), ("P", "PNG"), ("P", "GIF"), ("P", "BMP"), ("RGB", "TIFF")),
        *(("CMYK", "TIFF"), ("P", "TIFF"), ("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBX", "TIFF")),
        *(("RGB", "PPM"), ("RGB", "TGA"), ("RGB", "PCX"), ("RGB", "SGI"), ("RGB", "DDS")),
        *(("RGB", "ICO"), ("RGB", "QOI")),
    ],
)
def test_lossless_colour_is_exact(mode: str, kind: str) -> None:
    data = encode(corners(mode), kind)
    assert np.array_equal(decode_image(data), np.array(corners()))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG2000"])
def test_modern_formats(kind: str) -> None:
    data = encode(Image.new("RGB", (16, 16), (200, 60, 20)), kind)
    assert np.abs(decode_image(data).astype(int) - (200, 60, 20)).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "CMYK", "RGBX", "P", "PA"])
def test_pil_modes_are_exact(mode: str) -> None:
    image = corners("P").convert("PA") if mode == "PA" else corners(mode)
    assert image.mode == mode
    assert np.array_equal(decode_image(image), np.array(corners()))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    rgb = Image.new("RGB", (4, 4), (200, 60, 20))
    if mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(rgb, to_lab)
        assert image is not None
    else:
        image = rgb.convert(mode)
    # HSV has no file form, and Pillow 12 cannot read the YCbCr TIFF that it writes.
    unreadable = mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13
    sources = [image] if mode == "HSV" or unreadable else [image, encode(image, "TIFF")]
    for source in sources:
        assert np.abs(decode_image(source).astype(int) - (200, 60, 20)).max() <= 4


def test_cmyk_jpeg_is_not_inverted() -> None:
    data = encode(Image.new("RGB", (16, 16), (255, 128, 0)).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # the marker that means: stored inverted
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
    assert np.abs(decode_image(data).astype(int) - (255, 128, 0)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey(mode: str) -> None:
    image = Image.new("L", (2, 1), 0)
    image.putpixel((1, 0), 255)
    pixels = decode_image(encode(image.convert(mode), "PNG"))
    assert pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


GREY16 = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
GREY16_AS_8 = [0, 1, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(kind: str) -> None:
    data = encode(Image.fromarray(GREY16), kind)
    assert decode_image(data)[0].tolist() == [[v] * 3 for v in GREY16_AS_8]


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(GREY16), id="I;16"),
        pytest.param(Image.frombytes("I;16B", (4, 1), GREY16.astype(">u2").tobytes()), id="I;16B"),
        pytest.param(Image.fromarray(GREY16.astype(np.int32)), id="I"),
    ],
)
def test_16_bits_from_pil(image: Image.Image) -> None:
    assert decode_image(image)[0, :, 0].tolist() == GREY16_AS_8


def test_16_bits_big_endian_tiff() -> None:
    image = Image.frombytes("I;16B", (4, 1), GREY16.astype(">u2").tobytes())
    assert decode_image(encode(image, "TIFF"))[0, :, 0].tolist() == GREY16_AS_8


def test_dark_16_bits_stay_dark() -> None:
    assert decode_image(Image.fromarray(np.full((2, 2), 255, np.uint16))).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),
        ([0, 257, 514], [0, 1, 2]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 100_000, 200_000], [0, 128, 255]),
        ([-5, -5, -5], [0, 0, 0]),
        ([70_000, 70_000, 70_000], [255, 255, 255]),
    ],
)
def test_32_bit_integers(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    for source in (image, encode(image, "TIFF")):
        assert decode_image(source)[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 7, 255], [0, 7, 255]),
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 500, 1000], [0, 128, 255]),
        ([-3e38, 0, 3e38], [0, 128, 255]),
        ([300, 300, 300], [255, 255, 255]),
    ],
)
def test_float_files(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    for source in (image, encode(image, "TIFF")):
        assert decode_image(source)[0, :, 1].tolist() == expected


def test_float_file_with_nan() -> None:
    data = encode(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF")
    assert "holds NaN or infinite values" in message_of(data)


# --- transparency ---


def half_clear(mode: str) -> Image.Image:
    """A clear pixel (black underneath), a half clear black one, a solid black one."""
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.putpixel((2, 0), (0, 0, 0, 255))
    return image if mode == "RGBA" else image.convert("LA").convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    image = half_clear("RGBA").convert("RGBa") if mode == "RGBa" else half_clear(mode)
    assert image.mode == mode
    assert decode_image(image).tolist() == [[[255] * 3, [127] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_files(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(half_clear("RGBA"), kind, **options)
    assert decode_image(data).tolist() == [[[255] * 3, [127] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_clear_colour(kind: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, *RED])
    image.putpixel((1, 0), 1)
    data = encode(image, kind, transparency=0)
    assert decode_image(data).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_palette_with_alpha_bytes() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((1, 0), 1)
    data = encode(image, "PNG", transparency=bytes([128, 255]))
    assert decode_image(data).tolist() == [[[127, 127, 127], [255, 0, 0]]]


def test_pa_with_alpha() -> None:
    image = Image.new("PA", (1, 1))
    image.putpalette([0, 0, 0])
    image.putpixel((0, 0), (0, 0))
    assert decode_image(image).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    ("image", "key"),
    [
        pytest.param(Image.new("L", (2, 1), 9), 9, id="L"),
        pytest.param(Image.new("RGB", (2, 1), (1, 2, 3)), (1, 2, 3), id="RGB"),
        pytest.param(Image.new("1", (2, 1), 0), 0, id="1"),
        pytest.param(Image.fromarray(np.full((1, 2), 900, np.uint16)), 900, id="I;16"),
    ],
)
def test_one_clear_colour_without_alpha(image: Image.Image, key: object) -> None:
    assert decode_image(encode(image, "PNG", transparency=key)).min() == 255


# --- orientation and frames ---


def with_orientation(image: Image.Image, orientation: int) -> Image.Exif:
    exif = image.getexif()
    exif[0x0112] = orientation
    return exif


def test_orientation_6_by_position() -> None:
    """Orientation 6: turned a quarter clockwise to be seen, so the left column is the top row."""
    image = corners()
    data = encode(image, "PNG", exif=with_orientation(image, 6))
    pixels = decode_image(data)
    assert pixels.shape == (2, 3, 3)
    assert tuple(pixels[0, 2]) == RED
    assert tuple(pixels[1, 2]) == GREEN
    assert tuple(pixels[0, 0]) == BLUE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation(kind: str, orientation: int) -> None:
    image = Image.fromarray(np.arange(0, 240, dtype=np.uint8).reshape(8, 10, 3))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(image, kind, exif=with_orientation(image, orientation), **options)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    pixels = decode_image(data)
    assert np.array_equal(pixels, expected)
    assert pixels.flags.c_contiguous
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(decode_image(opened), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert decode_image(encode(corners(), "PNG", exif=exif)).shape == (3, 2, 3)


def test_orientation_out_of_range_is_ignored() -> None:
    image = corners()
    data = encode(image, "PNG", exif=with_orientation(image, 77))
    assert np.array_equal(decode_image(data), np.array(corners()))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.abs(decode_image(data).astype(int) - RED).max() <= 4


def test_pil_image_keeps_its_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        assert tuple(decode_image(image)[0, 0]) == GREEN


# --- files that cannot be read ---


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no\nsuch.jpg"
    message = message_of(path)
    assert "no\\nsuch.jpg' does not exist: expected an image file. Check the spelling" in message


def test_folder(tmp_path: Path) -> None:
    assert "is a folder: expected an image file. Name such a file" in message_of(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is a pipe or a device: expected an image file" in message_of(tmp_path / "pipe.jpg")


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # chmod does not stop root, who runs many a CI
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "secret.png"
    path.write_bytes(encode(corners(), "PNG"))
    monkeypatch.setattr(decode, "open", refuse, raising=False)
    message = message_of(path)
    assert "may not be read: permission denied. Give this user the right" in message


@pytest.mark.parametrize("path", ["a\0b.jpg", "x" * 5000])
def test_impossible_path(path: str) -> None:
    assert "cannot be opened (" in message_of(path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    assert "zero.jpg' is empty (0 bytes): expected an image" in message_of(tmp_path / "zero.jpg")
    assert message_of(b"").startswith("The image given as bytes is empty")


def test_what_is_no_image_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    os.truncate(path, 1 << 40)  # a hole of a terabyte takes no disk
    with pytest.raises(ImageError, match="is not an image"):
        decode_image(path)


def test_text_renamed(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<!DOCTYPE html>\n<p>404 not found, and many more words\n")
    message = message_of(path)
    assert (
        "is not an image: it starts with b'<!DOCTYPE ht', which fits none of JPEG, PNG" in message
    )
    assert message.endswith("Convert it to one of these, or leave it out.")


@pytest.mark.parametrize("data", [b"\0", b"\0" * 4096, bytes(range(256)) * 9, b"P", b"GIF", b"BM"])
def test_rubbish(data: bytes) -> None:
    message = message_of(data)
    assert "is not an image" in message or "header cannot be read" in message


def test_formats_that_start_programs_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    assert "is not an image" in message_of(eps)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "PPM"])
def test_truncated(tmp_path: Path, kind: str, share: float) -> None:
    data = encode(NOISE, kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: max(16, int(share * len(data)))])
    message = message_of(path)
    assert "cut.jpg' is damaged or cut short: its " in message
    assert message.endswith("). Fetch it again, or leave it out.")


def test_truncated_jpeg_keeps_its_cause() -> None:
    data = encode(NOISE, "JPEG")
    with pytest.raises(
        ImageError, match=r"pixels cannot be decoded \(image file is trunc"
    ) as caught:
        decode_image(data[: len(data) // 2])
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "ICO"])
def test_flipped_bytes_never_escape(kind: str) -> None:
    """Whatever a broken file does to a decoder, the caller sees pixels or an ImageError."""
    good = encode(Image.fromarray(np.asarray(NOISE)[:16, :16]), kind)
    random = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(good)
        for place in random.integers(0, min(len(data), 300), 3):
            data[place] = random.integers(256)
        with contextlib.suppress(ImageError):
            pixels = decode_image(bytes(data))
            assert pixels.dtype == np.uint8
            assert pixels.shape[2:] == (3,)


def test_closed_pil_image() -> None:
    image = Image.open(io.BytesIO(encode(corners(), "PNG")))
    image.close()
    assert message_of(image).startswith("The PIL image is damaged or cut short")


# --- size limits ---


def test_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loads.append)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(100_000, 100_000))
    message = message_of(path)
    assert "bomb.png' declares 100000 x 100000 pixels: expected at most 178,956,970 in" in message
    assert loads == []


def webp_canvas(width: int, height: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_webp_bomb() -> None:
    # Before 13 Pillow asked libwebp first, which refuses this file for want of frames.
    refusal = "too large to decode" if int(PIL.__version__.split(".")[0]) > 12 else "damaged"
    assert refusal in message_of(webp_canvas(60_000, 60_000))


def test_below_the_limit_pillow_neither_warns_nor_refuses() -> None:
    """100 megapixels: Pillow's own open warns, and pytest turns warnings into errors."""
    with pytest.raises(ImageError, match="cut short") as caught:
        decode_image(png_header(10_000, 10_000, depth=1, colour=0))
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "TIFF lzw"])
@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_pillows_limit_does_not_warn(monkeypatch: pytest.MonkeyPatch, kind: str, mode: str) -> None:
    kind, _, compression = kind.partition(" ")
    image = corners("RGB" if kind in ("JPEG", "WEBP", "AVIF") else mode)
    data = encode(image, kind, compression=f"tiff_{compression}" if compression else None)
    expected = decode_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # Pillow's own open warns at 6 pixels
    assert np.array_equal(decode_image(data), expected)
    if kind not in ("JPEG", "WEBP", "AVIF"):
        assert np.array_equal(expected, np.array(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "AVIF", "TIFF"])
def test_pillows_limit_does_not_refuse(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = encode(corners(), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert decode_image(data).shape == (3, 2, 3)


def test_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 6)
    assert decode_image(corners()).shape == (3, 2, 3)
    assert "declares 7 x 1 pixels: expected at most 6" in message_of(Image.new("L", (7, 1)))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_pil_image_without_pixels(size: tuple[int, int]) -> None:
    assert f"no pixels: its size is {size[0]} x {size[1]}" in message_of(Image.new("RGB", size))


# --- arrays ---

RAMP = np.arange(0, 240, dtype=np.uint8).reshape(8, 10, 3)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(RAMP, id="uint8"),
        pytest.param(np.asfortranarray(RAMP), id="fortran"),
        pytest.param(RAMP.astype(np.uint16) * 257, id="uint16"),
        pytest.param((RAMP.astype(np.uint16) * 257).astype(">u2"), id="big-endian"),
        pytest.param(RAMP.astype(np.float16) / 255, id="float16"),
        pytest.param(RAMP.astype(np.float32) / 255, id="float32"),
        pytest.param(RAMP.astype(np.float64) / 255, id="float64"),
        pytest.param(np.dstack([RAMP, np.full((8, 10), 255, np.uint8)]), id="RGBA"),
    ],
)
def test_arrays(array: np.ndarray) -> None:
    pixels = decode_image(array)
    assert np.array_equal(pixels, RAMP)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert not np.shares_memory(pixels, array)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    values = np.arange(20, dtype=np.uint8).reshape(shape)
    pixels = decode_image(values)
    assert pixels.shape == (4, 5, 3)
    assert np.array_equal(pixels, np.repeat(values.reshape(4, 5, 1), 3, axis=2))


def test_bool_array() -> None:
    assert decode_image(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]


def test_read_only_and_strided_arrays() -> None:
    array = RAMP[::-1, ::2]
    array.setflags(write=False)
    pixels = decode_image(array)
    assert np.array_equal(pixels, array)
    assert pixels.flags.writeable


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_array_alpha_is_laid_on_white(dtype: type) -> None:
    top = 255 if dtype is np.uint8 else 1
    array = np.array([[[0, 0, 0, 0], [top, 0, 0, top]]], dtype=dtype)
    assert decode_image(array).tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3,), "pass one image at a time"),
        ((2, 8, 8, 3), "pass one image at a time"),
        ((8, 8, 2), "pass one image at a time"),
        ((3, 8, 8), "transpose(1, 2, 0) puts channels last"),
    ],
)
def test_array_of_wrong_shape(shape: tuple[int, ...], hint: str) -> None:
    message = message_of(np.zeros(shape, np.uint8))
    assert f"The array has shape {shape}: expected (H, W), (H, W, 1), (H, W, 3) or" in message
    assert hint in message


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32, np.complex64, object, "U3"])
def test_array_of_wrong_dtype(dtype: Any) -> None:
    message = message_of(np.zeros((2, 2, 3)).astype(dtype))
    assert f"The array has dtype {np.dtype(dtype)}: expected uint8, uint16, bool, or fl" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_array_not_finite(value: float) -> None:
    array = np.zeros((2, 2, 3), np.float32)
    array[1, 1, 1] = value
    assert "The array holds NaN or infinite values: expected finite numbers." in message_of(array)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-0.5, 1), (-1, 0)])
def test_float_array_out_of_range(low: float, high: float) -> None:
    message = message_of(np.array([[low, high]], dtype=np.float32))
    assert f"The array holds floats from {low:g} to {high:g}: floats are expected in [0," in message


@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (0, 0, 3)])
def test_array_without_pixels(shape: tuple[int, ...]) -> None:
    assert f"The array has no pixels: its shape is {shape}." in message_of(np.zeros(shape))


@pytest.mark.parametrize("source", [None, 3, [1, 2], {"path": "x"}])
def test_not_an_image_at_all(source: object) -> None:
    message = message_of(source)
    assert f"An object of type {type(source).__name__} is not an image: expected a path" in message


# --- tensors ---


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RAMP.transpose(2, 0, 1).copy())
    if dtype != "uint8":
        tensor = (tensor.double() / 255).to(getattr(torch, dtype)).requires_grad_()
    pixels = decode_image(tensor)
    assert np.array_equal(pixels, RAMP)
    assert pixels.flags.c_contiguous


def test_bfloat16_and_bool_tensors() -> None:
    torch = pytest.importorskip("torch")
    black_and_white = torch.tensor([[0, 1]])
    for dtype in (torch.bfloat16, torch.bool):
        assert decode_image(black_and_white.to(dtype))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5)])
def test_grey_tensors(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    values = np.arange(20, dtype=np.uint8)
    pixels = decode_image(torch.from_numpy(values).reshape(shape))
    assert np.array_equal(pixels, np.repeat(values.reshape(4, 5, 1), 3, axis=2))


def test_tensor_shares_no_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(3, 2, 2, dtype=torch.uint8)
    decode_image(tensor)[:] = 9
    assert tensor.max() == 0


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((8, 8, 3), "permute(2, 0, 1) puts channels first"),
        ((8, 8, 4), "permute(2, 0, 1) puts channels first"),
        ((5, 8, 8), "pass one image at a time"),
        ((1, 3, 8, 8), "pass one image at a time"),
    ],
)
def test_tensor_of_wrong_shape(shape: tuple[int, ...], hint: str) -> None:
    torch = pytest.importorskip("torch")
    message = message_of(torch.zeros(shape))
    assert f"The tensor has shape {shape}: expected (3, H, W), (1, H, W) or (H, W)" in message
    assert hint in message


def test_tensor_values() -> None:
    torch = pytest.importorskip("torch")
    assert "The tensor has dtype int64" in message_of(torch.zeros(3, 2, 2, dtype=torch.int64))
    assert "The tensor holds floats from 0 to 2" in message_of(torch.tensor([[0.0, 2.0]]))
    assert "The tensor holds NaN" in message_of(torch.full((2, 2), float("nan")))
    assert "The tensor has no pixels" in message_of(torch.zeros(3, 0, 2))


def test_tensor_without_data() -> None:
    torch = pytest.importorskip("torch")
    assert "expected a dense tensor" in message_of(torch.zeros(3, 2, 2, device="meta"))
