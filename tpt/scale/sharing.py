"""Hold a model's weights once per node: arrays in the object store that all its actors map.

Ray shares numpy arrays without a copy, but not torch tensors. So an object is pickled without its
tensors, which become arrays; an actor makes tensors on the mapped memory. They are read-only, as
frozen weights are anyway. Used only between a driver and its own actors: untrusted pickles are
never read.
"""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shared:
    """An object in two parts."""

    body: bytes  # the pickle, with a number for each tensor
    arrays: list[Any]  # bytes (n,) uint8 of each tensor
    facts: list[tuple[Any, ...]]  # (type, shape, axes in memory, is a parameter) of each


def split(value: Any) -> Shared:
    """Take the tensors out of an object."""
    from ray import cloudpickle

    arrays: list[Any] = []
    facts: list[tuple[Any, ...]] = []
    seen: dict[int, int] = {}
    kept: list[Tensor] = []  # keeps ids unique

    class Splitter(cloudpickle.CloudPickler):
        def persistent_id(self, part: Any) -> int | None:
            if not isinstance(part, Tensor):
                return None
            if id(part) not in seen:
                seen[id(part)] = len(arrays)
                kept.append(part)
                plain = part.detach().cpu()
                strides = plain.stride()
                # The order of axes in memory chooses the kernel, and so the last bits.
                axes = sorted(range(plain.ndim), key=lambda axis: -strides[axis])
                flat = plain.permute(axes).contiguous().reshape(-1)
                arrays.append(flat.view(torch.uint8).numpy())
                facts.append((part.dtype, part.shape, axes, isinstance(part, nn.Parameter)))
            return seen[id(part)]

    file = io.BytesIO()
    Splitter(file, protocol=5).dump(value)
    return Shared(file.getvalue(), arrays, facts)


def join(shared: Shared) -> Any:
    """The object again, with its tensors on the arrays' memory."""
    tensors = [_restore(a, f) for a, f in zip(shared.arrays, shared.facts, strict=True)]

    class Joiner(pickle.Unpickler):
        def persistent_load(self, number: int) -> Tensor:
            return tensors[number]

    return Joiner(io.BytesIO(shared.body)).load()


def _restore(array: np.ndarray[Any, Any], facts: tuple[Any, ...]) -> Tensor:
    dtype, shape, axes, is_parameter = facts
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")
        flat = torch.from_numpy(array).view(dtype)
    inverse = [axes.index(axis) for axis in range(len(axes))]
    tensor = flat.reshape([shape[axis] for axis in axes]).permute(inverse)
    return nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
