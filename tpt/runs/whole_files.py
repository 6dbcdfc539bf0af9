"""Files that are there whole or not at all: a full disk leaves the old one as it was."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tpt.errors import OutputError, why


def write_whole(target: Path, content: bytes, what: str) -> None:
    """Write beside the target, then rename over it.

    Args:
        what: names the content in the message, for example "prompt".

    Raises:
        OutputError: the disk refused; a file that was there before is unchanged.
    """
    try:
        with staged(target, content):
            pass
    except OSError as error:
        raise OutputError(
            f'The {what} could not be saved to "{target}": {why(error)}. A file that was '
            "there before is unchanged; choose another place or make room."
        ) from error


@contextmanager
def staged(
    target: Path, content: bytes, *, beside: Path | None = None, sync: bool = True
) -> Iterator[None]:
    """Write beside the target, and rename over it when the block has ended without an error.

    Args:
        beside: the file to write first, in the same folder; by default one of its own.
        sync: wait until the disk has the content, so that even a power cut leaves a whole file.

    Raises:
        OSError: the disk refused; a file that was there before is unchanged.
    """
    temporary = beside or target.parent / f".tpt-{uuid.uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        yield
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def open_whole(target: str) -> Iterator[BinaryIO]:
    """A file to write in parts, which takes its name when the block has ended without an error.

    Raises:
        OSError: the disk refused; a file that was there before is unchanged.
    """
    folder = os.path.dirname(os.path.abspath(target))
    temporary = Path(folder, f".tpt-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
