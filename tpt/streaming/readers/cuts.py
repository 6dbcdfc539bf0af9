"""Where one shot of a film ends and the next begins, from frames of 32 x 32 pixels.

A cut changes the picture at once in two ways: its colours (half the L1 distance of histograms of 4
levels a channel, a share between 0 and 1) and its places (mean difference of pixels). A pan changes
places with few new colours, noise neither once the frame is small. Both must be above their limits,
and the colours above three times what the last frames had, so a fast pan is no cut.
`benchmarks/cuts.py` measures it. It finds neither fades, which have no frame to name, nor a cut to
a picture of the same colours.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

COLOURS = 0.16  # share of the histogram that moves
PLACES = 10.0  # grey levels
_BEFORE = 8  # frames that say what is usual


class CutFinder:
    """Says of each frame of a film whether a shot begins with it."""

    def __init__(self) -> None:
        self._last: Any = None
        self._usual: deque[float] = deque(maxlen=_BEFORE)

    def add(self, frame: Any) -> bool:
        """Whether a frame (H, W, 3) uint8, the next one, begins a shot; the first one does."""
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
