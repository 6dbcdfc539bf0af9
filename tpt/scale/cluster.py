"""Connect to Ray, and size the pool of actors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tpt.errors import MethodError, describe_error
from tpt.streaming.readers.extras import import_extra

_DEFAULTS = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # we show the progress
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "180",  # a busy machine takes its time
}


@dataclass(frozen=True)
class Pool:
    """The actors that predict.

    Args:
        least: the smallest number of actors; default: as many as have room.
        most: the largest number, while work waits; default: as many as have room.
        cpus: CPUs (threads) of each.
        gpus: GPUs of each; 0.5 puts two on a GPU. None: one if the cluster has GPUs, else none.

    Raises:
        MethodError: a number out of its range.
    """

    least: int | None = None
    most: int | None = None
    cpus: float = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        least = 1 if self.least is None else self.least
        if least < 1 or (self.most is not None and self.most < least):
            raise MethodError(
                f"A pool has at least one actor, and its maximum is not below its minimum; got "
                f"{self.least} to {self.most}."
            )
        if self.cpus < 0 or (self.gpus or 0) < 0:
            raise MethodError("An actor has 0 or more CPUs and GPUs.")

    def fit(self, resources: dict[str, float], units: int) -> Pool:
        """The pool with every number set, for a cluster's resources and the units of work."""
        there = resources.get("GPU", 0.0)
        gpus = self.gpus if self.gpus is not None else float(there > 0)
        cpus = min(self.cpus, max(resources.get("CPU", 1.0), 1.0))
        rooms = [resources.get("CPU", 1.0) / cpus] if cpus else []
        rooms += [there / gpus] if gpus else []
        room = max(1, int(min(rooms, default=1.0)))
        most = min(self.most or max(room, self.least or 1), units)
        return Pool(min(self.least or room, most), most, cpus, gpus)


def read_pool(text: str | None, cpus: float, gpus: float | None) -> Pool:
    """The pool of `--actors N` or `--actors MIN:MAX`.

    Raises:
        MethodError: it is neither.
    """
    if text is None:
        return Pool(None, None, cpus, gpus)
    least, colon, most = text.partition(":")
    if not least.isdecimal() or (colon and not most.isdecimal()):
        raise MethodError(f'--actors is a number or MIN:MAX, for example 2:8; got "{text}".')
    return Pool(int(least), int(most or least), cpus, gpus)


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster during the block; an existing connection is used and kept.

    Args:
        address: "local" (all cores and GPUs of this machine), "auto" (the cluster of this machine)
            or the address of a cluster.

    Raises:
        SourceError: Ray is not installed.
        MethodError: the cluster cannot be reached.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    ray = import_extra("ray", "scale", "--ray")
    import_extra("pyarrow", "scale", "--ray")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises many kinds
        raise MethodError(
            f'No Ray cluster answers at "{address}" ({describe_error(error)}). Start one with `ray '
            "start --head`, or use --ray local."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
