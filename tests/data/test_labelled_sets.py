"""A picture's source opens as what it is, or the error says which file is at fault."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from tpt.data.labelled_sets import ArrayRow, TarMember, open_source
from tpt.errors import ImageError
from tpt.images.decode import decode_image

RED = np.full((6, 9, 3), (255, 0, 0), np.uint8)


def make_archive(folder: Path) -> TarMember:
    """The second of two pictures in an archive without compression."""
    archive = folder / "test.tar"
    with tarfile.open(archive, "w") as tar:
        for name, pixels in (("0.png", np.zeros_like(RED)), ("1.png", RED)):
            Image.fromarray(pixels).save(folder / name)
            tar.add(folder / name, name)
    with tarfile.open(archive) as tar:
        member = tar.getmember("1.png")
    return TarMember(str(archive), member.offset_data, member.size, "1.png")


def test_a_path_is_left_to_the_decoder() -> None:
    assert open_source("pets/cat.jpg") == "pets/cat.jpg"


def test_a_row_of_an_array_on_the_disk_comes_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "fog.npy", np.stack([np.zeros_like(RED), RED]))
    array = np.load(tmp_path / "fog.npy", mmap_mode="r")
    np.testing.assert_array_equal(decode_image(open_source(ArrayRow(array, 1))), RED)


def test_a_row_that_does_not_lie_in_one_piece_is_put_in_one() -> None:
    channels_first = np.stack([RED, RED]).transpose(0, 3, 1, 2).copy()
    row = open_source(ArrayRow(channels_first.transpose(0, 2, 3, 1), 1))
    assert row.flags.c_contiguous
    np.testing.assert_array_equal(row, RED)


def test_a_member_of_an_archive_comes_as_its_own_bytes(tmp_path: Path) -> None:
    data = open_source(make_archive(tmp_path))
    assert data == (tmp_path / "1.png").read_bytes()
    np.testing.assert_array_equal(decode_image(data), RED)


def test_an_archive_that_was_cut_off_is_told(tmp_path: Path) -> None:
    member = make_archive(tmp_path)
    archive = Path(member.archive)
    archive.write_bytes(archive.read_bytes()[: member.offset + 10])
    assert refusal(ImageError, open_source, member) == (
        f'"1.png" in "{archive}" is cut off: 10 of {member.size} bytes are there. Fetch the '
        "archive again."
    )


def test_an_archive_that_is_gone_is_told(tmp_path: Path) -> None:
    member = make_archive(tmp_path)
    Path(member.archive).unlink()
    assert refusal(ImageError, open_source, member) == (
        f'"1.png" in "{member.archive}" cannot be read (No such file or directory): expected a '
        "tar archive that is still there. Check the file."
    )


def test_a_folder_in_place_of_the_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        open_source(TarMember(str(tmp_path), 512, 9, "1.png"))
