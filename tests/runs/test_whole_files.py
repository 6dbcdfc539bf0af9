"""A file is whole or as it was before, whatever the disk does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tpt.errors import OutputError
from tpt.runs.whole_files import staged, write_whole

FILE = Path("file")


def refuse(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_and_written_over_and_nothing_else_is_left() -> None:
    for content in (b"one", b"two"):
        write_whole(FILE, content, "prompt")
        assert FILE.read_bytes() == content
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    FILE.write_bytes(b"before")
    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OutputError) as caught:
        write_whole(FILE, b"after", "prompt")
    assert str(caught.value) == (
        'The prompt could not be saved to "file": No space left on device. A file that was there '
        "before is unchanged; choose another place or make room."
    )
    assert FILE.read_bytes() == b"before"
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("place", ["missing/file", "file/file"])
def test_a_place_that_is_no_folder_is_a_sentence(place: str) -> None:
    FILE.touch()
    with pytest.raises(OutputError, match=f'could not be saved to "{place}"'):
        write_whole(Path(place), b"", "prompt")


def test_the_new_content_comes_when_the_block_has_ended() -> None:
    FILE.write_bytes(b"before")
    with staged(FILE, b"after", sync=False):
        assert FILE.read_bytes() == b"before"
        assert len(os.listdir()) == 2
    assert FILE.read_bytes() == b"after"


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing(kind: type[BaseException]) -> None:
    FILE.write_bytes(b"before")
    with pytest.raises(kind), staged(FILE, b"after"):
        raise kind
    assert FILE.read_bytes() == b"before"
    assert os.listdir() == ["file"]


def test_what_a_killed_writer_left_is_used_up() -> None:
    Path("part").write_bytes(b"half of a longer file")
    with staged(FILE, b"after", beside=Path("part")):
        assert Path("part").read_bytes() == b"after"
    assert os.listdir() == ["file"]
