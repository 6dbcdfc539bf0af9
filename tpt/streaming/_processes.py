"""Decode in separate processes: a crash, or a process that is killed, costs one picture.

A thread that wants a picture decoded takes an idle process, or starts one, and waits for the
answer. `concurrent.futures` gives up its whole pool when a process dies, and both it and
`multiprocessing` run the caller's main program again in every process. So we start plain ones.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Lock
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
"""Seconds for starting a process, which a thread waits besides the decoding itself."""

_LAST_WORDS = 5.0
"""Seconds that a process has to exit after its pipe has closed."""


class Decoders:
    """`decoders(source)` decodes a picture in a process: a `Picture`, or a `Failure`.

    Use it in a `with` block, whose end kills the processes.

    Args:
        time_limit: seconds after which a process that works on a picture is ended; None: never.

    Raises:
        MethodError: the system has no POSIX timers.
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

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            running, idle = [*self._running], [*self._idle]
        for process in running:
            process.kill()
        for process in running:
            process.wait()
        for process in idle:  # a busy one's pipes are closed by the thread that uses it
            _close(process)

    def __call__(self, source: Any) -> Picture | Failure:
        """Decode what `load_picture` takes; pixels in memory need no process.

        Raises:
            ImageError: the source cannot be read.
        """
        encoded = read_source(source)
        if encoded is None:
            return load_picture(source)
        process = self._take()
        try:
            outcome = _ask(process, *encoded)
        except (OSError, ValueError, KeyError, TypeError):  # a broken pipe, or a broken answer
            return self._bury(process, encoded[0])
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return outcome
        _close(process)
        return outcome

    def _take(self) -> subprocess.Popen[bytes]:
        """An idle process that still runs, or a new one."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
                self._running.discard(process)
                _close(process)
            if self._closed:
                raise RuntimeError("the run has ended")
            given = json.dumps([[p for p in sys.path if isinstance(p, str)], self.time_limit])
            command = [sys.executable, "-I", "-c", PROGRAM, given]
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._running.add(started)
        return started

    def _bury(self, process: subprocess.Popen[bytes], name: str) -> Failure:
        """End a process that stopped answering; the failure says how it ended."""
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
    """Decoding processes for "processes", None for "threads".

    Raises:
        MethodError: another word, or a system without POSIX timers.
    """
    if decode_in not in ("threads", "processes"):
        raise MethodError(f'decode_in must be "threads" or "processes"; got {decode_in!r}.')
    return Decoders(time_limit) if decode_in == "processes" else None


def _ask(process: subprocess.Popen[bytes], name: str, data: bytes) -> Picture | Failure:
    """Send an encoded picture and wait for its pixels, or for the reason why there are none.

    Raises:
        OSError: the process has ended.
        ValueError: the answer is not JSON.
    """
    questions: Any = process.stdin
    answers: Any = process.stdout
    questions.write(json.dumps({"name": name, "bytes": len(data)}).encode() + b"\n")
    questions.write(data)
    questions.flush()
    answer = json.loads(answers.readline())  # raises ValueError for an empty line
    if "error" in answer:
        return Failure(*answer["error"])
    height, width = answer["size"]
    pixels = np.empty((height, width, 3), np.uint8)
    if answers.readinto(pixels.data.cast("B")) != pixels.nbytes:
        raise OSError("the pixels are cut short")
    return Picture(pixels, answer["digest"], answer["warning"])


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # unsent bytes of a broken pipe
            pipe.close()  # type: ignore[union-attr]
