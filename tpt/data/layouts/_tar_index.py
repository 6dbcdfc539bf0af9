"""Where the labelled pictures of a webdataset tar lie: `s0000001.jpg` with its `s0000001.cls`.

An archive is walked once, header by header, with the standard library's `tarfile`; no picture is
read. The whole pictures of a damaged archive are kept, and a note says what is missing.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from tpt.data.labelled_sets import TarMember
from tpt.errors import SourceError, why
from tpt.streaming.folders import IMAGE_EXTENSIONS
from tpt.streaming.readers.tars import BLOCK, judge_end
from tpt.text import some

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_SIGNATURES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip, bz2, xz, zstd
_LONGEST_LABEL = 32  # bytes of a .cls file that are read


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an archive and its label number."""

    key: str  # "0.tar/s0000001"
    label: int
    member: TarMember


@dataclass
class _Group:
    """The members of one stem: a picture and its label, in either order."""

    pictures: list[TarMember] = field(default_factory=list)
    labels: list[bytes] = field(default_factory=list)


def index_archives(paths: Sequence[str]) -> tuple[list[Picture], list[str]]:
    """The labelled pictures of some archives, in order, and notes on what cannot be used.

    Raises:
        SourceError: an archive cannot be read at all, is no tar, or is compressed.
    """
    pictures: list[Picture] = []
    notes: list[str] = []
    left_out: dict[str, list[str]] = {}  # what is wrong -> keys
    for path in paths:
        groups, end = _open_archive(path)
        before = len(pictures)
        for stem, group in groups.items():
            key = f"{os.path.basename(path)}/{stem}"
            label = _read_label(group)
            if isinstance(label, str):
                left_out.setdefault(label, []).append(key)
            else:
                pictures.append(Picture(key, label, group.pictures[0]))
        if end:
            count = len(pictures) - before
            whole = f"{count:,} picture{'s' * (count != 1)}"
            notes.append(f'"{path}" {end} after {whole}; fetch it again.')
    for reason, keys in left_out.items():
        are = "s are" if len(keys) > 1 else " is"
        notes.append(f"{len(keys):,} sample{are} left out, {reason}: {some(keys)}.")
    return pictures, notes


def _open_archive(path: str) -> tuple[dict[str, _Group], str]:
    """An archive's members by stem, and what is wrong with its end, or ""."""
    groups: dict[str, _Group] = {}
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            if start.startswith(_SIGNATURES) or path.lower().endswith(COMPRESSED):
                raise SourceError(
                    f'"{path}" is compressed, so that its pictures cannot be read one by one. '
                    'Decompress it first (with "gunzip", for example), and leave a plain .tar in '
                    "its place."
                )
            if not start:
                raise SourceError(f'"{path}" is empty (0 bytes). Fetch it again.')
            return groups, _walk(path, file, groups)
    except OSError as error:
        raise SourceError(
            f'"{path}" cannot be read ({why(error)}): expected a tar archive. Check the file.'
        ) from error


def _read_label(group: _Group) -> int | str:
    """The label number, or what is wrong."""
    if not group.pictures:
        return "without a picture"
    if not group.labels:
        return "without a label (.cls)"
    if len(group.pictures) > 1 or len(group.labels) > 1:
        return "with several pictures or labels"
    text = group.labels[0].strip()
    is_number = re.fullmatch(rb"-?[0-9]{1,9}", text)
    return int(text) if is_number else "whose label (.cls) is no number"


def _walk(path: str, file: BinaryIO, groups: dict[str, _Group]) -> str:
    """Collect an archive's members by stem. Returns what is wrong with its end, or ""."""
    size = os.path.getsize(path)
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 (closed by the next `with`)
    except Exception as error:  # tarfile raises many kinds on a broken header
        raise SourceError(
            f'"{path}" is no tar archive, or damaged from its start '
            f"({' '.join(str(error).split())}). Fetch it again."
        ) from error
    with archive:
        try:
            for member in _list_members(archive):
                if member.size < 0:  # the format can say so; the walk would go backwards
                    return "is damaged"
                if member.offset_data + member.size > size:
                    return "is cut off"
                if member.isreg() and not member.issparse():
                    _sort_in(path, file, member, groups)
        except Exception:  # as above
            return "is cut off or damaged"
        # tarfile takes a cut-off or overwritten header for the archive's end and says nothing.
        file.seek(archive.offset)
        return judge_end(file.read(BLOCK))


def _list_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    if archive.offset == 0:  # nothing in it; Python 3.10 would seek to the byte before the first
        return
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
        yield member


def _sort_in(path: str, file: BinaryIO, member: tarfile.TarInfo, groups: dict[str, _Group]) -> None:
    """Add a picture or a label to the group of its stem, which ends at the first dot."""
    folder, _, base = member.name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot:  # a hidden file, such as the "._" files of macOS, or no extension
        return
    key = f"{folder}/{stem}" if folder else stem
    if not key.isprintable():  # a key goes into messages and files, where odd bytes cannot
        key = key.encode("unicode_escape").decode()
    if extension.lower() == "cls":
        file.seek(member.offset_data)
        label = file.read(min(member.size, _LONGEST_LABEL))
        groups.setdefault(key, _Group()).labels.append(label)
    elif f".{extension.lower()}" in IMAGE_EXTENSIONS:
        picture = TarMember(path, member.offset_data, member.size, member.name)
        groups.setdefault(key, _Group()).pictures.append(picture)
