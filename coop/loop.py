"""The training loop: epochs of SGD over image features, as a generator of what each one did.

SGD with momentum 0.9, weight decay 5e-4 and no Nesterov, as CoOp has it; the rate changes once an
epoch (`coop.schedule`). An epoch's random numbers depend on the seed and the epoch's number alone.
So the state after an epoch is only parameters and momentum, and training that goes on from a state
ends with the vectors of an unbroken run, to the last bit.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coop.learners.base import Batch, Learner
from coop.schedule import learning_rate
from tpt.errors import TptError

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4

ReadEpoch = Callable[[int], Tensor]
"""Unit features (n, E) of all training pictures in an epoch: that epoch's views of them."""


class TrainError(TptError):
    """Training cannot go on; what it has learned so far is kept."""


@dataclass(frozen=True, eq=False)
class State:
    """All that training needs to go on after `epoch` epochs: tensors on the CPU, by name."""

    epoch: int
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Epoch:
    """What one epoch did, and the state after it."""

    number: int  # from 0
    lr: float
    loss: float  # mean over its batches
    terms: dict[str, float]
    accuracy: float  # of its training batches, in [0, 1]
    seconds: float
    state: State


@dataclass(frozen=True)
class LoopSettings:
    """Published defaults are in `coop.recipes`."""

    epochs: int
    lr: float
    batch_size: int
    seed: int


def train(
    learner: Learner,
    read_epoch: ReadEpoch,
    labels: Tensor,
    settings: LoopSettings,
    state: State | None = None,
) -> Iterator[Epoch]:
    """Train, yielding after every epoch.

    Args:
        learner: the method; its parameters are moved in place.
        read_epoch: the pictures' features in an epoch, in the order of `labels`.
        labels: (n,) class numbers.
        settings: how long, how fast, how many at a time.
        state: where an earlier run stopped; default the learner's start.

    Raises:
        TrainError: the loss or the vectors became NaN or infinite. The learner is then back at the
            last good epoch.
    """
    optimizer = torch.optim.SGD(
        learner.parameters.values(), lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    state = _take(learner, optimizer, state)
    for number in range(state.epoch, settings.epochs):
        started = time.perf_counter()
        rate = learning_rate(number, settings.epochs, settings.lr)
        optimizer.param_groups[0]["lr"] = rate
        pool = read_epoch(number)
        sums = _run_epoch(learner, optimizer, pool, labels, settings, number)
        after = _state(learner, optimizer, number + 1)
        numbers = [torch.tensor(sums["loss"]), *after.parameters.values()]
        if not all(bool(tensor.isfinite().all()) for tensor in numbers):
            _take(learner, optimizer, state)
            what = f"loss became {sums['loss']:.3g}"
            if math.isfinite(sums["loss"]):  # the very last step broke the vectors
                what = "vectors became NaN or infinite"
            raise TrainError(
                f"The {what} in epoch {number + 1} of {settings.epochs} "
                f"(learning rate {rate:.3g}). Try a smaller --lr than {settings.lr:g}, or "
                "--precision fp32."
            )
        state = after
        accuracy = sums.pop("accuracy")
        seconds = time.perf_counter() - started
        yield Epoch(number, rate, sums.pop("loss"), sums, accuracy, seconds, state)


def _run_epoch(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    pool: Tensor,
    labels: Tensor,
    settings: LoopSettings,
    number: int,
) -> dict[str, float]:
    """One pass over all pictures; the means of loss, terms and accuracy over its batches."""
    rng = epoch_rng(settings.seed, number)
    order = torch.randperm(len(labels), generator=rng).to(labels.device)
    batches = cut_order(order, settings.batch_size)
    sums: dict[str, Tensor] = {}
    for picked in batches:
        batch = Batch(pool[picked], labels[picked], pool, labels, rng)
        loss = learner.loss(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        right = (loss.logits.argmax(-1) == batch.labels).float().mean()
        for name, value in {"loss": loss.total, **loss.terms, "accuracy": right}.items():
            sums[name] = sums.get(name, 0) + value.detach()
    # Read the sums once an epoch: on a GPU every read waits for the device.
    return {name: float(value) / len(batches) for name, value in sums.items()}


def cut_order(order: Tensor, size: int) -> list[Tensor]:
    """Batches of a shuffled epoch; as published, a short last one is dropped after a full one."""
    parts = list(order.split(size))
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) < size else parts


def epoch_rng(seed: int, number: int) -> torch.Generator:
    """An epoch's own generator, on the CPU."""
    digest = hashlib.sha256(f"{seed}\0epoch\0{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def _state(learner: Learner, optimizer: torch.optim.Optimizer, epoch: int) -> State:
    momentum = {
        name: optimizer.state[tensor]["momentum_buffer"].to("cpu", copy=True)
        for name, tensor in learner.parameters.items()
        if optimizer.state[tensor].get("momentum_buffer") is not None
    }
    moved = {name: t.detach().to("cpu", copy=True) for name, t in learner.parameters.items()}
    return State(epoch, moved, momentum)


@torch.no_grad()
def _take(learner: Learner, optimizer: torch.optim.Optimizer, state: State | None) -> State:
    """Load a state into the learner and its optimiser; return the state they are then in."""
    if state is None:
        return _state(learner, optimizer, 0)
    for name, tensor in learner.parameters.items():
        tensor.copy_(state.parameters[name])
        if name in state.momentum:
            buffer = state.momentum[name].to(tensor.device, copy=True)
            optimizer.state[tensor]["momentum_buffer"] = buffer
    return state
