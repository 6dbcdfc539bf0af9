"""What stands around a computation: torch's modes, the process it was forked in, other threads.

A program may call us inside `torch.inference_mode()` or autocast, with another default dtype or
device, from many threads, or in a process that was forked after torch had used several threads.
`steady` makes all of that have no say in the numbers; nothing here changes it for anybody else.
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
_CONVERTERS = {torch.tensor, torch.as_tensor, torch.full}  # what they make depends on the values
_DRAWING = {torch.randn, torch.rand, torch.Tensor.normal_, torch.Tensor.uniform_}
_home: int | None = None  # the process in which this package first computed something


class Defaults(TorchFunctionMode):
    """In this thread new tensors are float32 unless said otherwise, and `rng` draws, if given.

    The default dtype and the default generator belong to the whole process; this leaves both alone.
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
        asks = func in _DRAWING or "generator" in kwargs  # as the functions of torch.nn.init do
        if self.rng is not None and asks and kwargs.get("generator") is None:
            kwargs["generator"] = self.rng
        return func(*args, **kwargs)


def _holds_floats(value: Any) -> bool:
    """Whether a Python float is among nested values; the first list of each level is looked at."""
    while isinstance(value, (list, tuple)):
        if any(isinstance(one, float) for one in value):
            return True
        value = next((one for one in value if isinstance(one, (list, tuple))), None)
    return False


@contextmanager
def steady() -> Iterator[None]:
    """Compute as if the caller had set nothing: no autocast, float32 and CPU as the defaults.

    Also a decorator. Inference mode stays as it is: what outlives the call needs
    `torch.inference_mode(False)` beside it.

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
    """Refuse to compute where torch would wait for threads that a fork left behind.

    Raises:
        ModelError: another process computed first, this one was forked from it, and torch is to use
            several threads.
    """
    global _home
    here = os.getpid()
    _home = here if _home is None else _home
    if _home != here and torch.get_num_threads() > 1:
        raise ModelError(
            f"This process ({here}) was forked from one ({_home}) that had used torch's threads "
            "already, and a fork does not copy threads: torch would wait for them for ever. Start "
            'processes with the method "spawn" or "forkserver" of multiprocessing, or call '
            "torch.set_num_threads(1) first in the forked process."
        )


class Lock:
    """A lock that can be copied, pickled and forked: a copy is a lock of its own, and free."""

    def __init__(self) -> None:
        self._held = threading.Lock(), os.getpid()

    def _own(self) -> threading.Lock:
        """The lock of this process: a thread of another will never free the one it had taken."""
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
        """Take the lock if it is free; whether it was."""
        return self._own().acquire(blocking=False)

    def free(self) -> None:
        if (own := self._own()).locked():  # not in a process that was forked since
            own.release()
