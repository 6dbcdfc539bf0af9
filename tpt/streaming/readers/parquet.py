"""Pictures in a Parquet file: a column of encoded bytes, of paths, or of both.

    pictures.parquet#17     the record of row 17; the first row is 0

A column of bytes holds image files. Hugging Face's `datasets` writes a column of structs
{bytes, path}: the bytes are read, or the path if there are none. Paths are relative to the current
folder, as in `@list.txt`, and name their records. Rows are read a few at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from tpt.errors import SourceError, describe_error, suggest
from tpt.streaming.items import Item, fail_item, hold_bytes
from tpt.streaming.readers.extras import import_extra
from tpt.text import some

EXTENSIONS = (".parquet", ".pq")
_LIKELY = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_ROWS = 16  # in memory at a time
_BUFFER = 2**20  # bytes of a column to read at a time


def is_parquet(name: str) -> bool:
    """Whether a file is Parquet, judged by its name."""
    return name.lower().endswith(EXTENSIONS)


def check_column(path: str, column: str | None) -> None:
    """Refuse a column that a file does not have, before its rows are read.

    A file that cannot be read passes; it becomes an error record later.

    Raises:
        SourceError: there is no such column, or pyarrow is missing.
    """
    parquet = _import()
    try:
        schema = parquet.read_schema(path)
    except Exception:
        return
    find_column(path, schema, column)


def find_column(path: str, schema: Any, column: str | None) -> str:
    """The column that holds the pictures: `column`, else one of a likely name or type.

    Raises:
        SourceError: there is none, or several could be meant.
    """
    names = {field.name: _kind_of(field.type) for field in schema}
    if column is not None:
        if names.get(column):
            return column
        wrong = "holds neither bytes nor paths" if column in names else "is not there"
        hint = suggest(column, names) if column not in names else ""
        raise SourceError(
            f'The column "{column}" of "{path}" {wrong}: expected one of {some(names)}.{hint}'
        )
    found = [name for name in _LIKELY if names.get(name)]
    found = found or [name for name, kind in names.items() if kind == "bytes"]
    if not found or (len(found) > 1 and found[0] not in _LIKELY):
        raise SourceError(
            f'Which column of "{path}" holds the pictures is not known: it has {some(names)}. Name '
            "it with --column."
        )
    return found[0]


def iter_parquet(
    path: str, column: str | None = None, file: IO[bytes] | None = None
) -> Iterator[Item | str]:
    """The pictures of a Parquet file in the order of its rows: items, or paths.

    Args:
        path: the file, and its name in the records.
        column: the column with the pictures; by default `find_column` guesses it.
        file: the open file, if `path` is an address.
    """
    parquet = _import()
    row = 0
    try:
        with parquet.ParquetFile(file or path, buffer_size=_BUFFER) as table:
            name = find_column(path, table.schema_arrow, column)
            for batch in table.iter_batches(batch_size=_ROWS, columns=[name]):
                for cell in batch.column(0).to_pylist():
                    null = (
                        f'Row {row:,} of "{path}" has no picture: its column "{name}" is NULL or '
                        "empty. Fill it in, or leave the row out."
                    )
                    yield read_cell(f"{path}#{row}", cell, null)
                    row += 1
    except SourceError as error:
        yield fail_item(path, str(error))
    except Exception as error:  # Arrow raises many kinds on broken data
        yield fail_item(
            path,
            f"{path!r} cannot be read from row {row:,} on ({describe_error(error)}): expected a "
            "Parquet file. Fetch it again.",
        )


def read_cell(key: str, cell: Any, null: str) -> Item | str:
    """One cell as an item, or the path that it holds.

    Args:
        cell: bytes, a path, {"bytes", "path"}, a picture in memory, or None.
        null: the error message for an empty cell.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or (isinstance(cell, str | bytes) and not cell):
        return fail_item(key, null)
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bytes | bytearray | memoryview):
        return hold_bytes(key, bytes(cell))
    return Item(key, lambda: cell, nbytes=int(getattr(cell, "nbytes", 0)))


def _kind_of(kind: Any) -> str:
    """What a column of this type holds: "bytes", "paths", or "" for neither."""
    types = import_extra("pyarrow", "parquet", "A Parquet file").types
    if types.is_struct(kind):
        return "bytes" if any(kind.field(n).name == "bytes" for n in range(kind.num_fields)) else ""
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "bytes"
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return "paths" if is_text else ""


def _import() -> Any:
    return import_extra("pyarrow.parquet", "parquet", "A Parquet file")
