"""Frames of films, cameras and pipes as pictures, with their times, numbers and shots.

    for record in tpt.stream(tpt.video("film.mp4", every=0.5), method): ...
    film.mp4#frame=125     the record of frame 125; the first frame is 0

Every frame is decoded to find the cuts, also between the frames that are taken. A live source does
not wait: a new frame replaces one that was not taken yet, which counts as dropped. It needs PyAV
(extra `video`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import numpy as np

from tpt.errors import MethodError, SourceError, describe_error
from tpt.streaming.items import Item, Sampling, fail_item
from tpt.streaming.readers.cuts import CutFinder
from tpt.streaming.readers.extras import import_extra

EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ogv"),
    *(".wmv", ".flv", ".3gp"),
)
_LIVE = ("rtsp://", "rtsps://", "rtmp://", "udp://", "srt://")


def is_video(name: str) -> bool:
    """Whether a file or an address is a film, judged by its name."""
    return name.lower().endswith(EXTENSIONS) or is_camera(name)


def is_camera(name: str) -> bool:
    """Whether an address is a live source, judged by its protocol."""
    return name.lower().startswith(_LIVE)


@dataclass(eq=False)
class Video:
    """The frames of a film, to iterate over once. `dropped` counts frames that came too fast."""

    name: str  # the file or the address, and its name in the records
    sampling: Sampling
    file: Any = None  # an open file, if `name` is not a path
    live: bool = False
    dropped: int = 0

    def __iter__(self) -> Iterator[Item]:
        frames = self._decode()
        return _latest(frames, self) if self.live else frames

    def _decode(self) -> Iterator[Item]:
        av = import_extra("av", "video", f"The film {self.name!r}")
        number = 0
        try:
            with ExitStack() as stack:
                film = stack.enter_context(closing(self._open(av, stack)))
                stream = film.streams.video[0]
                stream.thread_type = "AUTO"
                start = float((stream.start_time or 0) * stream.time_base)
                cuts, due, begins = CutFinder(), 0.0, True
                for frame in film.decode(stream):
                    time = float(frame.time) - start if frame.time is not None else number / 25
                    small = frame.reformat(width=32, height=32, format="rgb24").to_ndarray()
                    begins = cuts.add(small) or begins
                    if self.sampling.takes(number, time, due, bool(frame.key_frame)):
                        due = self.sampling.next_due(time)
                        yield self._make(frame, number, time, begins)
                        begins = False
                    number += 1
            if not number:
                raise ValueError("it has no frames")
        except SourceError:
            raise
        except Exception as error:  # FFmpeg's errors are of many kinds
            yield fail_item(
                self.name,
                f"{self.name!r} cannot be decoded after {number:,} frames "
                f"({describe_error(error)}): expected a film. Check the file.",
            )

    def _open(self, av: Any, stack: ExitStack) -> Any:
        if is_camera(self.name) and self.file is None:
            return av.open(self.name)
        file = self.file or stack.enter_context(Path(self.name).open("rb"))  # noqa: SIM115
        # A film must not make the decoder open other files or addresses.
        return av.open(file, options={"protocol_whitelist": "none"})

    def _make(self, frame: Any, number: int, time: float, begins: bool) -> Item:
        size = frame.width * frame.height * 3
        key = f"{self.name}#frame={number}"
        return Item(key, partial(_to_pixels, frame), size, round(time, 6), number, begins)


def video(
    source: Any,
    every: float | None = None,
    frames: int | None = None,
    keyframes: bool = False,
    live: bool | None = None,
) -> Video:
    """The frames of a film as pictures for `tpt.stream`.

    Args:
        source: a path, a camera's address (rtsp://...) or an open binary file.
        every: seconds between the frames that are taken; default 1, or every frame if live.
        frames: take every n-th frame instead.
        keyframes: take key frames instead.
        live: drop frames that come faster than they are predicted; default: only for a camera.

    Raises:
        MethodError: more than one of every, frames and keyframes, or one out of its range.
    """
    is_file = callable(getattr(source, "read", None))
    name = str(getattr(source, "name", "film") if is_file else source)
    live = is_camera(name) if live is None else live
    sampling = Sampling(every, frames, keyframes)
    if sampling == Sampling() and not live:
        sampling = Sampling(every=1.0)
    return Video(name, sampling, source if is_file else None, live)


def read_every(text: str | None) -> float | None:
    """The seconds of `--every`, written as 0.5 or 0.5s.

    Raises:
        MethodError: `text` is not such a number.
    """
    try:
        return None if text is None else float(text.strip().removesuffix("s"))
    except ValueError:
        raise MethodError(f'--every is a number of seconds such as 0.5s; got "{text}".') from None


def _to_pixels(frame: Any) -> Any:
    pixels = frame.to_ndarray(format="rgb24")
    turns = int(getattr(frame, "rotation", 0)) // 90  # counterclockwise, as phones store it
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _latest(frames: Iterator[Item], film: Video) -> Iterator[Item]:
    """The newest frame, each time one is asked for; a thread decodes them."""
    change = Condition()
    waiting: list[Item] = []
    ended: list[BaseException | None] = []
    closed = False

    def decode() -> None:
        failure: BaseException | None = None
        try:
            for item in frames:
                with change:
                    if closed:
                        return
                    if waiting:
                        film.dropped += 1
                        began = waiting.pop().begins  # the cut is not lost with its frame
                        item = replace(item, begins=item.begins or began)
                    waiting.append(item)
                    change.notify()
        except BaseException as error:
            failure = error
        finally:
            with change:
                ended.append(failure)
                change.notify()

    Thread(target=decode, name="tpt-film", daemon=True).start()
    try:
        while True:
            with change:
                change.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                item = waiting.pop()
            yield item
        if ended[0] is not None:
            raise ended[0]
    finally:
        closed = True
