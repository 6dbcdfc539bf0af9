"""Numbers go to the device without making the host wait.

From ordinary memory a copy to a CUDA device waits until the device has done all that was asked of
it before; from page-locked memory it is only asked for, and on a stream of its own it runs beside
what the device computes. A CPU has neither, and nothing is copied there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STREAMING = {"cuda"}
"""Kinds of devices that copy beside what they compute."""


def lock_pages(pixels: npt.NDArray[Any], device: torch.device) -> npt.NDArray[Any]:
    """The same numbers in page-locked memory, where the device copies from such memory."""
    if device.type not in STREAMING:
        return pixels
    locked: npt.NDArray[Any] = _lock(torch.from_numpy(pixels)).numpy()
    return locked


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, in the order of what is asked of the device."""
    if device.type not in STREAMING:
        return tensor.to(device)
    return _lock(tensor).to(device, non_blocking=True)


def _lock(tensor: Tensor) -> Tensor:
    """The same numbers in page-locked memory; where there is none left, the tensor itself."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor


class Sender:
    """Sends large arrays to a device, on a stream of its own. A copy of it makes another stream."""

    def __init__(self) -> None:
        self._aside: tuple[torch.device, Any] | None = None

    def __reduce__(self) -> tuple[type[Sender], tuple[()]]:
        return Sender, ()

    def __call__(
        self, arrays: Sequence[npt.NDArray[np.uint8]], device: torch.device
    ) -> list[Tensor]:
        """The arrays as tensors on the device; what is asked of it next finds them there."""
        tensors = [torch.from_numpy(array) for array in arrays]
        if device.type not in STREAMING:
            return [send(tensor, device) for tensor in tensors]
        gpu: Any = torch.get_device_module(device)
        if self._aside is None or self._aside[0] != device:
            self._aside = device, gpu.Stream(device)
        aside, here = self._aside[1], gpu.current_stream(device)
        with gpu.stream(aside):
            sent = [send(tensor, device) for tensor in tensors]
        here.wait_stream(aside)
        for tensor in sent:
            tensor.record_stream(here)  # its memory is free when `here` has used it
        return sent
