"""The pictures of files and addresses; one that holds many is opened when its turn comes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tpt.errors import SourceError, why
from tpt.streaming.items import Item, Reading, Sampling, fail_item
from tpt.streaming.readers.parquet import check_column, is_parquet, iter_parquet
from tpt.streaming.readers.remote import is_address, iter_remote, list_address, read_address
from tpt.streaming.readers.tars import is_tar, iter_tar
from tpt.streaming.readers.video import Video, is_camera, is_video

_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 1_000_000


def is_container(name: str) -> bool:
    """Whether a file or an address holds many pictures, judged by its name."""
    return is_tar(name) or is_parquet(name) or is_video(name)


def open_paths(paths: Sequence[str], reading: Reading) -> Iterable[str | Item]:
    """The pictures of files and addresses, in order.

    Returns:
        The paths themselves as a list if each is one picture; else an iterable that opens one
        after the other.

    Raises:
        SourceError: a local Parquet file lacks the column.
    """
    if not any(is_container(path) or is_address(path) for path in paths):
        return list(paths)
    for path in paths:
        if is_parquet(path) and not is_address(path):
            check_column(path, reading.column)
    return Opened(paths, reading)


@dataclass(frozen=True, eq=False)
class Opened:
    """The pictures of files and addresses, some of which hold many."""

    paths: Sequence[str]
    reading: Reading

    def __iter__(self) -> Iterator[str | Item]:
        return open_each(self.paths, self.reading)


def expand_address(address: str, recursive: bool, reading: Reading) -> Iterable[str | Item]:
    """The pictures at an address: a picture, a tar or Parquet file, a pattern, a folder.

    Raises:
        SourceError: nothing is there, or its package is missing.
    """
    if is_camera(address):
        return video_of(address, reading)
    named = expand_braces(address)
    if len(named) == 1:
        named = list_address(address, recursive, is_container)
    return open_paths(named, reading)


def expand_braces(source: str) -> list[str]:
    """`shard-{0000..0099}.tar` as its hundred names; any other source as itself.

    Raises:
        SourceError: numbers that go backwards, or more than a million names.
    """
    found = _BRACES.search(source)
    if found is None:
        return [source]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise SourceError(
            f"The source {source!r} names no shards: expected {{FIRST..LAST}} with at most "
            f"{_MOST_SHARDS:,} numbers, the smaller one first. Correct the braces."
        )
    width = len(found[1]) if found[1].startswith("0") else 0
    head, tail = source[: found.start()], source[found.end() :]
    names = [f"{head}{number:0{width}}{tail}" for number in range(first, last + 1)]
    return [name for each in names for name in expand_braces(each)]


def open_each(paths: Sequence[str], reading: Reading) -> Iterator[str | Item]:
    """The pictures of files and addresses, one opened after the other."""
    for path in paths:
        if is_camera(path):
            yield from video_of(path, reading)
        elif is_address(path):
            yield from _open_remote(path, reading)
        elif is_video(path):
            yield from video_of(path, reading)
        elif is_parquet(path):
            yield from iter_parquet(path, reading.column)
        elif is_tar(path):
            yield from _open_tar(path)
        else:
            yield path


def video_of(name: str, reading: Reading, file: Any = None, live: bool = False) -> Video:
    """The frames of a film, sampled as `reading` says."""
    live = live or is_camera(name)
    default = Sampling() if live else Sampling(every=1.0)
    return Video(name, reading.sampling or default, file, live)


def _open_remote(address: str, reading: Reading) -> Iterator[str | Item]:
    if is_tar(address):
        yield from iter_remote(address, partial(iter_tar, address))
    elif is_video(address):
        yield from iter_remote(address, lambda file: iter(video_of(address, reading, file)))
    elif is_parquet(address):
        yield from iter_remote(address, partial(iter_parquet, address, reading.column))
    else:
        yield read_address(address)


def _open_tar(path: str) -> Iterator[Item]:
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        yield fail_item(
            path,
            f"{path!r} cannot be read ({why(error)}): expected a tar archive. Check the file.",
        )
        return
    with file:
        if not os.path.isfile(path):
            yield fail_item(path, f"{path!r} is a pipe or a device: expected a tar archive.")
            return
        yield from iter_tar(path, file)
