"""What was named on the command line becomes the list of image paths to predict on.

A source is a file, a folder, a glob pattern, `@list.txt` (a path a line) or `-` (paths on stdin).
Order is natural ("2.jpg" before "10.jpg", upper and lower case alike) and the same on every
machine: it depends on neither the locale nor the file system. Names keep their exact bytes.

It opens no image: a file that is broken, or that a list names and nobody has, becomes an error
record later. Only what was named on the command line itself has to exist.
"""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TextIO

from natsort import natsort_keygen, ns

from tpt.errors import SourceError, suggest
from tpt.text import is_url

_EXTENSIONS = """
apng avif avifs bmp dds gif heic heif hif ico j2k jfif jp2 jpe jpeg jpf jpg jpx jxl mpo pbm pcx pfm
pgm png pnm ppm psd qoi sgi tga tif tiff webp
"""
IMAGE_EXTENSIONS = frozenset("." + extension for extension in _EXTENSIONS.split())
"""What counts as an image inside a folder. HEIC and JPEG XL need a Pillow plugin; they are listed
all the same, because an error record says more than a photo left out in silence."""

_SUGGEST_AMONG = 10_000  # names of a folder that are compared with a misspelt one

_split_naturally = natsort_keygen(alg=ns.PATH | ns.IGNORECASE)


def expand_sources(
    sources: Sequence[str], *, recursive: bool = False, stdin: TextIO | None = None
) -> list[str]:
    """List the paths that `sources` stand for, in order.

    Each source is looked at in this order:

    - `-`: paths on stdin, one a line, or NUL-separated if a NUL occurs (`find -print0`). Write
      `./-` for a file of that name.
    - an existing folder: its images by extension, in natural order, hidden ones left out. With
      `recursive` its sub-folders follow, each real folder once, so symlink loops end.
    - an existing file: taken as it is, whatever its extension.
    - `@list.txt`: a path a line in UTF-8, relative to the current directory.
    - a glob pattern, in natural order: files as they are, folders as above. `**` stands for any
      depth of folders: `a/**/*.jpg` finds files, `a/**` the images of all folders.

    Lists name paths, not sources: a folder or a pattern in a list is not expanded. Blank lines
    are skipped; a byte order mark and CRLF are tolerated.

    Args:
        sources: what the user named, at least one.
        recursive: walk into sub-folders.
        stdin: what `-` reads; `sys.stdin` by default.

    Returns:
        Paths as strings, joined to the source as it was given (never made absolute). A path
        reached twice is kept once, at its first place; paths are compared as text after
        `os.path.normpath`, so two links to one file are two paths.

    Raises:
        SourceError: a source that does not exist or yields nothing.
    """
    if not sources:
        raise SourceError(
            "No images were named: expected files, folders, glob patterns, @list.txt or - (stdin). "
            "Name at least one."
        )
    if list(sources).count("-") > 1:
        raise SourceError("The source - (stdin) is named twice: it can be read once. Remove one.")
    paths: dict[str, str] = {}
    for source in sources:
        for path in _expand(source, recursive, stdin):
            paths.setdefault(os.path.normpath(path), path)
    return list(paths.values())


def _expand(source: str, recursive: bool, stdin: TextIO | None) -> list[str]:
    if source == "-":
        return _read_stdin(stdin)
    if os.path.isdir(source):
        return _expand_folder(source, recursive)
    if os.path.exists(source):
        return [source]
    if source.startswith("@"):
        return _read_list(source[1:])
    if is_url(source):
        raise SourceError(
            f"The source {source!r} is a URL: nothing is fetched from the network. Download it "
            "first, and name the file."
        )
    if glob.has_magic(source):
        return _expand_glob(source, recursive)
    raise SourceError(
        f"The source {source!r} does not exist: expected a file, a folder, a glob pattern, "
        f"@list.txt or - (stdin).{suggest_beside(source)}"
    )


