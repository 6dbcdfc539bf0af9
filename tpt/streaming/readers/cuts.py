"""Find the cuts between the shots of a film, from frames of 32 x 32 pixels.

A cut changes two things at once: the colours (half the L1 distance of histograms with 4 levels a
channel, a share between 0 and 1) and the pixels (their mean difference). A pan changes the pixels
but few colours, and noise changes neither in a frame this small. Both changes must exceed their
limits, and the colours must change three times as much as in the last frames, so that a fast pan is
no cut. `benchmarks/cuts.py` measures it. It misses fades, which have no single frame, and a cut to
a picture of the same colours.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

COLOURS = 0.16  # share of the histogram that moves
PLACES = 10.0  # mean difference of pixels, in grey levels
_BEFORE = 8  # how many of the last frames show the usual change


class CutFinder:
    """Decides for each frame of a film whether a shot begins with it."""

    def __init__(self) -> None:
        self._last: Any = None
        self._usual: deque[float] = deque(maxlen=_BEFORE)

    def add(self, frame: Any) -> bool:
        """Whether the next frame (H, W, 3) uint8 begins a shot; the first one does."""
        last, self._last = self._last, frame
        if last is None:
            return True
        changed = float(np.abs(_histogram(frame) - _histogram(last)).sum()) / 2
        usual = float(np.median(self._usual)) if self._usual else 0.0
        self._usual.append(changed)
        moved = float(np.abs(frame.astype(np.int16) - last).mean())
        if moved < PLACES or changed < max(COLOURS, 3 * usual):
            return False
        self._usual.clear()
        return True


def _histogram(frame: Any) -> Any:
    levels = (frame >> 6).reshape(-1, 3).astype(np.int64)
    counts = np.bincount(levels @ np.array([16, 4, 1]), minlength=64)
    return counts / counts.sum()
