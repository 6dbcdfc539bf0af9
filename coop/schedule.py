"""The number of epochs by shots, and the learning rate of every epoch.

CoOp (2109.01134), section 4 and the public configurations: one warm-up epoch at a constant 1e-5,
then lr(e) = lr * (1 + cos(pi * (e - 1) / T)) / 2 with T the number of epochs. The cosine counts
from the first epoch after the warm-up but over all T, so it never quite reaches zero.
"""

from __future__ import annotations

import math

WARMUP_LR = 1e-5
WARMUP_EPOCHS = 1


def learning_rate(epoch: int, epochs: int, lr: float) -> float:
    """The rate of epoch `epoch` (from 0) of `epochs`, whose peak is `lr`."""
    if epoch < WARMUP_EPOCHS:
        return WARMUP_LR
    return lr * (1 + math.cos(math.pi * (epoch - WARMUP_EPOCHS) / epochs)) / 2


def coop_epochs(shots: int | None) -> int:
    """CoOp's published number of epochs: 50, 100 or 200 for 1, for up to 4, for more shots."""
    if shots is None or shots > 4:
        return 200
    return 50 if shots == 1 else 100
