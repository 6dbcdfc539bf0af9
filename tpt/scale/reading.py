"""Read sources as groups of pictures: tables with one row per picture, with its bytes or error.

Ray Data joins small tables and cuts large ones as it likes. To stay whole, a group travels as a
table of one row whose columns are lists.

A unit of work is some paths, or one archive, table or address. A task on any node reads it, so the
nodes must see the same paths (a shared disk, or addresses). Pictures that an earlier run has
recorded are skipped by the digest of their key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

from tpt.errors import MethodError, name_failure
from tpt.images.decode import read_encoded
from tpt.streaming.items import Item, Reading
from tpt.streaming.readers.containers import Opened, is_container, open_each
from tpt.streaming.readers.video import is_video
from tpt.streaming.sources import Found

PATHS_A_UNIT = 32
_MOST_UNITS = 20_000  # of paths; with more paths, units get larger
_BYTES = 2**20  # of pictures that fill a group


def make_units(found: Found, done: set[str]) -> list[dict[str, list[str]]]:
    """The units of work of sources, without files that are done.

    It waits for paths from a pipe.

    Raises:
        MethodError: a source is a film.
    """
    paths: list[str] = []
    containers: list[str] = []
    for part in found.parts:
        names: Iterable[Any] = part.paths if isinstance(part, Opened) else part
        for name in names:
            if is_video(str(name)):
                raise MethodError(
                    f"The film {str(name)!r} cannot be read with --ray, because its frames depend "
                    "on earlier ones. Run it without --ray."
                )
            many = isinstance(part, Opened) and is_container(name)
            (containers if many else paths).append(str(name))
    paths = [path for path in dict.fromkeys(paths) if path not in done]
    size = max(PATHS_A_UNIT, len(paths) // _MOST_UNITS + 1)
    chunks = [paths[first : first + size] for first in range(0, len(paths), size)]
    units = [*([each] for each in dict.fromkeys(containers)), *chunks]
    return [{"names": [os.fsencode(name) for name in unit]} for unit in units]  # type: ignore[misc]


def digest_keys(keys: Iterable[str]) -> Any:
    """Sorted 16-byte digests (n,): a set that all tasks of a node share without a copy."""
    import numpy as np

    return np.sort(np.array([_digest(key) for key in keys], dtype="S16"))


def read_unit(table: Any, reading: Reading, done: Any, most: int) -> Iterator[Any]:
    """The pictures of a unit (an Arrow table of one row) in folded groups.

    A group has at most `most` pictures and about a megabyte. Columns: path (bytes, as names may not
    be UTF-8), bytes, error.
    """
    rows: list[tuple[bytes, bytes | None, str | None]] = []
    held = 0
    for names in table.column("names").to_pylist():
        for item in open_each([os.fsdecode(name) for name in names], reading):
            key = item.key if isinstance(item, Item) else item
            if _is_in(key, done):
                continue
            data, error = _read(item)
            rows.append((os.fsencode(key), data, error))
            held += len(data or b"")
            if held >= _BYTES or len(rows) >= most:
                yield fold(_make_table(rows))
                rows, held = [], 0
    if rows:
        yield fold(_make_table(rows))


def fold(table: Any) -> Any:
    """A table as one row: each column becomes a list."""
    import pyarrow as pa

    columns = (column.combine_chunks() for column in table.columns)
    ends = [0, len(table)]
    return pa.table(
        [pa.ListArray.from_arrays(ends, column) for column in columns], table.column_names
    )


def unfold(table: Any) -> Any:
    """The table that was folded; several rows are concatenated."""
    import pyarrow as pa

    return pa.table(
        [column.combine_chunks().flatten() for column in table.columns], table.column_names
    )


def _read(item: str | Item) -> tuple[bytes | None, str | None]:
    try:
        return (read_encoded(item) if isinstance(item, str) else item.read().read()), None
    except Exception as error:
        return None, name_failure(error, "Reading")[1]


def _make_table(rows: list[tuple[bytes, bytes | None, str | None]]) -> Any:
    import pyarrow as pa

    path, data, error = zip(*rows, strict=True)
    kinds = {"path": pa.binary(), "bytes": pa.binary(), "error": pa.string()}
    columns = zip(kinds.items(), (path, data, error), strict=True)
    return pa.table({name: pa.array(values, kind) for (name, kind), values in columns})


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _is_in(key: str, done: Any) -> bool:
    if not len(done):
        return False
    import numpy as np

    wanted = np.array(_digest(key), dtype="S16")
    place = int(np.searchsorted(done, wanted))
    return place < len(done) and bool(done[place] == wanted)
