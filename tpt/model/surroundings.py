"""Shield a computation from its surroundings: torch's modes, forks, other threads.

A program may call us inside `torch.inference_mode()` or autocast, with another default dtype or
device, from many threads, or in a process that was forked after torch had used several threads.
`steady` keeps all of these from changing the numbers, and changes none of them for the caller.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tpt.errors import ModelError

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand, torch.linspace}
_CONVERTERS = {torch.tensor, torch.as_tensor, torch.full}  # their dtype depends on the values
_DRAWING = {torch.randn, torch.rand, torch.Tensor.normal_, torch.Tensor.uniform_}
_home: int | None = None  # the process in which this package first computed something


class Defaults(TorchFunctionMode):
    """In this thread, new tensors default to float32 and random numbers to `rng`, if given.

    torch's default dtype and generator belong to the whole process; both stay unchanged.
    """

    def __init__(self, rng: torch.Generator | None = None) -> None:
        super().__init__()
        self.rng = rng

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        floats = func in _FACTORIES or (
            func in _CONVERTERS and _holds_floats([*args, *kwargs.values()])
        )
        if floats and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        draws = func in _DRAWING or "generator" in kwargs  # as the functions of torch.nn.init do
        if self.rng is not None and draws and kwargs.get("generator") is None:
            kwargs["generator"] = self.rng
        return func(*args, **kwargs)


def _holds_floats(value: Any) -> bool:
    """Whether nested values contain a Python float; only the first list of each level is read."""
    while isinstance(value, (list, tuple)):
        if any(isinstance(one, float) for one in value):
            return True
        value = next((one for one in value if isinstance(one, (list, tuple))), None)
    return False


@contextmanager
def steady() -> Iterator[None]:
    """Compute without the caller's settings: no autocast, float32 and CPU as the defaults.

    Also a decorator. Inference mode stays as it is: tensors that outlive the call need
    `torch.inference_mode(False)` too.

    Raises:
        ModelError: in a forked process, where torch's threads would hang.
    """
    check_process()
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.empty(0).device.type != "cpu":  # torch 2.6 names no default of a `with` block
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(Defaults())
        yield


def check_process() -> None:
    """Refuse to compute in a fork, where torch would wait for threads that were not copied.

    Raises:
        ModelError: the parent process has computed, and torch is to use several threads.
    """
    global _home
    here = os.getpid()
    _home = _home or here
    if _home != here and torch.get_num_threads() > 1:
        raise ModelError(
            f"This process ({here}) was forked from one ({_home}) that had used torch's threads "
            "already, and a fork does not copy threads: torch would wait for them forever. Start "
            'processes with the method "spawn" or "forkserver" of multiprocessing, or call '
            "torch.set_num_threads(1) first in the forked process."
        )


class Lock:
    """A lock that can be copied, pickled and forked; the copy is a free lock of its own."""

    def __init__(self) -> None:
        self._held = threading.Lock(), os.getpid()

    def _own(self) -> threading.Lock:
        """The lock of this process; a fork gets a new one, as nobody there would free the old."""
        if self._held[1] != os.getpid():
            self._held = threading.Lock(), os.getpid()
        return self._held[0]

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()

    def __enter__(self) -> None:
        self._own().acquire()

    def __exit__(self, *error: object) -> None:
        self._own().release()

    def take(self) -> bool:
        """Take the lock if it is free; returns whether it was."""
        return self._own().acquire(blocking=False)

    def free(self) -> None:
        """Release the lock, unless this process was forked since it was taken."""
        if (own := self._own()).locked():
            own.release()
