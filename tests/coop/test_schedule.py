"""Epochs and learning rates are the published ones, value by value."""

from __future__ import annotations

import itertools

import pytest
import torch

from coop.schedule import coop_epochs, learning_rate


def trace_with_torch(epochs: int, lr: float) -> list[float]:
    """The public program's schedule from torch's own parts.

    A constant 1e-5 in the first epoch; then torch's cosine over all `epochs`, which starts to count
    behind the warm-up.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trace = [1e-5]
    while len(trace) < epochs:
        trace.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    return trace


@pytest.mark.parametrize("lr", [2e-3, 0.01])
@pytest.mark.parametrize("epochs", [1, 2, 10, 50, 100, 200])
def test_every_epochs_rate_is_the_public_programs(epochs: int, lr: float) -> None:
    trace = [learning_rate(epoch, epochs, lr) for epoch in range(epochs)]
    assert trace == pytest.approx(trace_with_torch(epochs, lr), rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("epochs", [1, 50, 200])
def test_the_warm_up_epoch_has_its_own_rate(epochs: int) -> None:
    assert learning_rate(0, epochs, 2e-3) == 1e-5
    assert learning_rate(0, epochs, 0.5) == 1e-5  # constant, whatever the peak


def test_the_peak_comes_right_after_the_warm_up() -> None:
    assert learning_rate(1, 50, 2e-3) == 2e-3


def test_the_rates_of_the_public_log() -> None:
    """The last of 50 epochs at 2e-3, as the public program prints it; half of T is half way."""
    assert learning_rate(49, 50, 2e-3) == pytest.approx(7.885e-6, abs=5e-10)
    assert learning_rate(26, 50, 2e-3) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize("epochs", [50, 100, 200])
def test_the_rate_falls_and_never_reaches_zero(epochs: int) -> None:
    trace = [learning_rate(epoch, epochs, 2e-3) for epoch in range(1, epochs)]
    assert all(later < earlier for earlier, later in itertools.pairwise(trace))
    assert trace[-1] > 0


@pytest.mark.parametrize(
    ("shots", "epochs"),
    [(1, 50), (2, 100), (3, 100), (4, 100), (5, 200), (8, 200), (16, 200), (None, 200)],
)
def test_epochs_by_shots(shots: int | None, epochs: int) -> None:
    assert coop_epochs(shots) == epochs