def suggest_beside(path: str) -> str:
    """What a misspelt path may have meant, as the end of a message: a name beside it."""
    folder, name = os.path.split(path.rstrip(os.sep))
    try:
        names = sorted(os.listdir(folder or os.curdir))[:_SUGGEST_AMONG]
    except OSError:
        return f' Its folder "{folder}" cannot be listed either. Check the path.'
    # A name with a newline or odd bytes would break the message's one line.
    return suggest(name, filter(str.isprintable, names)) or " Check the spelling."


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Names with "2" before "10", upper and lower case alike."""
    # "A.jpg" and "a.jpg" tie naturally, so the text decides.
    return sorted(names, key=lambda name: (_split_naturally(name), name))


# --- folders ---


def _expand_folder(folder: str, recursive: bool) -> list[str]:
    images = _list_images(folder, recursive)
    if not images:
        raise SourceError(
            f"The folder {folder!r} holds no images: expected files ending in .jpg, .png, .webp or "
            "another image extension. Check the folder, or name the files themselves."
        )
    return images


def _list_images(folder: str, recursive: bool) -> list[str]:
    if recursive:
        return walk_images(folder)
    images, folders = list_folder(folder)
    if not images and any(below for sub in folders for _, below in walk_folders(sub)):
        raise SourceError(
            f"The folder {folder!r} holds no images itself, but its sub-folders do. "
            "Add --recursive to walk into them."
        )
    return images


def walk_images(folder: str) -> list[str]:
    """All images in a folder and below it, in natural order."""
    return [image for _, images in walk_folders(folder) for image in images]


def walk_folders(folder: str, *, natural: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, its images) from the top down, each real folder once, as `list_folder` lists.

    Links to folders are followed, because data sets are often made of links.
    """
    seen: set[str] = set()
    stack = [folder]
    while stack:
        here = stack.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        images, folders = list_folder(here, natural=natural)
        yield here, images
        stack += reversed(folders)


def list_folder(folder: str, *, natural: bool = True) -> tuple[list[str], list[str]]:
    """The images and the sub-folders directly in `folder` ("" is the current directory).

    Paths joined to `folder`, in natural order (else in that of their text), hidden ones left out.

    Raises:
        SourceError: the folder cannot be read.
    """
    here = scan_folder(folder)
    images, folders = (
        [os.path.join(folder, name) for name in (sort_naturally(names) if natural else names)]
        for names in (here.images, here.folders)
    )
    return images, folders


@dataclass(frozen=True)
class Listing:
    """What lies directly in a folder, hidden things left out: names, sorted as text."""

    files: tuple[str, ...]
    folders: tuple[str, ...]

    @cached_property
    def images(self) -> tuple[str, ...]:
        # Broken links and pipes count as images too: each becomes an error record, not a gap.
        return tuple(n for n in self.files if os.path.splitext(n)[1].lower() in IMAGE_EXTENSIONS)


def scan_folder(folder: str) -> Listing:
    """List a folder once ("" is the current directory).

    Names are not in natural order: at 40 µs each, that takes a minute for a million pictures.

    Raises:
        SourceError: the folder cannot be read.
    """
    try:
        with os.scandir(folder or os.curdir) as entries:
            is_folder = {e.name: _is_folder(e) for e in entries if not e.name.startswith(".")}
    except OSError as error:
        raise SourceError(
            f"The folder {folder or os.curdir!r} cannot be read ({error.strerror}). Give this user "
            "the right to read it, or name other folders."
        ) from error
    names = sorted(is_folder)
    files = tuple(name for name in names if not is_folder[name])
    return Listing(files, tuple(name for name in names if is_folder[name]))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


# --- glob patterns ---


def _expand_glob(pattern: str, recursive: bool) -> list[str]:
    matches = sort_naturally(set(_match(pattern)))
    if not matches:
        raise SourceError(
            f"The pattern {pattern!r} matches nothing, and no file has that name. Check the "
            "pattern, and the folder that it is relative to."
        )
    paths: list[str] = []
    for match in matches:
        if not os.path.isdir(match):
            paths.append(match)
        elif "**" in pattern:  # matches sub-folders as well: what is deeper is not lost
            paths += list_folder(match)[0]
        else:
            paths += _list_images(match, recursive)
    if not paths:
        raise SourceError(
            f"The pattern {pattern!r} matches only folders, and they hold no images. Check the "
            "pattern, or name the files themselves."
        )
    return paths


def _match(pattern: str) -> list[str]:
    """`glob.glob` with `**` walked here, because the standard one never ends on link loops."""
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


def _read_list(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"The list file {path!r} cannot be read ({why}): '@' stands before the name of a file "
            f"with a path a line.{suggest_beside(path)}"
        ) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(
            f"The list file {path!r} is UTF-16: expected UTF-8. Save it as UTF-8 and try again."
        )
    paths = _split_paths(_decode(data))
    if not paths:
        raise SourceError(f"The list file {path!r} names no images: expected a path a line.")
    return paths


def _read_stdin(stdin: TextIO | None) -> list[str]:
    stream = stdin or sys.stdin or io.StringIO()  # Python makes a closed sys.stdin None
    # The text layer refuses odd bytes and rewrites line ends; names have to stay as they are.
    buffer = getattr(stream, "buffer", None)
    paths = _split_paths(stream.read() if buffer is None else _decode(buffer.read()))
    if not paths:
        raise SourceError(
            "The source - (stdin) named no images: expected a path a line, or NUL-separated "
            "paths. Check the command before the pipe."
        )
    return paths


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # as Python itself reads names from the disk


def _split_paths(text: str) -> list[str]:
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        lines = text.split("\0")
    else:  # not splitlines(): it also cuts at characters that names may hold
        lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [line for line in lines if line.strip()]
