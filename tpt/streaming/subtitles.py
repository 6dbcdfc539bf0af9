"""Labels of a film as subtitles: SubRip (.srt) and WebVTT (.vtt).

Consecutive frames with the same label in the same shot become one subtitle. It is shown until the
next frame that was read. A frame that failed has no subtitle.
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
    _open: list[Record] = field(default_factory=list)  # first and last frame of the open subtitle
    _count: int = 0
    _step: float = 1.0  # seconds between the last two frames

    def add(self, record: Record) -> Iterator[str]:
        """The subtitle that ends at this record, if any."""
        if record.time is None:
            return
        last = self._open[-1] if self._open else None
        if last is not None and last.time is not None:
            follows = record.time > last.time
            if follows:
                self._step = record.time - last.time
            if not follows or _label(last) != _label(record):
                yield from self._end(record.time if follows else None)
        if record.predictions:
            self._open.append(record)
            del self._open[1:-1]

    def close(self) -> Iterator[str]:
        """The last subtitle, which is shown for one more step."""
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
    """A function that writes the records of a film; the file is complete after the block.

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
