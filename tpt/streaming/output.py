"""Writing records, and going on where an earlier run stopped.

Every record is flushed when it is made. A run that was killed leaves whole records and at most one
broken line at the end; `resume` cuts that off, and skips what is done. Beside a file stands
`FILE.settings.json` with every setting that made it, so that a run is never continued with others.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tpt.errors import MethodError, OutputError
from tpt.streaming.record_table import table_header, table_row
from tpt.streaming.records import Record, csv_header, csv_row

FORMATS = ("jsonl", "csv", "table")


@dataclass(frozen=True)
class FinishedRecords:
    """What an earlier run has left: the paths recorded, and how many of them with an error."""

    paths: frozenset[str]
    failed: int


@dataclass(frozen=True)
class Target:
    """Where records go and in which form."""

    path: str  # a file, or "-" for standard output
    form: str  # one of FORMATS
    top_k: int

    @property
    def is_file(self) -> bool:
        """A regular file, which can be continued; not a pipe, a device or standard output."""
        return self.path != "-" and (not os.path.exists(self.path) or os.path.isfile(self.path))

    @property
    def is_begun(self) -> bool:
        return os.path.exists(self.path) and os.path.getsize(self.path) > 0

    @property
    def can_resume(self) -> bool:
        return self.is_file and self.form != "table"

    @property
    def sidecar(self) -> Path:
        return Path(f"{self.path}.settings.json")


class RecordWriter:
    """Writes records to a target, one by one, each flushed. Use as a context manager."""

    def __init__(self, target: Target, append: bool) -> None:
        self.target = target
        self._append = append
        self._file: IO[bytes] | None = None

    def __enter__(self) -> RecordWriter:
        if self.target.path == "-":
            sys.stdout.flush()
            self._file = sys.stdout.buffer
        else:
            try:
                self._file = open(self.target.path, "ab" if self._append else "wb")
            except OSError as error:
                raise cannot_write(self.target.path, error) from error
        header = _header(self.target)
        # A run that was killed in the middle of its header left nothing.
        if header and not (self._append and self._file.tell()):
            try:
                self._put(header)
            except (OutputError, OSError):
                self.__exit__(*sys.exc_info())
                raise
        return self

    def write(self, record: Record) -> None:
        """Write and flush one record.

        Raises:
            OutputError: the disk is full or gone; the records before are whole.
        """
        self._put(_row(record, self.target))

    def _put(self, line: str) -> None:
        """Write in UTF-8 whatever the locale; file names that are not UTF-8 keep their bytes."""
        assert self._file is not None
        try:
            self._file.write((line + "\n").encode("utf-8", "surrogateescape"))
            self._file.flush()
        except BrokenPipeError:  # `| head`: the reader has seen enough
            raise
        except OSError as error:
            raise cannot_write(self.target.path, error, self.target.can_resume) from error

    def __exit__(self, *exc: object) -> None:
        if self._file is None or self.target.path == "-":
            return
        try:
            self._file.close()
        except OSError as error:
            # What could not be flushed was already reported by write.
            if exc[0] is None:
                raise cannot_write(self.target.path, error, self.target.can_resume) from error


def cannot_write(path: str, error: OSError, can_resume: bool = False) -> OutputError:
    where = "standard output" if path == "-" else f'"{path}"'
    return OutputError(
        f"Records could not be written to {where}: {error.strerror or error}. "
        + (
            "What was written before is whole; make room, then go on with --resume."
            if can_resume
            else "Choose another place with --output, or put this right."
        )
    )


def _row(record: Record, target: Target) -> str:
    if target.form == "csv":
        return _csv_line(csv_row(record, target.top_k))
    return table_row(record) if target.form == "table" else record.to_json()


def _header(target: Target) -> str | None:
    if target.form == "csv":
        return _csv_line(csv_header(target.top_k))
    return table_header() if target.form == "table" else None


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    # The writer quotes what its own line end holds; so both marks of one, which are then cut off.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def check_target(target: Target, resume: bool, overwrite: bool) -> None:
    """Refuse, before a model is loaded for it, a target that could not be used.

    Raises:
        MethodError: options that do not go together.
        OutputError: the file exists and neither `resume` nor `overwrite` was asked for.
    """
    if resume and overwrite:
        raise MethodError(
            "--resume goes on with the output and --overwrite starts it again. Give one of them."
        )
    if resume and not target.is_file:
        where = "standard output" if target.path == "-" else f'"{target.path}"'
        raise MethodError(
            f"--resume goes on with a file of records, but the output is {where}. Give --output "
            "FILE."
        )
    if resume and not target.can_resume:
        raise MethodError("A table cannot be continued. Use --format jsonl or csv with --resume.")
    if target.is_file and target.is_begun and not (resume or overwrite):
        raise OutputError(
            f'"{target.path}" exists already. Use --resume to go on with it, --overwrite to start '
            "again, or another --output."
        )


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
    if resume and target.is_begun:
        check_settings(target, settings)
        return read_done(target)
    start_afresh(target, settings, run)
    return None


def start_afresh(target: Target, settings: dict[str, Any], run: dict[str, Any]) -> None:
    """Write FILE.settings.json, whole or not at all, and empty FILE."""
    text = json.dumps({"settings": settings, "run": run}, indent=1, ensure_ascii=True) + "\n"
    try:
        temporary = target.sidecar.parent / f".tpt-settings-{uuid.uuid4().hex}"
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
            # Records go before their settings do: old records must never stand beside new ones.
            if target.is_begun:
                os.truncate(target.path, 0)
            os.replace(temporary, target.sidecar)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(str(target.sidecar), error) from error


def check_settings(target: Target, settings: dict[str, Any]) -> None:
    """Refuse to go on with a target that was made with other settings.

    Raises:
        OutputError: other settings, or nobody knows which.
    """
    try:
        before = dict(json.loads(target.sidecar.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f'"{target.path}" cannot be continued: its settings file "{target.sidecar}" is missing '
            "or damaged, so nobody knows how it was made. Start again with --overwrite."
        ) from error
    now = json.loads(json.dumps(settings))
    changed = name_change(before, now)
    if changed:
        raise OutputError(
            f'"{target.path}" was made with other settings ({changed}). Use the same '
            "settings, another --output, or --overwrite."
        )


def name_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, and the first one's values; "" where none does."""
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not changed:
        return ""
    first = changed[0]
    return (
        f"{', '.join(sorted(changed))}; {first} was {_short(before.get(first))}, now "
        f"{_short(now.get(first))}"
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_done(target: Target) -> FinishedRecords:
    """What the target holds already; a broken last line is cut off."""
    paths: set[str] = set()
    failed = whole = 0
    try:
        with open(target.path, "rb") as file:
            for number, line in enumerate(_whole_lines(file, target.form), start=1):
                if number > 1 or target.form != "csv":
                    path, error = _read_line(line, target, number)
                    paths.add(path)
                    failed += error
                elif line.decode("utf-8", "replace").rstrip("\n") != _header(target):
                    raise _not_a_record(target, number)
                whole += len(line)
        if whole < os.path.getsize(target.path):
            os.truncate(target.path, whole)
    except OSError as error:
        raise cannot_write(target.path, error) from error
    return FinishedRecords(frozenset(paths), failed)


def _whole_lines(file: IO[bytes], form: str) -> Iterator[bytes]:
    """Complete lines as bytes; in CSV a line break inside quotes does not end one."""
    pending = b""
    for line in file:
        pending += line
        if line.endswith(b"\n") and (form != "csv" or pending.count(b'"') % 2 == 0):
            yield pending
            pending = b""


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
