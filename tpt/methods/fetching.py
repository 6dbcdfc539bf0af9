"""Fetch a batch's numbers from the device together: one wait a batch, instead of one a number.

A copy to the host waits for everything launched on the device before. So the numbers of a batch's
records are packed into one tensor of bytes, bit for bit. On a CPU that is a small copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tpt.methods.base import Adapted

_STAYING = ("vectors", "shift", "gradient")  # large, and not in records


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the host, bit for bit, after one wait."""
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    flat = [tensors[place].detach().reshape(-1).view(torch.uint8) for place in order]
    # Wide numbers come first, so that each number begins at a multiple of its width.
    packed = torch.cat(flat).cpu()
    parts = dict(zip(order, packed.split([part.numel() for part in flat]), strict=True))
    return [
        parts[place].view(tensor.dtype).view(tensor.shape) for place, tensor in enumerate(tensors)
    ]


def fetch_outcome(out: Adapted, *flags: Tensor) -> tuple[Adapted, list[list[bool]]]:
    """The outcome of B images, and flags (B,), on the host after one wait.

    `vectors`, `shift` and `gradient` stay on the device.
    """
    names = [k for k, v in vars(out).items() if v is not None and k not in _STAYING]
    found = fetch([*(getattr(out, name) for name in names), *flags])
    flag_lists = [flag.tolist() for flag in found[len(names) :]]
    return replace(out, **dict(zip(names, found, strict=False))), flag_lists


def find_sound(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, N, E) with zeros for NaN and infinite numbers, and (B,) True if there were none.

    A method can then adapt all images at once, and the images that overflowed are found when the
    outcome is fetched.
    """
    return features.nan_to_num(0.0, 0.0, 0.0), features.isfinite().flatten(1).all(1)
