"""Numbers come from the device together: one wait a batch, in place of one for every number.

A copy to the host waits for all that was asked of the device before, so what a batch's records say
is packed into one tensor of bytes. On a CPU that is a small copy; the bits are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tpt.methods.base import Adapted

_STAYING = ("vectors", "shift", "gradient")  # large, and in no record


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the host, to the last bit, after one wait."""
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    flat = [tensors[place].detach().reshape(-1).view(torch.uint8) for place in order]
    # Wide numbers come first, so that each one's bytes begin at a multiple of its width.
    packed = torch.cat(flat).cpu()
    parts = dict(zip(order, packed.split([part.numel() for part in flat]), strict=True))
    return [
        parts[place].view(tensor.dtype).view(tensor.shape) for place, tensor in enumerate(tensors)
    ]


def fetch_outcome(out: Adapted, *flags: Tensor) -> tuple[Adapted, list[list[bool]]]:
    """What records say of B images, on the host, and flags (B,) of theirs, after one wait.

    `vectors`, `shift` and `gradient` stay where they are.
    """
    names = [k for k, v in vars(out).items() if v is not None and k not in _STAYING]
    found = fetch([*(getattr(out, name) for name in names), *flags])
    told = [flag.tolist() for flag in found[len(names) :]]
    return replace(out, **dict(zip(names, found, strict=False))), told


def find_sound(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, N, E) with zeros for what is not finite, and (B,) whether all of it was.

    A method may then work on all images at once, and whose image tower overflowed is known when
    the outcome is fetched.
    """
    return features.nan_to_num(0.0, 0.0, 0.0), features.isfinite().flatten(1).all(1)
