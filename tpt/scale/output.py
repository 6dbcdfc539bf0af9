"""Write the records of a cluster as a folder of Parquet parts.

    out/settings.json        every setting that made the records
    out/part-000000.parquet  records, `RECORDS_A_PART` each
    out/open.jsonl           the records since the last part, a line each, flushed as they come

A killed run leaves whole parts and whole lines, and `--resume` continues after them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpt.errors import MethodError, OutputError
from tpt.runs.journal import RESUME_OR_OVERWRITE, check_same, open_lines, read_lines, read_settings
from tpt.runs.lock import hold, writing
from tpt.runs.whole_files import write_whole
from tpt.streaming.output import FinishedRecords
from tpt.streaming.record_parquet import read_parquet, write_parquet
from tpt.streaming.records import to_line

RECORDS_A_PART = 10_000


@dataclass(frozen=True)
class Parts:
    """The output folder of a run on a cluster."""

    folder: str

    @property
    def settings(self) -> Path:
        return Path(self.folder, "settings.json")

    @property
    def lines(self) -> str:
        return os.path.join(self.folder, "open.jsonl")

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse, before a model is loaded, a folder that must not be written.

        Raises:
            MethodError: both `resume` and `overwrite`, or no folder.
            OutputError: it holds a run, without `resume` or `overwrite`.
        """
        if resume and overwrite:
            raise MethodError(RESUME_OR_OVERWRITE)
        if self.folder == "-" or os.path.isfile(self.folder):
            raise MethodError("--ray writes a folder of Parquet files. Give --output FOLDER.")
        if self.settings.exists() and not (resume or overwrite):
            raise OutputError(
                f'"{self.folder}" holds a run already. Use --resume to go on with it, --overwrite '
                "to start again, or another --output."
            )

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder, and be the only run that writes it.

        Raises:
            OutputError: another run does; the disk refused.
        """
        with writing(self.folder):
            os.makedirs(self.folder, exist_ok=True)
        with hold(str(self.settings)):
            yield

    def prepare(self, about: dict[str, Any], resume: bool) -> FinishedRecords:
        """Begin, or return what an earlier run has finished.

        Raises:
            OutputError: it was made with other settings; a part cannot be read.
        """
        if resume and self.settings.exists():
            before = read_settings(self.settings, self.folder)
            check_same(before, about["settings"], self.folder)
            return self._read_done()
        for old in [*self._list_parts(), self.lines]:
            Path(old).unlink(missing_ok=True)
        text = json.dumps(about, indent=1) + "\n"
        write_whole(self.settings, text.encode(), "settings")
        return FinishedRecords(frozenset(), 0)

    @contextmanager
    def write(self, about: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
        """A function that writes a record; at the end all records are in parts.

        Raises:
            OutputError: the disk refused.
        """
        held = [json.loads(line) for line in self._read_open()]
        number = len(self._list_parts())

        def pack() -> None:
            nonlocal number
            write_parquet(os.path.join(self.folder, f"part-{number:06}.parquet"), held, about)
            number += 1
            held.clear()
            os.truncate(self.lines, 0)

        def write(record: dict[str, Any]) -> None:
            put(to_line(record))
            held.append(record)
            if len(held) >= RECORDS_A_PART:
                pack()

        with open_lines(self.lines, str) as put:
            yield write
        if held:
            pack()
        os.unlink(self.lines)

    def _list_parts(self) -> list[str]:
        names = sorted(os.listdir(self.folder))
        parts = [n for n in names if n.startswith("part-") and n.endswith(".parquet")]
        return [os.path.join(self.folder, name) for name in parts]

    def _read_done(self) -> FinishedRecords:
        paths: set[str] = set()
        failed = 0
        for part in self._list_parts():
            for record in read_parquet(part):
                paths.add(record["path"])
                failed += "error" in record
        fresh = []
        for line in self._read_open():
            record = json.loads(line)
            if record["path"] not in paths:  # else the run was killed just after it wrote a part
                fresh.append(line)
                paths.add(record["path"])
                failed += "error" in record
        if os.path.exists(self.lines):
            Path(self.lines).write_bytes(b"".join(fresh))
        return FinishedRecords(frozenset(paths), failed)

    def _read_open(self) -> list[bytes]:
        return list(read_lines(self.lines)) if os.path.exists(self.lines) else []
