"""One picture of a source that is no file by itself: its name, and a way to its bytes.

Members of archives, cells of tables, objects of a bucket and frames of films are items.
`tpt.stream` takes them beside paths; a record's `path` is the item's key, by which `--resume`
knows it.
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

    `read` gives what `tpt.images.decode.decode_image` takes. What it raises becomes the picture's
    error record. It is called once, in a decoding thread.
    """

    key: str  # its name in the records; no two items of a run share one
    read: Callable[[], Any]
    nbytes: int = 0  # what it holds until it is read
    time: float | None = None  # seconds from the film's beginning
    frame: int | None = None  # the frame's number, from 0
    begins: bool = False  # a new scene: state of a method that resets with its stream goes


@dataclass(frozen=True)
class Sampling:
    """Which frames of a film are taken: all, where nothing is said.

    Raises:
        MethodError: more than one way is said, or a number out of its range.
    """

    every: float | None = None  # seconds from one to the next
    frames: int | None = None  # every n-th
    keyframes: bool = False

    def __post_init__(self) -> None:
        said = (self.every is not None) + (self.frames is not None) + self.keyframes
        if said > 1:
            raise MethodError(
                "--every, --frames and --keyframes each say which frames are taken. Give one."
            )
        if self.every is not None and not 0 < self.every < 1e6:
            raise MethodError(f"--every must be more than 0 seconds; got {self.every}.")
        if self.frames is not None and self.frames < 1:
            raise MethodError(f"--frames must be at least 1; got {self.frames}.")

    def takes(self, number: int, time: float, due: float, is_key: bool) -> bool:
        """Whether a frame is taken; `due` is what `next_due` said of the one taken last, or 0."""
        if self.every is not None:
            return time >= due - 1e-6
        return is_key if self.keyframes else number % (self.frames or 1) == 0

    def next_due(self, time: float) -> float:
        """From which time on the next frame is taken, after one at `time`: on a grid from 0."""
        every = self.every or 0.0
        return every * (int((time + 1e-6) / every) + 1) if every else 0.0


@dataclass(frozen=True)
class Reading:
    """What a user says about the inside of sources that hold many pictures."""

    column: str | None = None  # of Parquet files; None: the one that looks like pictures
    sampling: Sampling | None = None  # of films; None: a frame a second, all of live ones
    stdin_is_film: bool = False  # `-` is a film, and not a list of paths


@dataclass(frozen=True, slots=True, eq=False)
class NamedBytes:
    """The bytes of an image file as an open file with a name, which messages can say."""

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
