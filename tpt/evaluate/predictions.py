"""predictions.jsonl: one line a picture and result set, written as it is made, read back by set.

The order of the lines follows from the plan, so what a killed run left is the first part of what an
unbroken run writes. `find_done` checks that line by line before anything is added, and takes away a
last line that was cut off.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from tpt.errors import MethodError, OutputError
from tpt.evaluate.settings_diff import find_change
from tpt.evaluate.walks import Walk
from tpt.streaming.output import Target, cannot_write, check_settings, check_target, start_afresh

Line = dict[str, Any]
NAME = "predictions.jsonl"
_CONCLUSIONS = (
    *("results.json", "report.html", "tables.md", "tables.tex"),
    *("transfer.json", "heatmap.png"),
)  # what is made of the predictions, by `conclude` and `conclude_transfer`


@dataclass(frozen=True)
class WalkProgress:
    """What an earlier run left of one walk."""

    lines: int = 0
    failed: int = 0  # of these, pictures without a prediction
    start: int = 0  # byte of the file at which the walk's lines begin
    complete: bool = False


def open_folder(folder: str, resume: bool, overwrite: bool, dry: bool = False) -> Target:
    """Check DIR before a model is loaded for it; `begin` makes it, once there is a run to keep.

    Args:
        dry: nothing will be written, so that it is no matter whether DIR can be made.

    Raises:
        MethodError: options that do not go together.
        OutputError: DIR is a file, cannot be made, or holds a run and neither `resume` nor
            `overwrite` was asked for.
    """
    if not folder:
        raise MethodError("--output is empty: expected a folder. Give --output . for this one.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OutputError(
            f'The output "{folder}" is a file: expected a folder for the predictions, the tables '
            "and the report. Name another one."
        )
    target = Target(os.path.join(folder, NAME), "jsonl", 0)
    check_target(target, resume, overwrite)
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not dry and not (os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)):
        raise OutputError(
            f'The output "{folder}" cannot be written: "{above}" is '
            + ("not open to this user" if os.path.isdir(above) else "no folder")
            + ". Choose another place with --output."
        )
    return target


def begin(
    target: Target,
    settings: dict[str, Any],
    environment: dict[str, Any],
    walks: Sequence[Walk],
    resume: bool,
) -> list[WalkProgress]:
    """Start the file afresh, or find what an earlier run of the same settings has done.

    Returns:
        For each walk what is done of it.

    Raises:
        OutputError: the file was made with other settings or of other pictures; it is damaged; it
            cannot be written; it lies in a set, whose class it would be when the run goes on.
    """
    if resume and target.is_begun:
        change = _find_change(target, settings)
        if change:
            raise OutputError(
                f'"{target.path}" was made with other settings or pictures ({change}). Use the '
                "same, another --output, or --overwrite."
            )
        check_settings(target, settings)
        return find_done(target.path, walks)
    folder = os.path.dirname(target.path)
    check_outside(folder, walks)
    try:
        os.makedirs(folder or os.curdir, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if target.is_begun:
        _drop_conclusions(folder)
    start_afresh(target, settings, environment)
    return [WalkProgress() for _ in walks]


def _drop_conclusions(folder: str) -> None:
    """Remove what was made of the predictions that are about to go: it says nothing of the new."""
    for name in _CONCLUSIONS:
        path = os.path.join(folder, name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_write(path, error) from error


def _find_change(target: Target, settings: dict[str, Any]) -> str:
    """What differs from the settings of the earlier run, in words; "" where they are damaged."""
    try:
        before = json.loads(target.sidecar.read_text(encoding="utf-8"))["settings"]
        return find_change(before, json.loads(json.dumps(settings)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""  # `check_settings` tells


def check_outside(folder: str, walks: Sequence[Walk]) -> None:
    """Refuse a folder inside a set of class folders: the set could not be read again."""
    inner = os.path.join(os.path.realpath(folder), "")
    for walk in walks:
        outer = os.path.join(os.path.realpath(walk.set.path), "")
        is_files = any(isinstance(sample.source, str) for sample in walk.set.samples[:1])
        if is_files and os.path.isdir(outer) and inner.startswith(outer):
            raise OutputError(
                f'The output "{folder}" lies in the set "{walk.set.path}", where it would be taken '
                "for a class without pictures. Choose another place with --output."
            )


def find_done(path: str, walks: Sequence[Walk]) -> list[WalkProgress]:
    """What the file holds of each walk; a last line that is cut off is taken away.

    Raises:
        OutputError: a line is not the one that belongs there.
    """
    found: list[WalkProgress] = []
    try:
        with open(path, "rb") as file:
            lines = _whole_lines(file)
            end = 0
            for walk in walks:
                start, count, failed, complete = end, 0, 0, True
                for expected in _expect(walk):
                    line = next(lines, None)
                    if line is None:
                        complete = False
                        break
                    failed += _check_line(line, expected, path, sum(d.lines for d in found) + count)
                    count, end = count + 1, end + len(line)
                found.append(WalkProgress(count, failed, start, complete))
            if next(lines, None) is not None:
                raise _foreign(path, "more lines than these pictures make")
        if end < os.path.getsize(path):
            os.truncate(path, end)
    except OSError as error:
        raise cannot_write(path, error) from error
    return found


def drop_begun(path: str, part: WalkProgress) -> WalkProgress:
    """Take the lines of a walk that was broken off, the last there is, away again."""
    if part.complete or not part.lines:
        return part
    try:
        os.truncate(path, part.start)
    except OSError as error:
        raise cannot_write(path, error) from error
    return WalkProgress(start=part.start)


def _expect(walk: Walk) -> Iterator[tuple[str, str]]:
    """(set, key) of the lines of a walk, in order."""
    for sample in walk.set.samples:
        for _, head in walk.heads():
            if head.label(sample) >= 0:
                yield head.name, sample.key


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    return (line for line in file if line.endswith(b"\n"))


def _check_line(line: bytes, expected: tuple[str, str], path: str, before: int) -> bool:
    """Whether the line, which has to be the expected one, is an error."""
    try:
        told = json.loads(line)
        same = (told["set"], told["key"]) == expected
        failed = "error" in told
        if not failed:
            told["methods"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(path, f"line {before + 1}, which is not a prediction") from error
    if not same:
        raise _foreign(path, f"line {before + 1}, {told['key']!r} of {told['set']!r}")
    return failed


def _foreign(path: str, what: str) -> OutputError:
    return OutputError(
        f'"{path}" cannot be continued: it holds {what}, so it was not made of these pictures, or '
        "pictures were added or taken away since. Use --overwrite to start again, or another "
        "--output."
    )


class PredictionWriter:
    """Appends lines, each flushed. Use as a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> PredictionWriter:
        try:
            self._file = open(self.path, "ab")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self

    def write(self, line: Line) -> None:
        """Write and flush one line.

        Raises:
            OutputError: the disk is full or gone; the lines before are whole.
        """
        assert self._file is not None
        # ASCII: file names may hold what UTF-8 cannot.
        text = json.dumps(line, separators=(",", ":")) + "\n"
        try:
            self._file.write(text.encode("ascii"))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error, can_resume=True) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as failure:
            if error is None:  # what could not be flushed was already reported by write
                raise cannot_write(self.path, failure, can_resume=True) from failure


SetPlaces = Mapping[str, "array[int]"]


def index_sets(path: str) -> dict[str, array[int]]:
    """For each set the bytes at which its lines begin, found in one pass: 8 bytes a line."""
    places: dict[str, array[int]] = {}
    place = 0
    with open(path, "rb") as file:
        for line in file:
            places.setdefault(_set_of(line), array("Q")).append(place)
            place += len(line)
    return places


def read_set(path: str, name: str, places: SetPlaces) -> Iterator[Line]:
    """The lines of one set, in order, one in memory at a time; no other set's line is read."""
    with open(path, "rb") as file:
        for place in places.get(name, ()):
            file.seek(place)
            yield json.loads(file.readline())


def _set_of(line: bytes) -> str:
    """The set of a line that `PredictionWriter` wrote, without reading all of it."""
    name: str = json.JSONDecoder().raw_decode(line.decode("ascii"), len('{"set":'))[0]
    return name
