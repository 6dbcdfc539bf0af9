"""CUDA graphs: record the kernels of a computation once a shape, then launch them in one call.

The text side of a short class list is hundreds of kernels, which a GPU runs faster than the host
can launch them. A recording launches all of them at once, in its own memory. Its first result is
compared with the plain computation. If recording fails or the numbers differ, a warning appears and
the computation goes on without recordings.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tpt.model.surroundings import Lock

Work = Callable[[Tensor], Tensor]

_MOST = 4  # shapes that are recorded, each with its own memory
_SEEN = 2  # times that a shape must come before it is recorded; the last batch's comes once
_WARM_UP = 2  # runs in which libraries choose their kernels and allocate memory
_TOLERANCE = 1e-3  # of the largest number


class Recorder:
    """Records on one device, on its own stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._gpu: Any = torch.get_device_module(device)
        self._stream = self._gpu.Stream(device)

    def __reduce__(self) -> tuple[type[Recorder], tuple[torch.device]]:
        return Recorder, (self.device,)

    @contextmanager
    def on_side_stream(self) -> Iterator[None]:
        """Launch on this stream, as the forward pass of a recorded backward pass must be."""
        here = self._gpu.current_stream(self.device)
        self._stream.wait_stream(here)
        with self._gpu.stream(self._stream):
            yield
        here.wait_stream(self._stream)

    def record(self, work: Work, like: Tensor) -> Work:
        """`work` as one launch, for tensors with the shape and dtype of `like`."""
        held = torch.zeros_like(like)
        with self.on_side_stream():
            for _ in range(_WARM_UP):
                work(held)
        graph = self._gpu.CUDAGraph()
        # Other threads may pin memory meanwhile, which must not end this recording.
        with self._gpu.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            made = work(held)

        def replay(x: Tensor) -> Tensor:
            held.copy_(x)
            graph.replay()
            return made.clone()

        return replay


class Replayed:
    """`work`, recorded for shapes that come repeatedly; only for calls without gradients."""

    def __init__(self, work: Work, recorder: Recorder | None) -> None:
        self._work = work
        self._recorder = recorder
        self._lock = Lock()  # recordings share their memory
        self._seen: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, Work] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_seen": Counter(), "_recorded": {}}

    def __call__(self, x: Tensor) -> Tensor:
        if self._recorder is not None and not torch.is_inference_mode_enabled():
            with self._lock:
                replay = self._find(x)
                if replay is not None:
                    return replay(x)
        return self._work(x)

    def forget(self) -> None:
        """Free the recordings and make no more."""
        with self._lock:
            self._recorder, self._recorded = None, {}

    def _find(self, x: Tensor) -> Work | None:
        """The recording for the shape of `x`, which may be made now, or None."""
        if self._recorder is None:
            return None
        if x.shape in self._recorded:
            return self._recorded[x.shape]
        self._seen[x.shape] += 1
        if self._seen[x.shape] <= _SEEN or len(self._recorded) == _MOST:
            return None
        try:
            replay = self._recorder.record(self._work, x)
            wrong = _differ(replay(x), self._work(x))
        except RuntimeError as error:
            wrong = str(error).split("\n")[0]
        if wrong:
            self._recorder, self._recorded = None, {}
            warnings.warn(
                f"Recording a CUDA graph of the text side failed ({wrong}); the run goes on "
                "without. Its numbers are not affected.",
                stacklevel=5,
            )
            return None
        self._recorded[x.shape] = replay
        return replay


def _differ(found: Tensor, expected: Tensor) -> str:
    """How a recording's numbers differ from the plain computation's, "" if they do not."""
    most = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    return "" if most <= _TOLERANCE else f"its numbers are off by {most:.2g} of the largest"
