"""A simulated GPU: a torch device that computes on the CPU and enforces a GPU's rules.

A tensor on it holds its numbers on the CPU, where every operator computes them. The device still
refuses what a GPU refuses, and waits where a GPU makes the host wait:

- an operator whose tensors are on both devices fails;
- a number that Python reads, a mask as an index, and a copy from memory that is not page-locked
  make the host wait, and are counted with the line that asked for them;
- a copy on a stream of its own arrives when another stream has waited for that stream;
- a captured graph replays what it recorded, on the memory that it recorded, without any Python;
  during the capture, making the host wait is an error.

So the code for GPUs runs, and its numbers are compared, on a machine without one. The device does
not show how long anything takes, how a GPU rounds, or what its driver accepts.

Import this module before anything is differentiated: it registers the device with torch, and
autograd counts the devices only once.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from tpt.model import transfers

KIND = "simulated"
_FREE = ("empty", "detach", "alias", "_unsafe_view", "_reshape_alias", "lift_fresh", "set_")
_SCALARS = ("_local_scalar_dense", "equal", "_linalg_check_errors")
_COUNTING = ("nonzero", "masked_select", "_unique2")  # the size of the result is asked for
_ROOMS = tuple(Path(__file__).parent.parent / room for room in ("tpt", "coop", "cli"))


@dataclass
class Counts:
    """Counts of launches by operator, and of waits by the line that caused them."""

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)

    def wait(self, name: str) -> None:
        if _now.recording is not None:
            raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
        self.waits[f"{name} ({_find_line()})"] += 1


@dataclass
class _Stream:
    todo: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # copies that have not arrived

    def wait_stream(self, other: _Stream) -> None:
        for there, here in other.todo:
            there.copy_(here)
        other.todo.clear()

    def synchronize(self) -> None:
        self.wait_stream(self)


_DEFAULT = _Stream()


class _OfThread(threading.local):
    """The state of a thread."""

    stream = _DEFAULT


@dataclass
class _Now:
    """The state of this process's simulated GPU."""

    counts: Counts = field(default_factory=Counts)
    locked: dict[int, Any] = field(default_factory=dict)  # page-locked memory, by address
    recording: list[tuple[Any, Any, Any, Any]] | None = None  # of the stream that is captured


_now, _here = _Now(), _OfThread()


class OnGpu(Tensor):
    """A tensor that reports the GPU as its device; `held` has its numbers on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        self: Any = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(KIND, 0),
        )
        self.held = held
        return self

    def __repr__(self, **settings: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.held})"

    def tolist(self) -> Any:
        _now.counts.wait("tolist")
        return self.held.tolist()

    def record_stream(self, stream: Any) -> None:
        _now.counts.events.append("record_stream")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """For what has none of the device's tensors among its arguments: new ones, and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def simulating() -> Iterator[None]:
    """Inside, all threads have a GPU: `torch.device("simulated", 0)`."""
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) copies like others
    try:
        with ExitStack() as stack:
            for place, name, own in _PATCHES:
                stack.enter_context(patch.object(place, name, own))
            with _Mode():
                yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what the device is asked to do inside."""
    kept, _now.counts = _now.counts, Counts()
    try:
        yield _now.counts
    finally:
        _now.counts = kept


def move(module: torch.nn.Module) -> torch.nn.Module:
    """The module, with its weights on the device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                there = weight.detach().to(f"{KIND}:0")
                part._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(f"{KIND}:0")
    return module


def _move_to(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    wanted = (part for part in (*args, *kwargs.values()) if isinstance(part, torch.device))
    return move(self) if any(part.type == KIND for part in wanted) else _to(self, *args, **kwargs)


def _run(self: threading.Thread) -> None:
    with _Mode():  # modes are a thread's own
        _run_thread(self)


_to, _run_thread = torch.nn.Module.to, threading.Thread._bootstrap_inner  # type: ignore[attr-defined]


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    wanted = kwargs.get("device")
    lands = bool(on_gpu) if wanted is None else torch.device(wanted).type == KIND
    if lands and wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    copied = _find_copy(name, args, kwargs, on_gpu, lands)
    _check_places(name, tensors, on_gpu)
    raw_args, raw_kwargs = tree_map(_take, args), tree_map(_take, kwargs)
    if not (on_gpu or lands):
        return func(*args, **kwargs)
    _count(func, name, args, kwargs, tensors, on_gpu, copied)
    made = func(*raw_args, **raw_kwargs)
    if _now.recording is not None and lands:
        _now.recording.append((func, raw_args, raw_kwargs, made))
    if copied is not None and lands and name == "_to_copy" and _here.stream is not _DEFAULT:
        _here.stream.todo.append((made, made.clone()))
        made.fill_(0)  # it has not arrived
    if not lands:
        return made
    own = {id(tensor.held): tensor for tensor in on_gpu}
    return tree_map(lambda leaf: own[id(leaf)] if id(leaf) in own else _put(leaf), made)


def _take(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OnGpu) else leaf


def _put(leaf: Any) -> Any:
    return OnGpu(leaf) if isinstance(leaf, Tensor) else leaf


def _find_copy(name: str, args: Any, kwargs: Any, on_gpu: list[OnGpu], lands: bool) -> str | None:
    """Whether an operator copies between the host and the device: "up", "down" or None."""
    if name == "_to_copy":
        return None if bool(on_gpu) == lands else "up" if lands else "down"
    if name == "copy_" and isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu):
        return "up" if isinstance(args[0], OnGpu) else "down"
    return None


