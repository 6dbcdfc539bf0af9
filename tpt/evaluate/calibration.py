"""How scores are read: fit a temperature on labelled pictures, a threshold on known ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.data.labelled_sets import Sample
from tpt.errors import MethodError
from tpt.evaluate.image_scores import ImageScores
from tpt.evaluate.metrics import SetMetrics, measure_set
from tpt.evaluate.runner import load_sample
from tpt.images.views import Views
from tpt.methods import Adapted, Method
from tpt.streaming.batches import adapt_batch
from tpt.streaming.loading import decode_ahead
from tpt.streaming.pipeline import cut_batches

LARGEST = 1e3  # of the temperature and of its inverse

Tell = Callable[[int, int], None]
"""Called with (pictures done, failed so far)."""


@dataclass(frozen=True, eq=False)
class Collected:
    """A method's logits for some labelled pictures."""

    logits: Tensor  # (n, K)
    labels: Tensor  # (n,)
    failed: tuple[tuple[str, str], ...]  # (picture, why it has no logits)


def collect_logits(
    samples: Sequence[Sample],
    method: Method,
    views: Views,
    *,
    batch_size: int | None = None,
    num_workers: int = 2,
    tell: Tell | None = None,
) -> Collected:
    """The logits of every readable picture, in order, before any temperature.

    Raises:
        MethodError: not one picture can be read.
    """
    size = batch_size or method.batch_size
    rows, labels, failed = [], [], []
    with (
        method.serving(),
        closing(decode_ahead(samples, num_workers, size, load_sample)) as loaded,
    ):
        for batch in cut_batches(loaded, size):
            good = [item for item in batch if item.picture is not None]
            outcomes = adapt_batch(good, method, views) if good else {}
            for item in batch:
                outcome, sample = item.error or outcomes[item.index], samples[item.index]
                if not isinstance(outcome, Adapted):
                    failed.append((sample.key, outcome.message))
                elif not outcome.is_finite:
                    failed.append((sample.key, "it gave NaN or infinite numbers"))
                else:
                    rows.append(outcome.logits.double().cpu())
                    labels.append(sample.label)
            if tell:
                tell(len(rows) + len(failed), len(failed))
    if not rows:
        raise MethodError(
            f"None of the {len(samples)} pictures gave a prediction ({failed[0][1]})."
            if failed
            else "There are no pictures to calibrate on. Name a folder that holds some."
        )
    return Collected(torch.stack(rows), torch.tensor(labels), tuple(failed))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the least negative log-likelihood, from 1/1000 to 1000.

    As a function of the inverse temperature s, the mean of -log softmax(s logits)_y is convex, with
    the derivative mean(E_p[logits] - logits_y). A bisection on log s finds where it is zero.

    Args:
        logits: (n, K).
        labels: (n,).
    """
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    low, high = -math.log(LARGEST), math.log(LARGEST)
    for _ in range(60):
        middle = (low + high) / 2
        p = (math.exp(middle) * logits).softmax(-1)
        if float(((p * logits).sum(-1) - own).mean()) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def choose_threshold(confidence: Tensor, share: float) -> float:
    """A threshold with at most this share of known confidences (n,) below it.

    It lies half-way between the last confidence that is rejected and the first that is not, so
    that other rounding (another batch, another machine) rejects the same pictures. Where none is
    to be rejected it is below the least by a millionth of its size.

    Raises:
        MethodError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise MethodError(
            f"--false-alarms is the share of known pictures that may be rejected, in [0, 1); got "
            f"{share}."
        )
    ordered = confidence.sort().values
    first = int(share * len(ordered))  # that is not rejected
    if first == 0:
        least = float(ordered[0])
        return least - 1e-6 * abs(least)
    return float(ordered[first - 1 : first + 1].mean())


def measure_calibration(logits: Tensor, labels: Tensor) -> dict[str, SetMetrics]:
    """Metrics "before" and "after" one temperature; each half is read with the other half's."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    halves = order[::2], order[1::2]
    after = logits.clone()
    for own, other in (halves, halves[::-1]):
        if len(own) and len(other):
            after[own] = logits[own] / fit_temperature(logits[other], labels[other])
    columns = {"before": as_scores(logits, labels), "after": as_scores(after, labels)}
    return measure_set(columns, "before")


def as_scores(logits: Tensor, labels: Tensor) -> ImageScores:
    """Logits (n, K) and labels (n,) as the columns that metrics are computed from."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    own = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
    order = logits.argsort(dim=-1, descending=True, stable=True)  # of equal classes the first leads
    truth = torch.nn.functional.one_hot(labels, logits.shape[-1])
    return ImageScores(
        label=labels.numpy(),
        predicted=order[:, 0].numpy(),
        rank=(order == labels.unsqueeze(1)).int().argmax(-1).numpy(),
        score=p.amax(-1).numpy(),
        nll=-own.numpy(),
        brier=(p - truth).square().sum(-1).numpy(),
        classes=logits.shape[-1],
    )
