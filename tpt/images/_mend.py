"""Slightly broken files that viewers show in full: all pixels are there, something else is not.

A picture is never completed: a file that lacks a pixel stays an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from tpt.errors import ImageError
from tpt.images._levels import Pixels

PNG = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")  # besides the pixels and the profile
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PNG_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""Of an interlaced PNG: first column and row, steps across and down."""
_MOST_PROFILE = 16 * 2**20  # bytes, as much as a JPEG can hold

LOST_END = "Its last bytes are missing or wrong, but all its pixels are there."


# --- PNG ---


def drop_bad_chunks(data: bytes, notes: list[str]) -> bytes:
    """A PNG without the chunks that hold no pixels and have a wrong checksum."""
    kept, whole, kind = [(0, len(PNG))], True, b""
    for kind, start, end in _chunks(data):
        sound = _is_sound(data, start, end)
        if not sound and kind == b"IDAT":
            notes.append("The checksum of its pixels is wrong: they may be, too.")
        if sound or not kind[0] & 32:  # the bit that says: the picture can do without it
            kept.append((start, end))
        else:
            whole = False
    if kind != b"IEND":
        notes.append(LOST_END)
        kept.append((max(end for _, end in kept), len(data)))
    if whole:
        return data
    notes.append("A part of it that holds no pixels has a wrong checksum: it was left out.")
    return b"".join(data[start:end] for start, end in kept)


def bare_png(data: bytes, notes: list[str], most_bytes: int) -> tuple[bytes, bytes | None] | None:
    """A PNG with nothing but its pixels, and its colour profile.

    None if pixels are missing or unpack to more than `most_bytes`. Pillow refuses files with long
    texts or profiles, or with anything beside the pixels that it cannot read.
    """
    kept: dict[bytes, bytes] = {}
    packed, profile = [], None
    for kind, start, end in _chunks(data, cut=True):
        body = data[start + 8 : end - 4]
        if kind == b"IDAT":
            packed.append(data[start + 8 : max(start + 8, end - 4)])
        elif kind in _PNG_NEEDED:
            if not _is_sound(data, start, end):
                return None
            kept.setdefault(kind, body)
        elif kind == b"iCCP":
            profile = _unpack_profile(body)
    if len(kept.get(b"IHDR", b"")) != 13:
        return None
    rows = _unpack_rows(b"".join(packed), kept[b"IHDR"], notes, most_bytes)
    if rows is None:
        return None
    chunks = [*kept.items(), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return PNG + b"".join(_chunk(*chunk) for chunk in chunks), profile


def _chunks(data: bytes, cut: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk; with `cut` also of a last one that is cut off."""
    place = len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        yield kind, place, end
        if kind == b"IEND":
            return
        place = end
    if cut and place + 8 <= len(data):
        yield data[place + 4 : place + 8], place, len(data) + 4


def _is_sound(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk's checksum is right."""
    body = memoryview(data)[start + 4 : end - 4]
    return zlib.crc32(body).to_bytes(4, "big") == data[end - 4 : end]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unpack_rows(packed: bytes, header: bytes, notes: list[str], most_bytes: int) -> bytes | None:
    """The filtered rows, if all of them are there; their checksum is ignored."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    size = 0
    for left, top, across, down in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and lines > 0:
            size += lines * (1 + (columns * depth * _PNG_CHANNELS.get(colour, 1) + 7) // 8)
    if not 0 < size <= most_bytes:
        return None
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        rows = unpack.decompress(packed[2:], size)
        rest = unpack.decompress(unpack.unconsumed_tail, 1)
    except zlib.error:
        return None
    if len(rows) < size:
        return None
    if rest or unpack.unused_data[:4] != zlib.adler32(rows).to_bytes(4, "big"):
        notes.append(LOST_END)
    return rows


def _unpack_profile(body: bytes) -> bytes:
    """A colour profile of any length up to `_MOST_PROFILE`; empty where it cannot be read."""
    _, _, packed = body.partition(b"\0")
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(packed[1:], _MOST_PROFILE)
    except zlib.error:
        return b""
    return b"" if unpack.unconsumed_tail else profile


# --- WebP ---


def cut_webp(data: bytes) -> bytes | None:
    """A WebP without a part that is cut off behind its pixels; None if it is cut off before."""
    place, parts = 12, []
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        if end - length % 2 > len(data):
            break
        parts.append((kind, data[place:end].ljust(8 + length + length % 2, b"\0")))
        place = end
    if not any(kind in (b"VP8 ", b"VP8L", b"ANMF") for kind, _ in parts):
        return None
    body = b"WEBP" + b"".join(part for _, part in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- JPEG ---

JPEG = b"\xff\xd8"
_END = b"\xff\xd9"


def note_lost_end(data: bytes, notes: list[str]) -> None:
    """Note that a decoded JPEG or GIF has no end mark."""
    is_gif = data.startswith(b"GIF8") and b";" not in data[-64:]
    if is_gif or (data.startswith(JPEG) and _END not in data):
        notes.append(LOST_END)


def without_end(data: bytes, decode: Callable[[bytes], Pixels]) -> Pixels | None:
    """Pixels of a JPEG whose end is missing, if none of them is.

    The file is decoded with several endings of noise. If every pixel is there, none depends on the
    ending; if one is missing, it is made of noise, and each ending gives another picture.
    """
    if not _has_all_scans(data):
        return None
    found: Pixels | None = None
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 255, (16, 64), dtype=np.uint8)
        # The decoder may wait for any of the restart marks, and needs an end mark.
        marked = [row.tobytes() + bytes((255, 0xD0 + i % 8)) for i, row in enumerate(noise)]
        try:
            pixels = decode(data.removesuffix(b"\xff") + b"".join(marked) + _END)
        except ImageError:
            return None
        if found is not None and not np.array_equal(found, pixels):
            return None
        found = pixels
    return found


def _has_all_scans(data: bytes) -> bool:
    """Whether a JPEG's scans, whole or cut off, hold the last bit of all of every component."""
    components: set[int] = set()
    done: set[tuple[int, int]] = set()
    for kind, body in _segments(data):
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            components = set(body[6::3])
        elif kind == 0xDA and body:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count].ljust(3, b"\1")
            if not bits & 15:  # no lower bits are left for a later scan
                named = body[1 : 1 + 2 * count : 2]
                done |= {(c, k) for c in named for k in range(first, last + 1)}
    return bool(components) and done >= {(c, k) for c in components for k in range(64)}


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of a JPEG's segments, with its entropy-coded parts skipped."""
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 3:
        kind = data[place + 1]
        if kind in (0, 0xFF) or 0xD0 <= kind <= 0xD9:  # stuffing, fill, restart, start or end
            place += 1 if kind == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield kind, data[place + 4 : place + 2 + length]
        place += 2 + max(2, length)
