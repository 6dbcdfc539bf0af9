"""A run's output lines in a file, which a later run can continue.

Every line is flushed when it is written, so a killed run leaves whole lines and at most one broken
line at the end, which `read_lines` cuts off. `FILE.settings.json` beside FILE holds every setting
that made it, so that no run continues with others. Only one run at a time may write the file
(`tpt.runs.lock`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tpt.errors import MethodError, OutputError
from tpt.runs.lock import cannot_write, check_free, hold, writing
from tpt.runs.settings_diff import Settings, Wording, describe_change
from tpt.runs.whole_files import staged
from tpt.text import read_json

T = TypeVar("T")
RESUME_OR_OVERWRITE = (
    "--resume continues the output and --overwrite starts it again. Give one of them."
)


@dataclass(frozen=True)
class Journal:
    """A file of lines that a later run can continue, and the settings beside it."""

    path: str

    @property
    def sidecar(self) -> Path:
        return Path(f"{self.path}.settings.json")

    @property
    def is_begun(self) -> bool:
        return os.path.exists(self.path) and os.path.getsize(self.path) > 0

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse, before a model is loaded, a file that must not be written.

        Raises:
            MethodError: both `resume` and `overwrite`.
            OutputError: another run writes it; it exists, without `resume` or `overwrite`.
        """
        if resume and overwrite:
            raise MethodError(RESUME_OR_OVERWRITE)
        check_free(self.path)
        self._check_begun(resume, overwrite)

    def _check_begun(self, resume: bool, overwrite: bool) -> None:
        if self.is_begun and not (resume or overwrite):
            raise OutputError(
                f'"{self.path}" exists already. Use --resume to go on with it, --overwrite to '
                "start again, or another --output."
            )

    @contextmanager
    def claim(self, resume: bool, overwrite: bool) -> Iterator[None]:
        """Be the only run that writes the file.

        Raises:
            OutputError: as `check`, which is repeated: another run may have ended since.
        """
        with hold(self.path):
            self._check_begun(resume, overwrite)
            yield

    def begin(self, settings: Settings, environment: Settings) -> None:
        """Write the settings, whole or not at all, and empty the file.

        Args:
            settings: everything that decides the lines; must be the same to resume.
            environment: other facts worth keeping (device, versions).

        Raises:
            OutputError: the disk refused.
        """
        content = {"settings": settings, "run": environment}
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        with writing(str(self.sidecar)), staged(self.sidecar, text.encode(), sync=False):
            # Lines are removed first: old lines must never be beside new settings.
            if self.is_begun:
                os.truncate(self.path, 0)

    def read_settings(self) -> dict[str, Any]:
        """The settings of the run that began the file.

        Raises:
            OutputError: as the function `read_settings`.
        """
        return read_settings(self.sidecar, self.path)


def read_settings(file: Path, output: str) -> dict[str, Any]:
    """The settings in the settings file of an output.

    Raises:
        OutputError: the file is missing or damaged.
    """
    try:
        return dict(read_json(file)["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f'"{output}" cannot be continued: its settings file "{file}" is missing or damaged, so '
            "nobody knows how it was made. Start again with --overwrite."
        ) from error


def check_same(
    before: Settings,
    now: Settings,
    path: str,
    made: str = "made with other settings",
    *,
    same: str = "the same settings",
    wording: Wording | None = None,
) -> None:
    """Refuse to continue an output that was begun with other settings.

    Raises:
        OutputError: names what changed.
    """
    change = describe_change(*_without_names(before, json.loads(json.dumps(now))), wording)
    if change:
        raise OutputError(
            f'"{path}" was {made} ({change}). Use {same}, another --output, or --overwrite.'
        )


def _without_names(before: Settings, now: Settings) -> tuple[Settings, Settings]:
    """Both settings without the model's names, if the weights' digests are the same.

    A run of an earlier version has no digest; then the names decide.
    """
    old, new = before.get("weights"), now.get("weights")
    known = old is not None and new is not None
    ignored = {"weights"} if not known else {"model", "pretrained"} if old == new else set()
    first, second = ({k: v for k, v in one.items() if k not in ignored} for one in (before, now))
    return first, second


# --- lines ---


@contextmanager
def open_lines(
    path: str,
    encode: Callable[[T], str],
    *,
    append: bool = True,
    header: str | None = None,
    can_resume: bool = True,
    refuse: Callable[[str, OSError, bool], OutputError] = cannot_write,
) -> Iterator[Callable[[T], None]]:
    """A function that writes and flushes one line, in UTF-8 whatever the locale.

    Args:
        path: a file, or "-" for standard output.
        encode: makes a line, without its line break, of an item; bytes of file names that are not
            UTF-8 are kept.
        append: continue the file; else it is emptied.
        header: the first line of an empty file.
        can_resume: whether a message may promise --resume.
        refuse: makes the error of a disk that refuses, here or in the function.

    Raises:
        OutputError: the disk is full or gone; the earlier lines are whole.
    """

    @contextmanager
    def refusing(can_resume: bool) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # `| head` has read enough
            raise
        except OSError as error:
            raise refuse(path, error, can_resume) from error

    def put(line: str) -> None:
        file.write((line + "\n").encode("utf-8", "surrogateescape"))
        file.flush()

    def write(item: T) -> None:
        with refusing(can_resume):
            put(encode(item))

    if path == "-":
        sys.stdout.flush()
    with refusing(False):
        file = sys.stdout.buffer if path == "-" else open(path, "ab" if append else "wb")  # noqa: SIM115
    try:
        with refusing(can_resume):
            if header is not None and not (append and file.tell()):
                put(header)
        yield write
    except BaseException:
        with suppress(OSError):  # a failed flush was already reported
            if path != "-":
                file.close()
        raise
    if path != "-":
        with refusing(can_resume):
            file.close()


def read_lines(
    path: str,
    is_whole: Callable[[bytes], bool] = lambda line: True,
    lacks_end: Callable[[bytes], bool] = lambda rest: False,
) -> Iterator[bytes]:
    """The lines of a file; a broken last line is cut off when all are read.

    Args:
        is_whole: whether bytes that end in a line break are a line; in CSV a line may contain one.
        lacks_end: whether the bytes after the last line break are a line, whose break is then
            written.

    Raises:
        OutputError: the file cannot be read or cut.
    """
    line, end = b"", 0
    with writing(path):
        with open(path, "rb") as file:
            for part in file:
                line += part
                if part.endswith(b"\n") and is_whole(line):
                    end += len(line)
                    yield line
                    line = b""
        if line and lacks_end(line):
            with open(path, "ab") as file:
                file.write(b"\n")
            yield line + b"\n"
        elif line:
            os.truncate(path, end)
