"""Write the records of `tpt predict` in each format, and resume an earlier run."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tpt.errors import MethodError, OutputError
from tpt.runs.journal import Journal, check_same, open_lines, read_lines
from tpt.streaming.record_parquet import check_finished, pack, unpack
from tpt.streaming.record_table import table_header, table_row
from tpt.streaming.records import Record, csv_cells, csv_header, csv_line
from tpt.streaming.subtitles import FORMS as SUBTITLES
from tpt.streaming.subtitles import write_subtitles


@dataclass(frozen=True)
class FinishedRecords:
    """What an earlier run wrote: the paths recorded, and how many of them with an error."""

    paths: frozenset[str]
    failed: int


@dataclass(frozen=True)
class Target:
    """Where records go and in which format."""

    path: str  # a file, or "-" for standard output
    form: str  # "jsonl", "csv", "table", "parquet", "srt" or "vtt"
    top_k: int

    @property
    def lines(self) -> Target:
        """Where records go line by line: this target, or a file beside it for Parquet.

        `finish` makes the Parquet file from the lines at the end, because it cannot be appended to.
        """
        if self.form != "parquet":
            return self
        return replace(self, path=f"{self.path}.partial.jsonl", form="jsonl")

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, not a pipe, a device or standard output."""
        return self.path != "-" and (not os.path.exists(self.path) or os.path.isfile(self.path))

    @property
    def can_resume(self) -> bool:
        return self.is_file and self.form not in ("table", *SUBTITLES)

    @property
    def journal(self) -> Journal:
        return Journal(self.lines.path)

    def claim(self, resume: bool, overwrite: bool) -> AbstractContextManager[None]:
        """Lock the file for this run (`Journal.claim`); a pipe may have several writers."""
        return self.journal.claim(resume, overwrite) if self.is_file else nullcontext()


def check_target(target: Target, resume: bool, overwrite: bool) -> None:
    """Refuse a target that cannot be used, before a model is loaded.

    Raises:
        MethodError: options that exclude one another.
        OutputError: as `Journal.check`.
    """
    if resume and not target.is_file:
        where = "standard output" if target.path == "-" else f'"{target.path}"'
        raise MethodError(
            f"--resume goes on with a file of records, but the output is {where}. Give --output "
            "FILE."
        )
    if resume and not target.can_resume:
        what = "Subtitles" if target.form in SUBTITLES else "A table"
        raise MethodError(f"{what} cannot be continued. Use --format jsonl or csv with --resume.")
    if target.form == "parquet":
        if not target.is_file:
            raise MethodError("Parquet is written to a file. Give --output FILE.parquet.")
        check_finished(target.path, resume or overwrite)
    if target.is_file:
        target.journal.check(resume, overwrite)


def prepare(
    target: Target, settings: dict[str, Any], run: dict[str, Any], resume: bool
) -> FinishedRecords | None:
    """Make the target ready for writing, and read what an earlier run wrote there.

    Args:
        target: one that `check_target` accepts.
        settings: everything that decides what the records say; must be the same to resume.
        run: facts to keep beside them (device, versions).

    Returns:
        What is already recorded, or None if the run starts anew.

    Raises:
        OutputError: the file was made with other settings; it is not a file of records; it
            cannot be written.
    """
    if not target.is_file:
        return None
    if resume and target.form == "parquet" and not target.journal.is_begun:
        unpack(target.path, target.journal)
    if resume and target.journal.is_begun:
        check_same(target.journal.read_settings(), settings, target.path)
        return read_done(target.lines)
    target.journal.begin(settings, run)
    return None


def finish(target: Target) -> None:
    """Turn the finished lines into the target's format.

    Raises:
        OutputError: the disk refused; the lines are kept.
    """
    if target.form == "parquet":
        pack(target.path, target.journal)


# --- writing ---


def write_records(target: Target, append: bool) -> AbstractContextManager[Callable[[Record], None]]:
    """A function that writes a record; with `append`, after what the target holds."""
    if target.form in SUBTITLES:
        return write_subtitles(target.path, target.form)

    def encode(record: Record) -> str:
        if target.form == "csv":
            return csv_line(csv_cells(record.to_dict(), target.top_k))
        return table_row(record) if target.form == "table" else record.to_json()

    header, can_resume = _header(target), target.can_resume
    return open_lines(target.path, encode, append=append, header=header, can_resume=can_resume)


def _header(target: Target) -> str | None:
    if target.form == "csv":
        return csv_line(csv_header(target.top_k))
    return table_header() if target.form == "table" else None


# --- resuming ---


def read_done(target: Target) -> FinishedRecords:
    """The records that the target holds; a broken last line is cut off."""
    paths: set[str] = set()
    failed = 0
    is_csv = target.form == "csv"
    lines = read_lines(target.path, _has_closed_quotes) if is_csv else read_lines(target.path)
    for number, line in enumerate(lines, start=1):
        if number > 1 or not is_csv:
            path, error = _read_line(line, target, number)
            paths.add(path)
            failed += error
        elif line.decode("utf-8", "replace").rstrip("\n") != _header(target):
            raise _not_a_record(target, number)
    return FinishedRecords(frozenset(paths), failed)


def _has_closed_quotes(line: bytes) -> bool:
    """In CSV a line break inside quotes does not end a line."""
    return line.count(b'"') % 2 == 0


def _read_line(line: bytes, target: Target, number: int) -> tuple[str, bool]:
    """(path, whether it is an error record) of one line."""
    try:
        text = line.decode("utf-8", "surrogateescape")
        if target.form == "csv":
            cells = next(csv.reader(io.StringIO(text, newline="")))
            return cells[0], bool(cells[csv_header(target.top_k).index("error_type")])
        record = json.loads(text)
        return str(record["path"]), "error" in record
    except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise _not_a_record(target, number) from error


def _not_a_record(target: Target, number: int) -> OutputError:
    return OutputError(
        f'Line {number} of "{target.path}" is not a record, so the file cannot be continued. '
        "Give another --output, or --overwrite to start again."
    )
