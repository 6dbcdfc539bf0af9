"""The type in which a model multiplies: what `auto` means on a device, and TF32 only on request.

`auto` is bf16 if the device has matrix units for it (NVIDIA from Ampere on, CPUs with AVX512-BF16
or AMX), fp16 on older GPUs with fp16 units, else fp32. fp16 applies to the image tower alone,
because gradients through a text tower would vanish in it. Residual sums, norms and softmax of the
shared-prefix text path are float32 in every precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tpt.errors import ModelError

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
_AMPERE, _VOLTA = 8, 7  # compute capabilities


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision to use on a device: "fp32", "tf32", "bf16" or "fp16".

    Raises:
        ModelError: unknown, or not available on the device.
    """
    if precision not in PRECISIONS:
        raise ModelError(
            f'Unknown precision "{precision}": expected {", ".join(PRECISIONS[:-1])} or '
            f"{PRECISIONS[-1]}."
        )
    if precision == "fp16" and device.type == "cpu":
        raise ModelError(
            "Precision fp16 is not available on a CPU. Use bf16 (about twice as fast as fp32 on "
            "processors that have it) or fp32."
        )
    if precision == "tf32" and device.type != "cuda":
        raise ModelError(
            f'Precision tf32 needs an NVIDIA GPU, and the device is "{device}". Use bf16 or fp32.'
        )
    return precision if precision != "auto" else _choose(device)


def _choose(device: torch.device) -> str:
    if device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)[0]
        return "bf16" if generation >= _AMPERE else "fp16" if generation >= _VOLTA else "fp32"
    return "bf16" if device.type == "cpu" and has_bf16_units() else "fp32"


@cache
def has_bf16_units() -> bool:
    """Whether Linux says that this CPU multiplies bf16 itself (AVX512-BF16 or AMX)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextmanager
def multiplying(precision: str, device: torch.device) -> Iterator[None]:
    """Multiply float32 on a GPU exactly, or in TF32 for the precision "tf32".

    torch's switches belong to the whole process, and its default is TF32 in convolutions; they are
    restored at the end.
    """
    if device.type != "cuda":
        yield
        return
    values: tuple[Any, Any]
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    name, values = "allow_tf32", (False, True)
    if hasattr(torch.backends.cudnn, "conv"):  # from torch 2.9 on
        switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
        name, values = "fp32_precision", ("ieee", "tf32")
    kept = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, values[precision == "tf32"])
        yield
    finally:
        for switch, value in zip(switches, kept, strict=True):
            setattr(switch, name, value)
