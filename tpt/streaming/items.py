"""A picture that is not a file of its own: its name, and how to read it.

Members of archives, cells of tables, objects of a bucket and frames of films are items.
`tpt.stream` takes them beside paths. The item's key is the record's `path`, and `--resume`
recognises it by that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from tpt.errors import ImageError, MethodError


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A picture by its name.

    `read` returns what `tpt.images.decode.decode_image` takes, and an exception becomes an error
    record. It is called once, in a decoding thread.
    """

    key: str  # its name in the records; no two items of a run share one
    read: Callable[[], Any]
    nbytes: int = 0  # bytes that it holds in memory until it is read
    time: float | None = None  # seconds from the film's beginning
    frame: int | None = None  # the frame's number, from 0
    begins: bool = False  # a new shot begins here: methods with reset="stream" reset


@dataclass(frozen=True)
class Sampling:
    """Which frames of a film are taken; by default all.

    Raises:
        MethodError: more than one of the three is set, or a number is out of its range.
    """

    every: float | None = None  # seconds from one to the next
    frames: int | None = None  # every n-th
    keyframes: bool = False

    def __post_init__(self) -> None:
        if (self.every is not None) + (self.frames is not None) + self.keyframes > 1:
            raise MethodError(
                "--every, --frames and --keyframes each say which frames are taken. Give one."
            )
        if self.every is not None and not 0 < self.every < 1e6:
            raise MethodError(f"--every must be more than 0 seconds; got {self.every}.")
        if self.frames is not None and self.frames < 1:
            raise MethodError(f"--frames must be at least 1; got {self.frames}.")

    def takes(self, number: int, time: float, due: float, is_key: bool) -> bool:
        """Whether a frame is taken; `due` is `next_due` of the frame taken last, or 0."""
        if self.every is not None:
            return time >= due - 1e-6
        return is_key if self.keyframes else number % (self.frames or 1) == 0

    def next_due(self, time: float) -> float:
        """When the next frame is due after one taken at `time`: the next multiple of `every`."""
        if self.every is None:
            return 0.0
        return self.every * (int((time + 1e-6) / self.every) + 1)


@dataclass(frozen=True)
class Reading:
    """How to read sources that hold many pictures."""

    column: str | None = None  # of Parquet files; None: the one that looks like pictures
    sampling: Sampling | None = None  # of films; None: a frame a second, all of live ones
    stdin_is_film: bool = False  # `-` is a film, not a list of paths


@dataclass(frozen=True, slots=True, eq=False)
class NamedBytes:
    """The bytes of an image file as an open file with a name for messages."""

    name: str
    data: bytes

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self.data


def hold_bytes(key: str, data: bytes) -> Item:
    """An item whose bytes are in memory."""
    return Item(key, partial(NamedBytes, key, data), len(data))


def fail_item(key: str, message: str) -> Item:
    """An item that cannot be read, which becomes an error record."""
    return Item(key, partial(_fail, message))


def _fail(message: str) -> NoReturn:
    raise ImageError(message)
