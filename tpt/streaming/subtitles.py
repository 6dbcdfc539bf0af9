"""Labels of a film as subtitles: SubRip (.srt) and WebVTT (.vtt).

Frames that follow one another with the same label in the same shot are one subtitle, which stands
until the next frame that was looked at. A frame that failed shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tpt.runs.journal import open_lines
from tpt.streaming.records import Record

FORMS = ("srt", "vtt")


@dataclass
class Cues:
    """Turns records, one after the other, into subtitles."""

    form: str
    _open: list[Record] = field(default_factory=list)  # of the subtitle that is not ended
    _count: int = 0
    _step: float = 1.0  # seconds from a frame to the next

    def add(self, record: Record) -> Iterator[str]:
        """The subtitle that ends with this record, if one does."""
        if record.time is None:
            return
        before = self._open[-1] if self._open else None
        goes_on = before is not None and before.time is not None and record.time > before.time
        if before is not None and before.time is not None and goes_on:
            self._step = record.time - before.time
        if before is not None and (not goes_on or _label(before) != _label(record)):
            yield from self._end(record.time if goes_on else None)
        if record.predictions:
            self._open.append(record)
            del self._open[1:-1]  # the first and the last say all
        elif before is not None:
            yield from self._end(record.time if goes_on else None)

    def close(self) -> Iterator[str]:
        """The last subtitle, which stands as long as the step before it."""
        yield from self._end(None)

    def _end(self, time: float | None) -> Iterator[str]:
        if not self._open:
            return
        first, last = self._open[0], self._open[-1]
        self._open.clear()
        end = time if time is not None else (last.time or 0.0) + self._step
        self._count += 1
        mark = "." if self.form == "vtt" else ","
        span = f"{_clock(first.time or 0.0, mark)} --> {_clock(end, mark)}"
        yield f"{self._count}\n{span}\n{self._text(first)}\n"

    def _text(self, record: Record) -> str:
        first = record.predictions[0]
        text = " ".join(first.label.split())
        if self.form == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        else:
            text = text.replace("-->", "->")
        return text if first.score is None else f"{text} {first.score:.0%}"


@contextmanager
def write_subtitles(path: str, form: str) -> Iterator[Callable[[Record], None]]:
    """A function that takes the records of a film; the file is whole at the end.

    Raises:
        OutputError: the disk refused.
    """
    cues = Cues(form)
    header = "WEBVTT\n" if form == "vtt" else None
    with open_lines(path, str, append=False, header=header, can_resume=False) as put:

        def write(record: Record) -> None:
            for cue in cues.add(record):
                put(cue)

        yield write
        for cue in cues.close():
            put(cue)


def _label(record: Record) -> tuple[object, ...]:
    first = record.predictions[0] if record.predictions else None
    return (record.shot, first and first.index)


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"
