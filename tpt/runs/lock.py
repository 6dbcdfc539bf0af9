"""One writer an output: a lock that is held for a run's life and dies with its process.

The lock is the operating system's (`filelock`), on a hidden file beside the output in which the
holder's process id and host stand. The file goes when the run ends. A killed run leaves it behind
without a lock, and the next run takes it over.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tpt.errors import OutputError

_PATIENCE = 0.5
"""Seconds to wait for a run that is just ending, or has not yet written down who it is."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def hold(path: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only run that writes an output.

    Warns:
        UserWarning: the file system has no locks; the run goes on without one.

    Raises:
        OutputError: another run holds it; or the lock's file cannot be made.
    """
    file = _lock_file(path)
    lock = FileLock(file)
    try:
        file.parent.stat()  # `acquire` would make a folder that is not there
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 5)
    except Timeout as error:
        raise OutputError(
            f'Another run writes to "{os.fspath(path)}": {_read_holder(file)}. Wait until it has '
            "ended, or choose another output."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(
                f'"{os.fspath(path)}" cannot be written: {error.strerror or error}. '
                "Choose another place for the output, or put this right."
            ) from error
        warnings.warn(
            f'The file system of "{os.fspath(path)}" has no locks. See to it that no second run '
            "writes there.",
            UserWarning,
            stacklevel=3,
        )
    try:
        with suppress(OSError):  # a full disk: the lock holds without it
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # While the lock is held: a run that waits for it sees that its file is gone and makes one.
        with suppress(OSError):
            file.unlink()
        lock.release()


def check_free(path: str | os.PathLike[str]) -> None:
    """Refuse an output that another run holds, without taking it.

    Raises:
        OutputError: as `hold`.
    """
    if _lock_file(path).exists():
        with hold(path):
            pass


def _lock_file(path: str | os.PathLike[str]) -> Path:
    place = Path(os.path.realpath(path))  # one lock for all names of a file
    return place.parent / f".tpt-{place.name}.lock"


def _read_holder(file: Path) -> str:
    """'process 12 on host', as the holder wrote it."""
    with suppress(OSError, ValueError):
        text = file.read_text(encoding="utf-8")
        if text.isprintable() and 0 < len(text) < 300:
            return text
    return "an unknown process"
