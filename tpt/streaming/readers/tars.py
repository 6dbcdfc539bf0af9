"""The pictures of a tar archive, read in place from beginning to end.

    shard-0001.tar/000017.jpg     the record of the member 000017.jpg

Any tar works, for example webdataset's shards. Members without an image's extension are skipped.
Archives compressed with gzip, bzip2 or xz are decompressed as they are read.

An archive that is cut off or damaged gives its whole pictures, then one error record for the rest.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from tpt.errors import describe_error
from tpt.streaming.folders import IMAGE_EXTENSIONS
from tpt.streaming.items import Item, fail_item, hold_bytes

EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
BLOCK = 512  # bytes; everything in a tar starts at a multiple of it
_MOST = 2**30  # bytes of a member or of a header


def is_tar(name: str) -> bool:
    """Whether a file is a tar, judged by its name."""
    return name.lower().endswith(EXTENSIONS)


def iter_tar(archive: str, file: IO[bytes]) -> Iterator[Item]:
    """The pictures of an open archive as items, in order; after damage the last one is an error.

    Args:
        archive: its name in the records.
        file: opened for reading; the caller closes it.
    """
    found = 0
    try:
        watched = _Watched(_decompress(file))
        with tarfile.open(fileobj=watched, mode="r:") as members:  # type: ignore[call-overload]
            for key, member in _list_pictures(archive, members):
                if member.size > _MOST:
                    yield fail_item(
                        key, f"{key!r} has {member.size:,} bytes: that is not a picture."
                    )
                    continue
                part = members.extractfile(member)
                data = part.read() if part else b""
                if len(data) < member.size:
                    raise EOFError(f"{os.path.basename(key)} is not whole")
                found += 1
                yield hold_bytes(key, data)
        # tarfile takes a cut-off or overwritten header for the archive's end and says nothing.
        end = judge_end(watched.last)
    except Exception as error:  # tarfile and the decompressors raise many kinds on broken data
        end = f"is cut off or damaged ({describe_error(error)})"
    if end:
        whole = f"{found:,} whole picture{'s' * (found != 1)}"
        yield fail_item(archive, f"{archive!r} {end} after {whole}. Fetch it again.")
    elif not found:
        yield fail_item(
            archive,
            f"{archive!r} holds no pictures: expected members such as 000017.jpg. Check it.",
        )


def _list_pictures(archive: str, members: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    seen: set[str] = set()
    while (member := members.next()) is not None:
        members.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
        if member.size < 0:
            raise ValueError("a member has a negative size")
        name = member.name.removeprefix("./")
        base = os.path.basename(name)
        if not member.isreg() or member.issparse() or base.startswith("."):
            continue
        if os.path.splitext(base)[1].lower() not in IMAGE_EXTENSIONS:
            continue
        key = f"{archive}/{name}"
        number = 1
        while key in seen:  # a tar may hold a name twice
            number += 1
            key = f"{archive}/{name}#{number}"
        seen.add(key)
        yield key, member


def _decompress(file: IO[bytes]) -> Any:
    start = file.read(6)
    file.seek(0)
    for signature, opener in _OPENERS.items():
        if start.startswith(signature):
            return opener(file, "rb")
    return file


def judge_end(last: bytes) -> str:
    """What is wrong with the block at which reading ended, "" for a tar's end mark of zeros."""
    if len(last) < BLOCK:
        return "is cut off" if last else "has no end mark, so it may be cut off,"
    return "is damaged" if any(last) else ""


class _Watched:
    """An open file that remembers the last block read, and refuses to read huge ones."""

    def __init__(self, file: Any) -> None:
        self._file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > _MOST:
            raise ValueError(f"a header of {size:,} bytes")
        self.last = self._file.read(size)
        return self.last