def _check_places(name: str, tensors: list[Tensor], on_gpu: list[OnGpu]) -> None:
    host = [t for t in tensors if not isinstance(t, OnGpu) and t.ndim]
    if on_gpu and host and name not in ("_to_copy", "copy_") and not name.startswith("index"):
        shapes = [tuple(tensor.shape) for tensor in host]
        raise RuntimeError(f"{name}: all tensors are expected on the GPU; on the host are {shapes}")


def _count(
    func: Any,
    name: str,
    args: Any,
    kwargs: Any,
    tensors: list[Tensor],
    on_gpu: list[OnGpu],
    copied: str | None,
) -> None:
    counts = _now.counts
    if copied is not None:
        source = next(t for t in reversed(tensors) if isinstance(t, OnGpu) == (copied == "down"))
        if copied == "down":
            counts.wait("to the host")
        elif not _is_locked(source):
            counts.wait("from memory that is not locked")
        elif not (kwargs.get("non_blocking") or args[2:] == (True,)):
            counts.wait("a copy that blocks")
        else:
            counts.events.append("copy" if _here.stream is _DEFAULT else "copy aside")
    elif name in _SCALARS or name in _COUNTING or (name.startswith("index") and _has_mask(args)):
        counts.wait(name)
    elif name.startswith("index") and len(on_gpu) < len(tensors):
        counts.wait("an index on the host")
    elif not _is_view(func) and not name.startswith(_FREE):
        counts.kernels[name] += 1


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _has_mask(args: tuple[Any, ...]) -> bool:
    masks = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
    return any(isinstance(m, Tensor) and m.dtype == torch.bool for m in masks)


def _lock(tensor: Tensor) -> Tensor:
    if _is_locked(tensor):
        return tensor
    with _disable_current_modes():
        made = tensor.clone()
    _now.locked[made.untyped_storage().data_ptr()] = made
    return made


def _is_locked(tensor: Tensor) -> bool:
    return tensor.numel() == 0 or tensor.untyped_storage().data_ptr() in _now.locked


def _find_line() -> str:
    """The innermost line of the project, as `tpt/images/views.py:144`."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if any(path.is_relative_to(room) for room in _ROOMS):
            return f"{path.relative_to(_ROOMS[0].parent)}:{frame.lineno}"
    return "elsewhere"


# --- what a device's module has: torch.get_device_module(device) ---


class _Graph:
    """A recording of the device's operations, as a CUDA graph is one."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        _now.counts.kernels["graph"] += 1
        for func, args, kwargs, made in self.steps:
            again = func(*args, **kwargs)
            if _is_view(func):
                continue
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


@contextmanager
def _record(graph: _Graph, **settings: Any) -> Iterator[None]:
    _now.recording = graph.steps
    try:
        yield
    finally:
        _now.recording = None


@contextmanager
def _on_stream(stream: _Stream) -> Iterator[None]:
    kept, _here.stream = _here.stream, stream
    try:
        yield
    finally:
        _here.stream = kept


def _register() -> None:
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        sys.exit(f"torch {torch.__version__} takes no device that is written in Python: update it.")
    backend_registration._setup_privateuseone_for_python_backend(KIND)
    module = torch.get_device_module(KIND)
    parts = SimpleNamespace(
        Stream=lambda device=None: _Stream(),
        current_stream=lambda device=None: _here.stream,
        stream=_on_stream,
        CUDAGraph=_Graph,
        graph=_record,
        empty_cache=lambda: None,
    )
    for name, part in vars(parts).items():
        setattr(module, name, part)


_PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (transfers, "_KINDS", frozenset({"cuda", KIND})),
    (Tensor, "pin_memory", _lock),
    (torch.nn.Module, "to", _move_to),
    (threading.Thread, "_bootstrap_inner", _run),  # threads may have a `run` of their own
)
_register()
