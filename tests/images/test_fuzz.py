"""Broken files give a picture or an `ImageError`, whatever is broken. 20,000: benchmarks."""

from __future__ import annotations

import warnings

import pytest
from _odd_pictures import make_pictures
from fuzz_decoding import judge, make_input, spoil

from tpt.images.decode import load_picture

FILES = make_pictures()


@pytest.mark.parametrize("part", range(4))
@pytest.mark.filterwarnings("ignore")
def test_broken_files_are_pictures_or_errors(part: int) -> None:
    for number in range(part, 400, 4):
        name, data = make_input(number, 1, FILES)
        try:
            judge(data)
        except Exception as error:
            pytest.fail(f"input {number} of {name}: {type(error).__name__}: {error}")


def test_inputs_are_the_same_every_time() -> None:
    assert make_input(7, 1, FILES) == make_input(7, 1, FILES)
    assert make_input(7, 1, FILES) != make_input(7, 2, FILES)
    assert spoil.__doc__


def test_a_sound_file_is_judged_as_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judge(FILES["colour/rgb.tif"]) == "decoded"
        assert judge(FILES["colour/two-pages.tif"]) == "warned"
        assert judge(b"no picture") == "refused"
    assert load_picture(FILES["colour/rgb.tif"]).warning is None
