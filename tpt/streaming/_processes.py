"""Decoding in processes of its own: one that crashes, or is ended, costs the picture it is at.

A thread that wants a picture decoded takes a process that is idle, or starts one, and waits for the
answer. `concurrent.futures` gives up its whole pool when a process dies, and both it and
`multiprocessing` run the caller's main program again in every process; so these are plain ones.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np

from tpt.errors import MethodError
from tpt.images.decode import Picture, load_picture, read_source
from tpt.streaming._ahead import late
from tpt.streaming._stages import describe_failure
from tpt.streaming.records import Failure

PROGRAM = """
import json, sys
sys.path[:], limit = json.loads(sys.argv[1])
from tpt.images.decoding_process import serve
serve(limit)
"""

_START = 10.0
"""Seconds that a thread may wait for a process besides the work on its picture."""

_LAST_WORDS = 5.0
"""Seconds in which a process whose answer has ended ends too."""


class Decoders:
    """`decoders(source)` -> `Picture`, or a `Failure`, from a process; to be used in a `with`.

    Args:
        time_limit: seconds of work on a picture after which its process is ended; None: never.

    Raises:
        MethodError: a system whose processes cannot be ended by a timer.
    """

    def __init__(self, time_limit: float | None) -> None:
        if not hasattr(signal, "setitimer"):
            raise MethodError(
                "Decoding in processes needs a system with POSIX timers, which Windows has not. "
                'Leave --decode-in out, or use "threads".'
            )
        self.time_limit = time_limit
        self.longest_wait = None if time_limit is None else time_limit + _START
        self._lock = Lock()
        self._closed = False
        self._running: set[subprocess.Popen[bytes]] = set()
        self._idle: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End the processes, at work or not."""
        with self._lock:
            self._closed = True
            running, idle = [*self._running], [*self._idle]
        for process in running:
            process.kill()
        for process in running:
            process.wait()
        for process in idle:  # the pipes of the others are closed by the threads that use them
            _close(process)

    def __call__(self, source: Any) -> Picture | Failure:
        """Decode what `load_picture` takes; what is in memory as pixels needs no process.

        Raises:
            ImageError: it cannot be read.
        """
        encoded = read_source(source)
        if encoded is None:
            return load_picture(source)
        process = self._take()
        try:
            told = _ask(process, *encoded)
        except (OSError, ValueError, KeyError, TypeError):  # the pipe broke, or no sense came
            return self._bury(process, encoded[0])
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return told
        _close(process)
        return told

    def _take(self) -> subprocess.Popen[bytes]:
        """An idle process that lives, or a new one."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                self._running.discard(process)
                _close(process)
            if self._closed:
                raise RuntimeError("the run has ended")
            words = json.dumps([[p for p in sys.path if isinstance(p, str)], self.time_limit])
            command = [sys.executable, "-I", "-c", PROGRAM, words]
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._running.add(started)
        return started

    def _bury(self, process: subprocess.Popen[bytes], name: str) -> Failure:
        """End what is left of a process, and say how it ended."""
        try:
            code = process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        _close(process)
        if code == -signal.SIGALRM and self.time_limit is not None:
            return describe_failure(late(self.time_limit), "Decoding")
        signals = {-each.value: each.name for each in signal.Signals}
        how = f"by {signals.get(code, code)}" if code < 0 else f"with exit code {code}"
        return Failure(
            "ImageError",
            f"{name} cannot be decoded: the process that decoded it was ended {how}. Convert it to "
            "PNG or JPEG with another program, or leave it out.",
        )


def find_decoders(decode_in: str, time_limit: float | None) -> Decoders | None:
    """What decodes in processes, or None for threads.

    Raises:
        MethodError: another word, or a system that has no such processes.
    """
    if decode_in not in ("threads", "processes"):
        raise MethodError(f'decode_in must be "threads" or "processes"; got {decode_in!r}.')
    return Decoders(time_limit) if decode_in == "processes" else None


def _ask(process: subprocess.Popen[bytes], name: str, data: bytes) -> Picture | Failure:
    """Send an encoded picture and wait for what becomes of it.

    Raises:
        OSError: the process has ended.
        ValueError: what came is no answer.
    """
    questions: Any = process.stdin
    answers: Any = process.stdout
    questions.write(json.dumps({"name": name, "bytes": len(data)}).encode() + b"\n")
    questions.write(data)
    questions.flush()
    told = json.loads(answers.readline())  # nothing is no JSON
    if "error" in told:
        return Failure(*told["error"])
    height, width = told["size"]
    pixels = np.empty((height, width, 3), np.uint8)
    if answers.readinto(pixels.data.cast("B")) != pixels.nbytes:
        raise OSError("it is cut short")
    return Picture(pixels, told["digest"], told["warning"])


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # of what was not sent yet
            pipe.close()  # type: ignore[union-attr]
