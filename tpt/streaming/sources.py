"""Expand the sources on the command line into the image paths to predict on.

A source is a file, a folder, a glob pattern, `@list.txt` (one path a line) or `-` (paths on stdin).
The order is natural ("2.jpg" before "10.jpg", upper and lower case alike) and the same on every
machine: it depends on neither the locale nor the file system. Names keep their exact bytes.

No image is decoded here. The sources themselves must exist, but a broken file, or a missing one in
a list, only becomes an error record later. Paths from a pipe are passed on line by line.
"""

from __future__ import annotations

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TextIO

from tpt.errors import SourceError, suggest, why
from tpt.streaming.folders import (
    Search,
    is_system,
    list_images,
    note_left_out,
    scan_folder,
    sort_naturally,
    walk_folders,
)
from tpt.streaming.items import Item
from tpt.streaming.readers.containers import expand_address, expand_braces, open_paths, video_of
from tpt.streaming.readers.remote import is_address
from tpt.streaming.readers.video import Video, is_camera

_SUGGEST_AMONG = 10_000  # names of a folder to compare with a misspelt one


def find_sources(sources: Sequence[str], search: Search, stdin: TextIO | None = None) -> Found:
    """The pictures of `sources`, in order.

    The first of these that fits a source applies:

    - `-`: paths on stdin, one a line, or NUL-separated if a NUL occurs (`find -print0`). Write
      `./-` for a file of that name.
    - an existing folder: its images by extension, in natural order, without hidden and system
      files. With `search.recursive` its sub-folders follow, each real folder once, so symlink loops
      end.
    - an existing file: taken as it is, whatever its extension; a tar archive or a Parquet file
      gives the pictures in it.
    - `@list.txt`: one path a line in UTF-8, relative to the current directory.
    - an address (s3://, https://, ...): a picture, an archive or Parquet file, a folder, a pattern.
    - `shard-{0000..0099}.tar`: the files with these numbers.
    - a glob pattern, in natural order: files as they are, folders as above. `**` matches any
      depth of folders: `a/**/*.jpg` finds files, `a/**` the images of all folders.

    Lists name paths, not sources: a folder or a pattern in a list is not expanded. Blank lines
    are skipped; a byte order mark, CRLF and the back-slashes of Windows are tolerated.

    Args:
        sources: what the user named, at least one.
        search: how folders are searched.
        stdin: what `-` reads; `sys.stdin` by default.

    Returns:
        Items, and paths as strings, joined to the source as given (never made absolute). A repeated
        path is kept once, at its first place; paths are compared as text after `os.path.normpath`,
        so two links to one file are two paths. Paths from a pipe come as they are written there,
        pictures of archives and tables as those are read; all others are found at once.

    Raises:
        SourceError: a source does not exist or gives nothing; for a pipe, only when it ends.
    """
    if not sources:
        raise SourceError(
            "No images were named: expected files, folders, glob patterns, @list.txt or - (stdin). "
            "Name at least one."
        )
    if list(sources).count("-") > 1:
        raise SourceError("The source - (stdin) is named twice: it can be read once. Remove one.")
    return Found([_expand(source, search, stdin) for source in sources], is_live(sources))


@dataclass(frozen=True, eq=False)
class Found:
    """The paths and items of sources, in order, to iterate over once."""

    parts: Sequence[Iterable[str | Item]]
    live: bool = False  # paths come from a pipe or a camera, so a batch does not wait for them

    @property
    def is_counted(self) -> bool:
        """Whether the number of pictures is known before the sources are opened."""
        return all(isinstance(part, list) for part in self.parts)

    @property
    def dropped(self) -> int:
        """How many frames of live films were dropped because they came too fast."""
        return sum(part.dropped for part in self.parts if isinstance(part, Video))

    def __iter__(self) -> Iterator[str | Item]:
        return _drop_repeated(self.parts)


def key_of(item: str | Item) -> str:
    """The name of a picture in its record."""
    return item.key if isinstance(item, Item) else item


def _drop_repeated(found: Sequence[Iterable[str | Item]]) -> Iterator[str | Item]:
    seen: set[str] = set()
    for path in chain.from_iterable(found):
        if isinstance(path, Item):  # their keys are unique, and too many to keep
            yield path
            continue
        place = os.path.normpath(path)
        if place not in seen:
            seen.add(place)
            yield path


def is_live(sources: Sequence[str]) -> bool:
    """Whether pictures come from a pipe or a camera, at their own pace."""
    return any(_is_pipe(source) or is_camera(source) for source in sources)


def _is_pipe(source: str) -> bool:
    if source == "-":
        return True
    path = source.removeprefix("@")
    return path != source and not os.path.exists(source) and _is_special(path)


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _expand(source: str, search: Search, stdin: TextIO | None) -> Iterable[str | Item]:
    if source == "-" and search.reading.stdin_is_film:
        return video_of("-", search.reading, getattr(stdin or sys.stdin, "buffer", stdin), True)
    if source == "-":
        return _read_stdin(stdin)
    if os.path.isdir(source):
        return _expand_folder(source, search)
    if os.path.exists(source):
        return open_paths([source], search.reading)
    if source.startswith("@"):
        return _read_list(source[1:])
    if is_address(source):
        return expand_address(source, search.recursive, search.reading)
    if (named := expand_braces(source)) != [source]:
        return open_paths(list(map(_check_exists, named)), search.reading)
    if glob.has_magic(source):
        return open_paths(_expand_glob(source, search), search.reading)
    _check_exists(source)
    return [source]


def _check_exists(source: str) -> str:
    if os.path.exists(source):
        return source
    raise SourceError(
        f"The source {source!r} does not exist: expected a file, a folder, a glob pattern, "
        f"@list.txt or - (stdin).{suggest_beside(source)}"
    )


