"""Records in Parquet: one row a record, typed columns, the settings in the schema's metadata.

The columns are the keys of a record, nested as there, and `label` and `score` of the first
prediction for short queries. `path_bytes` is there only for file names that are not UTF-8. A row
read back is the record that was written, to the last digit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tpt.errors import OutputError, describe_error
from tpt.runs.journal import Journal
from tpt.runs.lock import cannot_write
from tpt.runs.whole_files import open_whole
from tpt.streaming.readers.extras import import_extra
from tpt.streaming.records import to_line
from tpt.text import as_text, is_utf8

_KEY = b"tpt"  # of the metadata
_ROWS = 1_000  # a row group and a batch


def make_schema(about: dict[str, Any]) -> Any:
    """Arrow's schema of records; `about` is {"settings": ..., "run": ...}."""
    pa = import_extra("pyarrow", "parquet", "Parquet output")
    text, real, whole = pa.string(), pa.float64(), pa.int64()
    said = pa.struct({"label": text, "score": real, "index": whole, "votes": whole})
    adapt = {"entropy_before": real, "entropy_after": real, "views_kept": whole, "ms": real}
    fields = {
        **{"path": text, "path_bytes": pa.binary(), "index": whole, "time": real, "frame": whole},
        "shot": whole,
        **{"label": text, "score": real, "predictions": pa.list_(said)},
        **{"rejected": pa.bool_(), "zero_shot": said},
        "adapt": pa.struct({**adapt, "skipped": pa.bool_()}),
        "error": pa.struct({"type": text, "message": text}),
        "warning": text,
    }
    return pa.schema(fields.items(), metadata={_KEY: json.dumps(about)})


def to_row(data: dict[str, Any]) -> dict[str, Any]:
    """A record's plain data as a row; what is missing is null."""
    row = dict(data)
    path = data["path"]
    if path is not None and not is_utf8(path):
        row |= {"path": as_text(path), "path_bytes": os.fsencode(path)}
    if data.get("predictions"):
        first = data["predictions"][0]
        row |= {"label": first["label"], "score": first.get("score")}
    return row


def from_row(row: dict[str, Any]) -> dict[str, Any]:
    """The plain data that `to_row` took."""
    odd = row.get("path_bytes")
    data: dict[str, Any] = {"path": row["path"] if odd is None else os.fsdecode(odd)}
    for key in ("index", "time", "frame", "shot"):
        if row.get(key) is not None:
            data[key] = row[key]
    if row.get("error") is not None:
        return {**data, "error": row["error"]}
    data["predictions"] = [_prediction(each) for each in row["predictions"] or ()]
    if row["rejected"]:
        data["rejected"] = True
    if row["zero_shot"] is not None:
        data["zero_shot"] = _prediction(row["zero_shot"])
    if row["adapt"] is not None:
        skipped = {"skipped": True} if row["adapt"].pop("skipped") else {}
        data["adapt"] = {**row["adapt"], **skipped}
    if row["warning"] is not None:
        data["warning"] = row["warning"]
    return data


def _prediction(each: dict[str, Any]) -> dict[str, Any]:
    kind = "score" if each["votes"] is None else "votes"
    return {"label": each["label"], kind: each[kind], "index": each["index"]}


def write_parquet(path: str, records: Iterable[dict[str, Any]], about: dict[str, Any]) -> None:
    """Write records whole or not at all.

    Raises:
        OutputError: the disk refused; a file that was there before is unchanged.
        SourceError: pyarrow is missing.
    """
    pa = import_extra("pyarrow", "parquet", "Parquet output")
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet output")
    schema = make_schema(about)
    rows = map(to_row, records)
    try:
        with (
            open_whole(path) as file,
            parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            while some := list(islice(rows, _ROWS)):
                writer.write_table(pa.Table.from_pylist(some, schema))
    except OSError as error:
        raise cannot_write(path, error) from error


def read_parquet(path: str) -> Iterator[dict[str, Any]]:
    """The records of a Parquet file that `write_parquet` made.

    Raises:
        OutputError: it is none.
    """
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from map(from_row, batch.to_pylist())
    except Exception as error:  # Arrow raises many kinds on what is no table of records
        raise OutputError(
            f'"{path}" cannot be read as Parquet records ({describe_error(error)}). Expected a '
            "file that `tpt predict` or `tpt records convert` wrote."
        ) from error


def read_about(path: str) -> dict[str, Any]:
    """The {"settings", "run"} that stand in a Parquet file's metadata; {} where there are none."""
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
    try:
        about: dict[str, Any] = json.loads((parquet.read_schema(path).metadata or {})[_KEY])
    except Exception:
        return {}
    return about


# --- a run's lines, and the file that is made of them ---


def check_finished(path: str, allowed: bool) -> None:
    """Refuse a Parquet file that is there, and check that another could be written.

    Raises:
        OutputError: it exists and neither --resume nor --overwrite was given.
        SourceError: pyarrow is missing.
    """
    import_extra("pyarrow.parquet", "parquet", "Parquet output")
    if os.path.exists(path) and not allowed:
        raise OutputError(
            f'"{path}" exists already. Use --resume to go on with it, --overwrite to start again, '
            "or another --output."
        )


def pack(path: str, journal: Journal) -> None:
    """Make the Parquet file of a run's lines, and take the lines away."""
    about = json.loads(journal.sidecar.read_text(encoding="utf-8"))
    with open(journal.path, "rb") as lines:
        write_parquet(path, map(json.loads, lines), about)
    os.unlink(journal.path)
    journal.sidecar.unlink()


def unpack(path: str, journal: Journal) -> None:
    """Make lines again of a finished Parquet file, to go on with; nothing where there is none.

    Raises:
        OutputError: it is no file of records.
    """
    if not os.path.exists(path):
        return
    about = read_about(path)
    journal.begin(about.get("settings", {}), about.get("run", {}))
    temporary = f"{journal.path}.new"
    with open(temporary, "wb") as file:
        file.writelines((to_line(r) + "\n").encode("utf-8") for r in read_parquet(path))
    os.replace(temporary, journal.path)
