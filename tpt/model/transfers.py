"""Copy to the device without making the host wait.

A copy from ordinary memory to a CUDA device waits until the device has done all earlier work. A
copy from pinned (page-locked) memory is only queued, and on a stream of its own it runs while the
device computes. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_KINDS = frozenset({"cuda"})  # of devices with streams


def has_streams(device: torch.device) -> bool:
    """Whether the device copies while it computes, and records CUDA graphs."""
    return device.type in _KINDS


def pin(pixels: npt.NDArray[Any], device: torch.device) -> npt.NDArray[Any]:
    """An array of any shape in pinned memory; the array itself for a device without streams."""
    if not has_streams(device):
        return pixels
    pinned: npt.NDArray[Any] = _pin(torch.from_numpy(pixels)).numpy()
    return pinned


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor of any shape on the device, queued on the current stream."""
    if not has_streams(device):
        return tensor.to(device)
    return _pin(tensor).to(device, non_blocking=True)


def _pin(tensor: Tensor) -> Tensor:
    """The tensor in pinned memory; the tensor itself if none is left."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor


class Sender:
    """Sends pictures to a device on a stream of its own. A copy of it makes another stream."""

    def __init__(self) -> None:
        self._side: tuple[torch.device, Any] | None = None

    def __reduce__(self) -> tuple[type[Sender], tuple[()]]:
        return Sender, ()

    def __call__(
        self, arrays: Sequence[npt.NDArray[np.uint8]], device: torch.device
    ) -> list[Tensor]:
        """Pictures (H, W, 3) as tensors on the device; the current stream waits for the copies."""
        tensors = [torch.from_numpy(array) for array in arrays]
        if not has_streams(device):
            return [tensor.to(device) for tensor in tensors]
        gpu: Any = torch.get_device_module(device)
        if self._side is None or self._side[0] != device:
            self._side = device, gpu.Stream(device)
        side, current = self._side[1], gpu.current_stream(device)
        with gpu.stream(side):
            sent = [send(tensor, device) for tensor in tensors]
        current.wait_stream(side)
        for tensor in sent:
            tensor.record_stream(current)  # its memory is not reused before `current` is done
        return sent
