"""Logistic regression on frozen image features: the baseline that learns no prompt.

Alec Radford et al. (2103.00020), with the search of CoOp's public program: scikit-learn's L-BFGS
with at most 1,000 iterations; C from 1e6, 1e4, ..., 1e-6 by validation accuracy, then eight
halvings of the interval around it on the logarithm of C. We fit unit features of the plain views;
the public program does not normalise them, which shifts the scale of C.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpt.errors import MethodError
from tpt.runs.whole_files import write_whole

SWEEP = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
HALVINGS = 8
ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """logits = f W^T + b."""

    weight: Tensor  # (K, E)
    bias: Tensor  # (K,)
    strength: float  # C, the inverse of the penalty

    def logits(self, features: Tensor) -> Tensor:
        """(n, E) unit features to (n, K)."""
        return features.cpu() @ self.weight.T + self.bias


def fit_linear_probe(
    features: Tensor, labels: Tensor, val_features: Tensor, val_labels: Tensor, count: int
) -> LinearProbe:
    """Fit on (n, E) features with the published search for C on validation features.

    Args:
        features, labels: training pictures, at least one of every class.
        val_features, val_labels: what C is chosen on; where empty, C is 1.
        count: K.

    Raises:
        MethodError: scikit-learn is not installed, or a class has no picture.
    """
    if len(labels.unique()) < count:
        raise MethodError(
            f"A linear probe needs a picture of each of the {count} classes, but "
            f"{len(labels.unique())} have one that can be read."
        )

    def right(probe: LinearProbe) -> float:
        return float((probe.logits(val_features).argmax(-1) == val_labels.cpu()).float().mean())

    if not len(val_labels):
        return _fit(features, labels, 1.0)
    peak = SWEEP[int(np.argmax([right(_fit(features, labels, c)) for c in SWEEP]))]
    low, high = np.log10(peak) - 1, np.log10(peak) + 1
    best = _fit(features, labels, peak)
    for _ in range(HALVINGS):
        left, other = _fit(features, labels, 10**low), _fit(features, labels, 10**high)
        middle = (low + high) / 2
        if right(left) < right(other):
            best, low = other, middle
        else:
            best, high = left, middle
    return best


def _fit(features: Tensor, labels: Tensor, strength: float) -> LinearProbe:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MethodError(
            "The linear probe needs scikit-learn. Install it: pip install 'tpt-runtime[train]'."
        ) from error
    model: Any = LogisticRegression(C=float(strength), max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # published: stop at the limit
        # With one picture a class it takes the labels for numbers.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        model.fit(features.cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if len(weight) == 1:  # two classes: scikit-learn gives one row, of their difference
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return LinearProbe(weight, bias, float(strength))


def save_linear_probe(
    probe: LinearProbe, path: str | os.PathLike[str], facts: dict[str, Any]
) -> None:
    """Write weight (K, E) and bias (K,) as .safetensors, whole or not at all.

    Raises:
        MethodError: another suffix.
        OutputError: the disk refused.
    """
    if Path(path).suffix != ".safetensors":
        raise MethodError(f'A linear probe is saved as .safetensors, but "{path}" is no such name.')
    head = {"format": "tpt-linear-probe", "format_version": 1, "C": probe.strength, **facts}
    meta = {key: json.dumps(value, ensure_ascii=False) for key, value in head.items()}
    tensors = {"weight": probe.weight.contiguous(), "bias": probe.bias.contiguous()}
    write_whole(Path(path), safetensors_bytes(tensors, metadata=meta), "linear probe")
