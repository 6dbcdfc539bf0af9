"""Records of `tpt predict`: their forms, and going on where an earlier run stopped."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from tpt.errors import MethodError, OutputError
from tpt.runs.journal import Journal, check_same, open_lines, read_lines
from tpt.streaming.record_parquet import check_finished, pack, unpack
from tpt.streaming.record_table import table_header, table_row
from tpt.streaming.records import Record, csv_cells, csv_header
from tpt.streaming.subtitles import FORMS as SUBTITLES
from tpt.streaming.subtitles import write_subtitles


@dataclass(frozen=True)
class FinishedRecords:
    """What an earlier run has left: the paths recorded, and how many of them with an error."""

    paths: frozenset[str]
    failed: int


@dataclass(frozen=True)
class Target:
    """Where records go and in which form."""

    path: str  # a file, or "-" for standard output
    form: str  # "jsonl", "csv", "table", "parquet", "srt" or "vtt"
    top_k: int

    @property
    def lines(self) -> Target:
        """Where records go line by line: itself, but a file beside it for Parquet.

        A Parquet file is whole or not at all, so `finish` makes it of the lines when all are there.
        """
        if self.form != "parquet":
            return self
        return replace(self, path=f"{self.path}.partial.jsonl", form="jsonl")

    @property
    def is_file(self) -> bool:
        """A regular file, which can be continued; not a pipe, a device or standard output."""
        return self.path != "-" and (not os.path.exists(self.path) or os.path.isfile(self.path))

    @property
    def can_resume(self) -> bool:
        return self.is_file and self.form not in ("table", *SUBTITLES)

    @property
    def journal(self) -> Journal:
        return Journal(self.lines.path)

    def claim(self, resume: bool, overwrite: bool) -> AbstractContextManager[None]:
        """Be the only run that writes it (`Journal.claim`); a pipe may have several writers."""
        return self.journal.claim(resume, overwrite) if self.is_file else nullcontext()


def check_target(target: Target, resume: bool, overwrite: bool) -> None:
    """Refuse, before a model is loaded for it, a target that could not be used.

    Raises:
        MethodError: options that do not go together.
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
    """Make the target ready and say what an earlier run has already done there.

    Args:
        target: one that `check_target` let pass.
        settings: all that decides what the records say; must be the same to resume.
        run: what is worth keeping besides (device, versions).

    Returns:
        What is already recorded, or None where the run starts afresh.

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
    """Make of the lines what the target is to be, when all of them are there.

    Raises:
        OutputError: the disk refused; the lines are still there.
    """
    if target.form == "parquet":
        pack(target.path, target.journal)


# --- writing ---


def write_records(target: Target, append: bool) -> AbstractContextManager[Callable[[Record], None]]:
    """A function that writes a record; `append` goes on with what the target holds."""
    if target.form in SUBTITLES:
        return write_subtitles(target.path, target.form)

    def encode(record: Record) -> str:
        if target.form == "csv":
            return _csv_line(csv_cells(record.to_dict(), target.top_k))
        return table_row(record) if target.form == "table" else record.to_json()

    header, can_resume = _header(target), target.can_resume
    return open_lines(target.path, encode, append=append, header=header, can_resume=can_resume)


def _header(target: Target) -> str | None:
    if target.form == "csv":
        return _csv_line(csv_header(target.top_k))
    return table_header() if target.form == "table" else None


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    # The writer quotes what its own line end holds; so both marks of one, which are then cut off.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


# --- going on ---


def read_done(target: Target) -> FinishedRecords:
    """What the target holds already; a broken last line is cut off."""
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
    """(path, whether it is an error) of one record."""
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
