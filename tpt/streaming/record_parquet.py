"""Records in Parquet: one row a record, typed columns, the settings in the schema's metadata.

The columns are the keys of a record, nested in the same way, plus `label` and `score` of the first
prediction for short queries, and `path_bytes` for file names that are not UTF-8. Reading gives back
exactly the records that were written.
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

_KEY = b"tpt"  # of our settings in the metadata
_ROWS = 1_000  # of a row group, and of a batch when reading


def make_schema(about: dict[str, Any]) -> Any:
    """Arrow's schema of records; `about` is {"settings": ..., "run": ...}."""
    pa = import_extra("pyarrow", "parquet", "Parquet output")
    text, real, whole, flag = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    prediction = pa.struct({"label": text, "score": real, "index": whole, "votes": whole})
    adapt = {"entropy_before": real, "entropy_after": real, "views_kept": whole, "ms": real}
    fields = {
        **{"path": text, "path_bytes": pa.binary(), "index": whole},
        **{"time": real, "frame": whole, "shot": whole},
        **{"label": text, "score": real, "predictions": pa.list_(prediction)},
        **{"rejected": flag, "zero_shot": prediction},
        "adapt": pa.struct({**adapt, "skipped": flag}),
        "error": pa.struct({"type": text, "message": text}),
        "warning": text,
    }
    return pa.schema(fields.items(), metadata={_KEY: json.dumps(about)})


def to_row(data: dict[str, Any]) -> dict[str, Any]:
    """A record's plain data as a row; missing keys become null."""
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
    """Write a whole file of records, or none.

    Raises:
        OutputError: the disk refused; an existing file is unchanged.
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
            while group := list(islice(rows, _ROWS)):
                writer.write_table(pa.Table.from_pylist(group, schema))
    except OSError as error:
        raise cannot_write(path, error) from error


def read_parquet(path: str) -> Iterator[dict[str, Any]]:
    """The records of a Parquet file that `write_parquet` made.

    Raises:
        OutputError: it is not such a file.
    """
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from map(from_row, batch.to_pylist())
    except Exception as error:  # Arrow raises many kinds of errors on other files
        raise OutputError(
            f'"{path}" cannot be read as Parquet records ({describe_error(error)}). Expected a '
            "file that `tpt predict` or `tpt records convert` wrote."
        ) from error


def read_about(path: str) -> dict[str, Any]:
    """The {"settings", "run"} in a Parquet file's metadata; {} if there are none."""
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
    try:
        about: dict[str, Any] = json.loads((parquet.read_schema(path).metadata or {})[_KEY])
    except Exception:
        return {}
    return about


# --- from a run's lines to the Parquet file, and back ---


def check_finished(path: str, allowed: bool) -> None:
    """Refuse a Parquet file that exists already, unless `allowed`, and check for pyarrow.

    Raises:
        OutputError: the file exists, and neither --resume nor --overwrite was given.
        SourceError: pyarrow is missing.
    """
    import_extra("pyarrow.parquet", "parquet", "Parquet output")
    if os.path.exists(path) and not allowed:
        raise OutputError(
            f'"{path}" exists already. Use --resume to go on with it, --overwrite to start again, '
            "or another --output."
        )


def pack(path: str, journal: Journal) -> None:
    """Make the Parquet file from a run's lines, and delete the lines."""
    about = json.loads(journal.sidecar.read_text(encoding="utf-8"))
    with open(journal.path, "rb") as lines:
        write_parquet(path, map(json.loads, lines), about)
    os.unlink(journal.path)
    journal.sidecar.unlink()


def unpack(path: str, journal: Journal) -> None:
    """Turn a finished Parquet file back into lines, to resume the run; nothing without a file.

    Raises:
        OutputError: it is not a file of records.
    """
    if not os.path.exists(path):
        return
    about = read_about(path)
    journal.begin(about.get("settings", {}), about.get("run", {}))
    temporary = f"{journal.path}.new"
    with open(temporary, "wb") as file:
        file.writelines((to_line(r) + "\n").encode() for r in read_parquet(path))
    os.replace(temporary, journal.path)
