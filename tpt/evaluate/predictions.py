"""predictions.jsonl: one line a picture and result set, written as it is made, read back by set.

The plan decides the order of the lines, so a killed run leaves the first part of what an unbroken
run writes. `find_done` checks that line by line before anything is added.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpt.errors import MethodError, OutputError
from tpt.evaluate.walks import Walk
from tpt.runs.journal import Journal, check_same, open_lines, read_lines
from tpt.runs.lock import writing
from tpt.runs.settings_diff import compare_names

Line = dict[str, Any]
NAME = "predictions.jsonl"
SetPlaces = Mapping[str, "array[int]"]
"""For each set the bytes at which its lines begin."""

_MADE_FROM_LINES = (
    *("results.json", "report.html", "tables.md", "tables.tex"),
    *("transfer.json", "heatmap.png", "outside.jsonl"),
)
_WORDING = {
    "pictures": lambda old, new: f"{old:,} pictures then, {new:,} now",
    "sha256": lambda old, new: "its pictures have other names or other classes",
    "classes": lambda old, new: f"classes {compare_names(old, new)}",
}


@dataclass(frozen=True)
class WalkProgress:
    """How far an earlier run came in one walk."""

    lines: int = 0
    failed: int = 0  # lines without a prediction
    start: int = 0  # byte of the file at which the walk's lines begin
    complete: bool = False


def open_folder(folder: str, resume: bool, overwrite: bool, dry: bool = False) -> Journal:
    """Check DIR before a model is loaded for it; `claim_folder` makes it.

    Args:
        dry: nothing will be written, so do not check that DIR can be made.

    Raises:
        MethodError: options that do not go together.
        OutputError: DIR is a file, cannot be made, is being written by another run, or holds a run
            and neither `resume` nor `overwrite` is set.
    """
    if not folder:
        raise MethodError("--output is empty: expected a folder. Give --output . for this one.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OutputError(
            f'The output "{folder}" is a file: expected a folder for the predictions, the tables '
            "and the report. Name another one."
        )
    journal = Journal(os.path.join(folder, NAME))
    journal.check(resume, overwrite)
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not dry and not (os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)):
        raise OutputError(
            f'The output "{folder}" cannot be written: "{above}" is '
            + ("not open to this user" if os.path.isdir(above) else "no folder")
            + ". Choose another place with --output."
        )
    return journal


@contextmanager
def claim_folder(
    journal: Journal, walks: Sequence[Walk], resume: bool, overwrite: bool
) -> Iterator[None]:
    """Make DIR and be the only run that writes there; a new DIR that stays empty is removed.

    Raises:
        OutputError: as `Journal.claim`; DIR cannot be made, or lies in a set.
    """
    folder = os.path.dirname(journal.path)
    check_outside(folder, walks)
    is_new = not os.path.exists(folder)
    with writing(folder):
        os.makedirs(folder or os.curdir, exist_ok=True)
    try:
        with journal.claim(resume, overwrite):
            yield
    finally:
        with suppress(OSError):
            if is_new:
                os.rmdir(folder)


def begin(
    journal: Journal,
    settings: dict[str, Any],
    environment: dict[str, Any],
    walks: Sequence[Walk],
    resume: bool,
) -> list[WalkProgress]:
    """Start the file afresh, or find what an earlier run with the same settings has done.

    Returns:
        The progress of each walk.

    Raises:
        OutputError: the file was made with other settings or pictures, is damaged, or cannot be
            written.
    """
    if resume and journal.is_begun:
        before, other = journal.read_settings(), "made with other settings or pictures"
        check_same(before, settings, journal.path, other, same="the same", wording=_WORDING)
        return find_done(journal.path, walks)
    if journal.is_begun:
        _drop_results(os.path.dirname(journal.path))
    journal.begin(settings, environment)
    return [WalkProgress() for _ in walks]


def _drop_results(folder: str) -> None:
    """Remove what was made from the old predictions: it would not match the new ones."""
    for name in _MADE_FROM_LINES:
        path = Path(folder, name)
        with writing(str(path)):
            path.unlink(missing_ok=True)


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


# --- lines ---


def write_predictions(path: str) -> AbstractContextManager[Callable[[Line], None]]:
    """A function that appends a line, in ASCII: file names may hold what UTF-8 cannot."""
    return open_lines(path, json.JSONEncoder(separators=(",", ":")).encode)


def find_done(path: str, walks: Sequence[Walk]) -> list[WalkProgress]:
    """What the file holds of each walk; a broken last line is removed.

    Raises:
        OutputError: a line is not the expected one.
    """
    done: list[WalkProgress] = []
    lines = enumerate(read_lines(path), start=1)
    end = 0
    for walk in walks:
        start, count, failed, complete = end, 0, 0, True
        for expected in _expect(walk):
            number, line = next(lines, (0, b""))
            if not line:
                complete = False
                break
            failed += _check_line(line, expected, path, number)
            count, end = count + 1, end + len(line)
        done.append(WalkProgress(count, failed, start, complete))
    if next(lines, None) is not None:
        raise _foreign(path, "more lines than these pictures make")
    return done


def drop_begun(path: str, part: WalkProgress) -> WalkProgress:
    """Remove the lines of the last walk, if it was broken off."""
    if part.complete or not part.lines:
        return part
    with writing(path):
        os.truncate(path, part.start)
    return WalkProgress(start=part.start)


def _expect(walk: Walk) -> Iterator[tuple[str, str]]:
    """(set, key) of the lines of a walk, in order."""
    for sample in walk.set.samples:
        for _, result_set in walk.result_sets():
            if result_set.label(sample) >= 0:
                yield result_set.name, sample.key


def _check_line(line: bytes, expected: tuple[str, str], path: str, number: int) -> bool:
    """Refuse a line other than the expected one; return whether it holds an error."""
    try:
        found = json.loads(line)
        same = (found["set"], found["key"]) == expected
        failed = "error" in found
        if not failed:
            found["methods"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(path, f"line {number}, which is not a prediction") from error
    if not same:
        raise _foreign(path, f"line {number}, {found['key']!r} of {found['set']!r}")
    return failed


def _foreign(path: str, what: str) -> OutputError:
    return OutputError(
        f'"{path}" cannot be continued: it holds {what}, so it was not made of these pictures, or '
        "pictures were added or taken away since. Use --overwrite to start again, or another "
        "--output."
    )


def index_sets(path: str) -> dict[str, array[int]]:
    """For each set the bytes at which its lines begin, found in one pass; 8 bytes a line."""
    places: dict[str, array[int]] = {}
    place = 0
    with open(path, "rb") as file:
        for line in file:
            places.setdefault(_set_of(line), array("Q")).append(place)
            place += len(line)
    return places


def read_set(path: str, name: str, places: SetPlaces) -> Iterator[Line]:
    """The lines of one set, in order, one at a time; lines of other sets are not read."""
    with open(path, "rb") as file:
        for place in places.get(name, ()):
            file.seek(place)
            yield json.loads(file.readline())


def _set_of(line: bytes) -> str:
    """The set of a line; of one that `write_predictions` wrote, only the start is parsed."""
    start = b'{"set":'
    if not line.startswith(start):  # another program has rewritten the file
        return str(json.loads(line)["set"])
    return json.JSONDecoder().raw_decode(line.decode("utf-8"), len(start))[0]
