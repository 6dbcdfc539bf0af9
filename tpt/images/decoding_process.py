"""A process that decodes pictures for another one, so that a decoder that crashes ends it alone.

`tpt.streaming._processes` starts it. It imports no torch, and holds about 40 MB and one picture. A
line of JSON and the encoded bytes come on its standard input; a line of JSON and the pixels, or
what is wrong with the picture, go to its standard output. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from tpt.errors import name_failure
from tpt.images.decode import load_encoded


def serve(time_limit: float | None) -> None:
    """Answer until the input ends.

    Args:
        time_limit: seconds of work on one picture; then the system ends this process, even inside
            a decoder.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    while line := source.readline():
        asked = json.loads(line)
        data = source.read(asked["bytes"])
        signal.setitimer(signal.ITIMER_REAL, time_limit or 0)
        try:
            about, pixels = _decode(asked["name"], data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(about).encode() + b"\n")
        answers.write(pixels)
        answers.flush()


def _decode(name: str, data: bytes) -> tuple[dict[str, Any], memoryview]:
    """What is said of a picture, and its pixels; of one that cannot be read, none."""
    try:
        picture = load_encoded(name, data)
    except Exception as error:
        return {"error": name_failure(error, "Decoding")}, memoryview(b"")
    size = picture.pixels.shape[:2]
    about = {"size": size, "digest": picture.digest, "warning": picture.warning}
    return about, picture.pixels.data
