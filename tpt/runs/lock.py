"""One writer per output: a lock that a run holds and that ends with its process.

The lock is the operating system's (`filelock`), on a hidden file beside the output that holds the
process id and host. The file is removed when the run ends. A killed run leaves it unlocked, and the
next run takes it over.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tpt.errors import OutputError, why

_PATIENCE = 0.5
"""Seconds to wait for a run that is just ending, or has not yet written its process id."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


def cannot_write(path: str, error: OSError, can_resume: bool = False) -> OutputError:
    """The error for records that the disk refused."""
    where = "standard output" if path == "-" else f'"{path}"'
    return OutputError(
        f"Records could not be written to {where}: {why(error)}. "
        + (
            "What was written before is whole; make room, then go on with --resume."
            if can_resume
            else "Choose another place with --output, or put this right."
        )
    )


@contextmanager
def writing(
    path: str, refuse: Callable[[str, OSError], OutputError] = cannot_write
) -> Iterator[None]:
    """Raise the error that `refuse` makes for an `OSError` in the block."""
    try:
        yield
    except OSError as error:
        raise refuse(path, error) from error


@contextmanager
def hold(path: str, refuse: Callable[[str, OSError], OutputError] = cannot_write) -> Iterator[None]:
    """Be the only run that writes an output.

    Args:
        path: a file in a folder that exists.
        refuse: makes the error of a disk that refuses.

    Warns:
        UserWarning: the file system has no locks; the run continues without one.

    Raises:
        OutputError: another run holds it, or the lock file cannot be written.
    """
    file = _lock_file(path)
    # A soft lock would outlive a killed run: our text in its file would hide that its holder died.
    lock = FileLock(file, fallback_to_soft=False)
    try:
        os.stat(f"{file.parent}{os.sep}")  # `acquire` would make a missing folder
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 5)
    except Timeout as error:
        raise OutputError(
            f'Another run writes to "{path}": {_read_holder(file)}. Wait until it has ended, or '
            "choose another output."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise refuse(path, error) from error
        warnings.warn(
            f'The file system of "{path}" has no locks. See to it that no second run writes there.',
            UserWarning,
            stacklevel=3,
        )
    try:
        with suppress(OSError):  # a full disk: the lock holds without it
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # Before the release: a waiting run then sees that the file is gone and makes a new one.
        with suppress(OSError):
            file.unlink()
        lock.release()


def check_free(path: str) -> None:
    """Refuse an output that another run holds.

    Raises:
        OutputError: as `hold`.
    """
    if _lock_file(path).exists():
        with hold(path):
            pass


def _lock_file(path: str) -> Path:
    place = Path(os.path.realpath(path))  # one lock for all names of a file
    return place.parent / f".tpt-{place.name}.lock"


def _read_holder(file: Path) -> str:
    """'process 12 on host', as the holder wrote it."""
    with suppress(OSError, ValueError):
        text = file.read_text(encoding="utf-8")
        if text.isprintable() and 0 < len(text) < 300:
            return text
    return "an unknown process"