def suggest_beside(path: str) -> str:
    """The end of a message about a missing path: a similar name in the same folder."""
    folder, name = os.path.split(path.rstrip(os.sep))
    try:
        names = sorted(os.listdir(folder or os.curdir))[:_SUGGEST_AMONG]
    except OSError:
        return f' Its folder "{folder}" cannot be listed either. Check the path.'
    # Names with a newline or odd bytes would break the message's line.
    return suggest(name, filter(str.isprintable, names)) or " Check the spelling."


def _expand_folder(folder: str, search: Search) -> list[str]:
    before = len(search.left_out)
    images = list_images(folder, search)
    if not images:
        others = search.left_out[before:]
        hint = f" {note_left_out(others)} --all-files looks inside." if others else ""
        raise SourceError(
            f"The folder {folder!r} holds no images: expected files ending in .jpg, .png, .webp or "
            f"another image extension.{hint} Check the folder, or name the files themselves."
        )
    return images


# --- glob patterns ---


def _expand_glob(pattern: str, search: Search) -> list[str]:
    named = set(pattern.split(os.sep))  # system names are kept if the pattern spells them out
    found = [p for p in set(_match(pattern)) if not any(map(is_system, {*p.split(os.sep)} - named))]
    matches = sort_naturally(found)
    if not matches:
        raise SourceError(
            f"The pattern {pattern!r} matches nothing, and no file has that name. Check the "
            "pattern, and the folder that it is relative to."
        )
    paths: list[str] = []
    for match in matches:
        if not os.path.isdir(match):
            paths.append(match)
        elif "**" in pattern:  # the sub-folders are matches of their own
            paths += search.images(match, scan_folder(match))
        else:
            paths += list_images(match, search)
    if not paths:
        raise SourceError(
            f"The pattern {pattern!r} matches only folders, and they hold no images. Check the "
            "pattern, or name the files themselves."
        )
    return paths


def _match(pattern: str) -> list[str]:
    """`glob.glob`, but `**` is walked here, because the standard one never ends on link loops."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return glob.glob(pattern)
    at = parts.index("**")
    head = os.sep.join([*parts[:at], ""])  # "" or "data/" or "/"
    tail = os.sep.join(parts[at + 1 :])
    roots = glob.glob(head) if head else [""]
    folders = [folder for root in roots for folder, _ in walk_folders(root)]
    if not tail:
        return [folder or os.curdir for folder in folders]
    return [path for f in folders for path in _match(os.path.join(glob.escape(f), tail))]


# --- lists ---


def _read_list(path: str) -> Iterable[str]:
    try:
        if _is_special(path):  # @/dev/fd/3, or a named pipe
            return _iter_fifo(path)
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        raise SourceError(
            f"The list file {path!r} cannot be read ({why(error)}): write '@' before the name of a "
            f"file with one path a line.{suggest_beside(path)}"
        ) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(
            f"The list file {path!r} is UTF-16: expected UTF-8. Save it as UTF-8 and try again."
        )
    paths = [find_listed(line) for line in _split_lines([data])]
    if not paths:
        raise SourceError(f"The list file {path!r} names no images: expected a path a line.")
    return paths


def find_listed(line: str, base: str = "") -> str:
    """The path on a line of a list, which may be written as on Windows.

    Args:
        base: the folder that the path is relative to.
    """
    if not set(line) & set('"\\') or os.path.exists(os.path.join(base, line)):
        return line
    quoted = len(line) > 2 and line[0] == line[-1] == '"'  # as Windows copies a path
    path = line[1:-1] if quoted else line
    path = path.replace("\\", os.sep)
    return path if "\\" in line or os.path.exists(os.path.join(base, path)) else line


def _read_stdin(stdin: TextIO | None) -> Iterable[str]:
    stream = stdin or sys.stdin or io.StringIO()  # Python makes a closed sys.stdin None
    # The text layer refuses odd bytes and rewrites line ends, but names must stay as they are.
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        buffer = io.BytesIO(stream.read().encode("utf-8", "surrogateescape"))
    return _iter_pipe(buffer, "The source - (stdin)")


def _iter_fifo(path: str) -> Iterator[str]:
    with open(path, "rb", buffering=0) as file:
        yield from _iter_pipe(file, f"The list {path!r}")


def _iter_pipe(file: Any, name: str) -> Iterator[str]:
    """The paths from a pipe, as they come."""
    found = False
    for line in _split_lines(_read_parts(file)):
        found = True
        yield find_listed(line)
    if not found:
        raise SourceError(
            f"{name} named no images: expected a path a line, or NUL-separated paths. Check the "
            "command before the pipe."
        )


def _read_parts(file: Any) -> Iterator[bytes]:
    """The bytes of a file as they come.

    They are read from the descriptor: a thread that waits inside Python's buffer would keep the
    interpreter from exiting.
    """
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):
        yield file.read()
        return
    while data := os.read(descriptor, 1 << 16):
        yield data


def _split_lines(parts: Iterable[bytes]) -> Iterator[str]:
    """The names in lines, or between NULs if the first part with a line end or a NUL has a NUL."""
    rest, end = b"", b""
    for number, part in enumerate(chain(parts, [b""])):
        rest += part.removeprefix(codecs.BOM_UTF8) if number == 0 else part
        if not end and b"\0" in rest:
            end = b"\0"
        elif not end and (b"\n" in rest or not part):
            end = b"\n"
        lines = rest.split(end) if end else [rest]
        rest = lines.pop() if part else b""
        for line in lines:
            line = line if end == b"\0" else line.removesuffix(b"\r")
            text = line.decode("utf-8", "surrogateescape")  # as Python reads names from the disk
            if text.strip():
                yield text
