"""Write files whole or not at all: a full disk leaves the old file unchanged."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tpt.errors import OutputError, why


def write_whole(target: Path, content: bytes, what: str) -> None:
    """Write a file, whole or not at all.

    Args:
        what: names the content in the message, for example "prompt".

    Raises:
        OutputError: it cannot be written; an earlier file is unchanged.
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
    """Write beside the target; rename over it when the block ends without an error.

    Args:
        beside: the temporary file, in the same folder; default: a name of its own.
        sync: wait until the disk has the content, so that even a power cut leaves a whole file.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    with replacing(target, beside) as temporary:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        yield


@contextmanager
def open_whole(target: str) -> Iterator[BinaryIO]:
    """A file to write in parts; it gets its name when the block ends without an error.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    with replacing(Path(target)) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def replacing(target: Path, temporary: Path | None = None) -> Iterator[Path]:
    """The path of a temporary file beside the target; it replaces the target at the block's end.

    After an error in the block it is removed, and the target is unchanged.
    """
    temporary = temporary or target.absolute().parent / f".tpt-{uuid.uuid4().hex}"
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
