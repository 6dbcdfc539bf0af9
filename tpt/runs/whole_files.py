"""Files that are there whole or not at all: a full disk leaves the old one as it was."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from tpt.errors import OutputError


def write_whole(target: Path, content: bytes, what: str) -> None:
    """Write beside the target, then rename over it.

    Args:
        target: the file.
        content: all that it is to hold.
        what: names the content in the message, for example "prompt".

    Raises:
        OutputError: the disk refused; a file that was there before is unchanged.
    """
    temporary = target.parent / f".tpt-{uuid.uuid4().hex}"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f'The {what} could not be saved to "{target}": {error.strerror or error}. A file that '
            "was there before is unchanged; choose another place or make room."
        ) from error
