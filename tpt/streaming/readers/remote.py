"""Pictures, tars and Parquet files at an address: s3://, gs://, hf://, https:// and others.

It uses fsspec, whose file systems the extra `remote` installs (S3, Google Cloud Storage, HTTP;
`hf://` comes with huggingface_hub). Those libraries find the credentials and endpoints in their own
ways. Nothing is copied to the disk: pictures are read whole, archives and tables bit by bit. Only
addresses on the command line are opened. An address in a list becomes an error record, because a
list may come from a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

from tpt.errors import ImageError, SourceError, describe_error
from tpt.streaming.folders import IMAGE_EXTENSIONS, is_hidden, sort_naturally
from tpt.streaming.items import Item, NamedBytes
from tpt.streaming.readers.extras import import_extra

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)(::|://)", re.IGNORECASE)  # one letter: a Windows drive
_LARGEST = 2**31  # bytes of a picture


def is_address(name: str) -> bool:
    """Whether a source is an address, not a path."""
    return _SCHEME.match(name) is not None


def open_address(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        SourceError: a local file, an unknown kind of address, or a package that is not installed.
    """
    scheme = _SCHEME.match(address)
    if scheme is not None and scheme[1].lower() in ("file", "local", "data"):
        raise SourceError(f"{address!r} is not a remote address. Name the file by its path.")
    core = import_extra("fsspec.core", "remote", f"The address {address!r}")
    try:
        system, path = core.url_to_fs(address)
    except ImportError as error:  # fsspec's message names the package
        raise SourceError(
            f"The address {address!r} needs a package that is not installed ({error}). Install "
            "the extra: pip install 'tpt-runtime[remote]'."
        ) from error
    except Exception as error:
        raise SourceError(
            f"The address {address!r} cannot be opened ({describe_error(error)}). Check it."
        ) from error
    return system, path


def list_address(address: str, recursive: bool, is_wanted: Callable[[str], bool]) -> list[str]:
    """The pictures at an address: itself, a pattern's matches, or a folder's pictures.

    Args:
        is_wanted: whether a file of a folder counts, besides images.

    Raises:
        SourceError: nothing is there, or the address cannot be listed.
    """
    system, path = open_address(address)
    try:
        if set("*?[") & set(path) and not system.exists(path):
            found = system.glob(path)
        elif system.isdir(path):
            found = system.find(path) if recursive else system.ls(path, detail=False)
            found = [each for each in found if _is_picture(each) or is_wanted(each)]
        else:
            return [address]  # if nothing is there, an error record says so
    except Exception as error:
        raise SourceError(
            f"The address {address!r} cannot be listed ({describe_error(error)}). Check it and "
            "your right to read it."
        ) from error
    if not found:
        raise SourceError(
            f"The address {address!r} holds no pictures. Check it, or add --recursive."
        )
    return [system.unstrip_protocol(each) for each in sort_naturally(found)]


def read_address(address: str) -> Item:
    """The picture at an address; a decoding thread reads it."""
    return Item(address, partial(_read, address))


def open_file(address: str) -> IO[bytes]:
    """A file at an address, open for reading.

    Raises:
        SourceError: as `open_address`.
        Exception: the file cannot be read; each library has its own errors.
    """
    system, path = open_address(address)
    file: IO[bytes] = system.open(path, "rb")
    return file


def iter_remote(address: str, read: Callable[[IO[bytes]], Iterator[Any]]) -> Iterator[Any]:
    """What `read` yields for an archive or table at an address; a failure becomes a record."""
    try:
        file = open_file(address)
    except Exception as error:
        yield Item(address, partial(_refuse, address, error))
        return
    with file:
        yield from read(file)


def _is_picture(path: str) -> bool:
    name = path.rstrip("/").rpartition("/")[2]
    return not is_hidden(name) and f".{name.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS


def _read(address: str) -> NamedBytes:
    try:
        with open_file(address) as file:
            data = file.read(_LARGEST)
    except Exception as error:
        _refuse(address, error)
    return NamedBytes(address, data)


def _refuse(address: str, error: Exception) -> Any:
    if isinstance(error, SourceError):
        raise ImageError(str(error)) from error
    raise ImageError(
        f"{address!r} cannot be read ({describe_error(error)}). Check the address and your right "
        "to read it."
    ) from error
