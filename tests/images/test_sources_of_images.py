"""One image in every form it may come in: bytes, open files, arrays, tensors, from many threads."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _odd_pictures import save
from PIL import Image
from refusals import refusal

import tpt
from tpt.errors import ImageError
from tpt.images.decode import decode_image, is_one_image, load_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def encode(pixels: np.ndarray[Any, Any] = PIXELS, kind: str = "PNG") -> bytes:
    return save(pixels, kind)


def message_of(source: object) -> str:
    return refusal(ImageError, decode_image, source)


class Upload:
    """What web frameworks hand over: a file's methods, and no file's class."""

    def __init__(self, data: bytes, seekable: bool = True) -> None:
        self.inner, self.seekable = io.BytesIO(data), lambda: seekable
        self.read, self.seek, self.tell = self.inner.read, self.inner.seek, self.inner.tell


# --- open files ---


@pytest.mark.parametrize("stood", [0, 7, None])
def test_open_files_are_read_from_their_beginning(tmp_path: Path, stood: int | None) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode())
    with open(path, "rb") as file:
        for source in (file, io.BytesIO(encode()), Upload(encode())):
            source.seek(stood or 0, os.SEEK_END if stood is None else os.SEEK_SET)
            before = source.tell()
            picture = load_picture(source)
            assert np.array_equal(picture.pixels, PIXELS)
            assert picture.digest == load_picture(path).digest
            assert source.tell() == before


def test_a_file_that_cannot_be_wound_back_is_read_once() -> None:
    assert np.array_equal(decode_image(Upload(encode(), seekable=False)), PIXELS)


def test_a_file_opened_as_text_says_how_to_open_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("text")
    with open(path) as file:
        message = message_of(file)
    assert message == f"{str(path)!r} gives str where bytes were expected. Open it with mode 'rb'."


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode())
    with open(path, "rb") as file:
        pass
    assert "a.png' cannot be read (I/O operation on closed file)" in message_of(file)


def test_bad_bytes_in_an_open_file_are_named() -> None:
    assert message_of(io.BytesIO(b"")).startswith("The image given as bytes is empty (0 bytes)")


# --- addresses ---


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.jpg",
        "HTTP://example.org/a.jpg?x=*",
        "s3://bucket/key.png",
        "file:///a/b.png",
        "data:image/png;base64," + "A" * 9000,
        Path("https://example.org/a.jpg"),
        "list/https://example.org/a.jpg",
    ],
)
def test_an_address_is_refused_as_one(url: str | Path) -> None:
    message = message_of(url)
    assert "is a URL: expected an image file. Nothing is fetched from the network" in message
    assert len(message) < 400


@pytest.mark.parametrize("path", ["c:/a.jpg", "a:b.jpg", "no/such.jpg"])
def test_a_path_is_no_address(path: str) -> None:
    assert "does not exist" in message_of(path)


def test_a_file_with_the_name_of_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("https:/host").mkdir(parents=True)
    Path("https://host/a.png").write_bytes(encode())
    assert np.array_equal(decode_image("https://host/a.png"), PIXELS)


# --- arrays and tensors ---


@pytest.mark.parametrize("value", [-1e-6, 1 + 1e-6, -0.0019, 1.0019])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_a_rounding_error_outside_are_clamped(value: float, dtype: type) -> None:
    array = np.array([[value, 0.5]], dtype)
    assert decode_image(array)[0, 0, 0] == (0 if value < 0 else 255)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_floats_farther_outside_are_refused(value: float) -> None:
    assert "floats are expected in [0, 1]" in message_of(np.array([[value, 0.5]]))


@pytest.mark.parametrize("high", [1, 200, 255])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_bytes_in_16_bits_are_refused_with_both_readings(high: int, order: str) -> None:
    array = np.full((2, 2, 3), high, order)
    message = message_of(array)
    assert f"The array has dtype uint16, but no value above {high}: " in message
    assert "Pass array.astype('uint8') for the first, array / 65535 for the second." in message
    assert decode_image(array.astype("uint8")).max() == high
    assert decode_image(array / 65535).max() == round(high / 257)


def test_a_black_array_of_16_bits_is_black() -> None:
    assert decode_image(np.zeros((2, 2), np.uint16)).max() == 0


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_a_tensor_of_four_channels_is_read_as_an_array_is(alpha: int) -> None:
    torch = pytest.importorskip("torch")
    four = np.dstack([PIXELS, np.full((30, 40), alpha, np.uint8)])
    tensor = torch.from_numpy(four.transpose(2, 0, 1).copy())
    expected = load_picture(four)
    for source in (tensor, tensor.float() / 255):
        picture = load_picture(source)
        assert np.array_equal(picture.pixels, expected.pixels)
        assert (picture.digest, picture.warning) == (expected.digest, expected.warning)


# --- many at once ---


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP"])
def test_one_lazy_pil_image_in_many_threads(kind: str) -> None:
    data = encode(np.tile(PIXELS, (12, 12, 1)), kind)
    expected = decode_image(data)
    for _ in range(5):
        image = Image.open(io.BytesIO(data))
        with ThreadPoolExecutor(8) as pool:
            for pixels in pool.map(decode_image, [image] * 8):
                assert np.array_equal(pixels, expected)


def test_one_open_file_in_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(np.tile(PIXELS, (12, 12, 1))))
    expected = decode_image(path)
    with open(path, "rb") as file, ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(decode_image, [file] * 40):
            assert np.array_equal(pixels, expected)


def test_a_stream_of_every_form_is_one_picture(tmp_path: Path, tiny: tpt.Clip) -> None:
    data = encode()
    path = tmp_path / "a.png"
    path.write_bytes(data)
    method = tpt.ZeroShot(tpt.PromptEngine(tiny, ["cat", "dog"]))
    lazy = Image.open(io.BytesIO(data))
    with open(path, "rb") as file:
        sources = [path, data, bytearray(data), io.BytesIO(data), file, PIXELS, lazy, lazy]
        records = list(tpt.stream(sources, method, tpt.Views(tiny, n=1), num_workers=4))
    assert [record.error for record in records] == [None] * len(sources)
    assert len({record.predictions for record in records}) == 1


@pytest.mark.parametrize(
    "one",
    [
        "a.png",
        b"bytes",
        bytearray(b"bytes"),
        io.BytesIO(b"bytes"),
        Path("a.png"),
        PIXELS,
        PIXELS[:, :, 0],
        PIXELS.transpose(2, 0, 1),
        Image.fromarray(PIXELS),
    ],
)
def test_one_image_in_place_of_many_is_refused(one: Any, tiny: tpt.Clip) -> None:
    assert is_one_image(one)
    method = tpt.ZeroShot(tpt.PromptEngine(tiny, ["cat", "dog"]))
    with pytest.raises(tpt.MethodError, match="single"):
        tpt.stream(one, method)
    with pytest.raises(tpt.MethodError, match="single"):
        tpt.Views(tiny, n=2)(one)


@pytest.mark.parametrize(
    "many", [[], iter("ab"), np.array(["a", "b"]), PIXELS[None], PIXELS.repeat(2, 2)]
)
def test_many_images_are_many(many: Any) -> None:
    assert not is_one_image(many)


def test_a_warning_is_in_the_record(tiny: tpt.Clip) -> None:
    method = tpt.ZeroShot(tpt.PromptEngine(tiny, ["cat", "dog"]))
    clear = np.dstack([PIXELS, np.zeros((30, 40), np.uint8)])
    first, second = tpt.stream([clear, PIXELS], method, tpt.Views(tiny, n=1))
    assert first.warning is not None
    assert "transparent everywhere" in first.to_dict()["warning"]
    assert second.warning is None
    assert first.predictions == second.predictions
