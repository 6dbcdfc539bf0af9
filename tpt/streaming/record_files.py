"""Read files of records, and convert them into other formats.

JSON lines and Parquet hold whole records, so they convert into one another without loss. CSV and
the exports hold less and are only written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from tpt.errors import OutputError, why
from tpt.runs.journal import Journal
from tpt.runs.lock import cannot_write
from tpt.runs.whole_files import open_whole
from tpt.streaming.exports import fiftyone, label_studio
from tpt.streaming.folders import sort_naturally
from tpt.streaming.record_parquet import read_about, read_parquet, write_parquet
from tpt.streaming.records import csv_cells, csv_header, csv_line, to_line

FORMS = ("jsonl", "csv", "parquet", "fiftyone", "label-studio")
Records = Iterable[dict[str, Any]]


def convert(source: str, target: str, form: str) -> int:
    """Write the records of a file (or of a folder of Parquet parts) in another format.

    Args:
        source: JSON lines, Parquet, or a folder that `tpt predict --ray` wrote.
        target: a file; a folder for "fiftyone".
        form: one of `FORMS`.

    Returns:
        How many records there were.

    Raises:
        OutputError: the source is not a file of records, or the disk refused.
    """
    about = find_about(source)
    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        count = 0
        for record in read_records(source):
            count += 1
            yield record

    if form == "parquet":
        write_parquet(target, counted(), about)
    elif form == "fiftyone":
        os.makedirs(target, exist_ok=True)
        for name, export in fiftyone.FILES.items():
            _write_text(os.path.join(target, name), export(counted(), about))
    else:
        make: Callable[[Records, dict[str, Any]], Iterator[str]] = {
            "jsonl": lambda records, about: (to_line(record) + "\n" for record in records),
            "csv": _make_csv,
            "label-studio": label_studio.export,
        }[form]
        _write_text(target, make(counted(), about))
    return count


def read_records(path: str) -> Iterator[dict[str, Any]]:
    """The records of a file or of a folder of parts, as plain data, in order.

    Raises:
        OutputError: it is neither JSON lines nor Parquet of records.
    """
    for part in list_parts(path):
        yield from read_parquet(part) if _is_parquet(part) else _read_lines(part)


def find_about(path: str) -> dict[str, Any]:
    """The settings that made a file of records, from its sidecar or its metadata."""
    for part in list_parts(path)[:1]:
        if _is_parquet(part):
            return read_about(part)
        with suppress(OSError, ValueError):
            about: dict[str, Any] = json.loads(Journal(part).sidecar.read_text(encoding="utf-8"))
            return about
    return {}


def list_parts(path: str) -> list[str]:
    """The files of records at a path: the file itself, or a folder's Parquet files."""
    if not os.path.isdir(path):
        return [path]
    names = [name for name in os.listdir(path) if name.endswith(".parquet")]
    if not names:
        raise OutputError(f'The folder "{path}" holds no records: expected Parquet files in it.')
    return [os.path.join(path, name) for name in sort_naturally(names) if name[0] != "."]


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _read_lines(path: str) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 (said below)
                record = json.loads(line)
                if "predictions" not in record and "error" not in record:
                    raise ValueError("no predictions")
                yield record
    except OSError as error:
        raise OutputError(
            f'"{path}" cannot be read ({why(error)}): expected a file of records.'
        ) from error
    except (ValueError, TypeError) as error:
        raise OutputError(
            f'Line {number} of "{path}" is not a record: expected JSON lines or Parquet, as `tpt '
            "predict` writes them."
        ) from error


def _make_csv(records: Records, about: dict[str, Any]) -> Iterator[str]:
    top_k = int(about.get("settings", {}).get("top_k", 5))
    yield csv_line(csv_header(top_k)) + "\n"
    for record in records:
        yield csv_line(csv_cells(record, top_k)) + "\n"


def _write_text(target: str, parts: Iterable[str]) -> None:
    try:
        with open_whole(target) as file:
            file.writelines(part.encode("utf-8", "surrogateescape") for part in parts)
    except OSError as error:
        raise cannot_write(target, error) from error
