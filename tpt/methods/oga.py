"""OGA: one Gaussian a class, learned online from the images of the stream.

Clément Fuchs, Maxime Zanella and Christophe De Vleeschouwer (2501.04352). A memory keeps, for every
class, the C images of lowest zero-shot entropy; their means mu_k and their common precision P give

    logits_k = scale f . t_k + tau (f P mu_k - mu_k P mu_k / 2)

A class with fewer than two images keeps its text feature as its mean, and P = E I until some class
has three. All images of a batch (32, as published) enter the memory before any of them is
predicted. As in the public program, the sum of a class's images is divided by C even if fewer are
stored, so the mean of a half-filled class is shorter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.methods._stream_state import StreamMethod
from tpt.methods.base import Adapted
from tpt.methods.checks import check_count, check_flag, check_number, check_reset
from tpt.methods.first_look import take_first_look


@dataclass(frozen=True)
class OGASettings:
    """Published defaults."""

    capacity: int = 8  # images a class in the memory
    tau: float = 0.05  # weight of the Gaussians' logits beside zero-shot's
    normalize: bool = False  # make the means of the stored images unit length
    reset: str = "stream"  # when the memory is emptied: at each stream's start, or "never"

    def __post_init__(self) -> None:
        check_count("capacity", self.capacity, "how many images a class are stored", least=1)
        check_number("tau", self.tau, "how much the Gaussians count", above=False)
        check_flag("normalize", self.normalize)
        check_reset(self.reset, "stream", "never", default="stream")


class OGA(StreamMethod):
    """Zero-shot prediction corrected by Gaussians of the images before and of the same batch.

    With a CoCoOp context every image has its own class features; the Gaussians then start from
    their mean over the batch.
    """

    Settings = OGASettings
    reads_views = False
    together = 32

    def _empty(self) -> None:
        clip, count = self.engine.clip, len(self.engine.classes)
        shape = count, self.settings.capacity
        self._stored = torch.zeros(*shape, clip.embedding_width, device=clip.device)  # (K, C, E)
        # Empty places hold log K, so only images surer than a uniform guess are stored. It is on
        # the CPU, because the images are compared one after the other.
        self._entropies = torch.full(shape, math.log(count), dtype=torch.float64)
        self._used = torch.zeros(shape, dtype=torch.bool)
        self._precision: Tensor | None = None  # (E, E); None: E I

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        own = self._tensors()
        for name in ("stored", "entropies", "used"):
            own[name].copy_(tensors[name])
        learned = bool(tensors["learned"])
        self._precision = tensors["precision"].to(self._stored.device) if learned else None

    def _tensors(self) -> dict[str, Tensor]:
        """The memory by name; `precision` only counts if `learned`."""
        width, precision = self._stored.shape[-1], self._precision
        return {
            "stored": self._stored,
            "entropies": self._entropies,
            "used": self._used,
            "learned": torch.tensor(precision is not None),
            "precision": torch.zeros(width, width) if precision is None else precision,
        }

    @property
    def stored(self) -> int:
        """How many images the memory holds."""
        return int(self._used.sum())

    @torch.inference_mode(False)
    @torch.no_grad()
    def _adapt(self, features: Tensor) -> Adapted:
        """Predict the plain views of a batch (B, 1, E)."""
        self._loaded = False
        look = take_first_look(self, features, keep=1.0)
        plain = features[:, 0].clone()  # (B, E)
        classes = look.classes
        if classes.ndim == 3:
            classes = F.normalize(classes.mean(0), dim=-1)
        changed = self._remember(plain, look.logits[:, 0])
        means = self._means(classes)
        if changed:
            self._learn_precision(means, classes)
        width = plain.shape[-1]
        spread = width * means if self._precision is None else means @ self._precision  # (K, E)
        gaussian = plain @ spread.T - (means * spread).sum(-1) / 2  # (B, K)
        return look.outcome(look.logits[:, 0] + self.settings.tau * gaussian)

    def _remember(self, plain: Tensor, logits: Tensor) -> bool:
        """Offer images (B, E) of zero-shot logits (B, K) to the memory; whether any entered."""
        p = logits.softmax(-1).double()
        surprise = -(p * (p + 1e-9).log()).sum(-1)
        named = logits.argmax(-1)
        changed = False
        for row, label, entropy in zip(plain, named.tolist(), surprise.tolist(), strict=True):
            place = int(self._entropies[label].argmax())
            if entropy < float(self._entropies[label, place]):
                self._entropies[label, place] = entropy
                self._used[label, place] = True
                self._stored[label, place] = row
                changed = True
        return changed

    def _means(self, classes: Tensor) -> Tensor:
        """The Gaussians' means (K, E), from class features (K, E) and what is stored."""
        means = self._stored.sum(1) / self.settings.capacity
        if self.settings.normalize:
            means = F.normalize(means, dim=-1)
        known = (self._used.sum(1) >= 2).to(means.device)
        return torch.where(known.unsqueeze(-1), means, classes)

    def _learn_precision(self, means: Tensor, classes: Tensor) -> None:
        """Learn the precision that all classes share, once some class has three images."""
        if int(self._used.sum(1).max()) <= 2:
            return
        used = self._used.to(means.device)
        residuals = (self._stored - means.unsqueeze(1))[used]  # (n, E)
        residuals = residuals - residuals.mean(0)
        count, width = residuals.shape
        scatter = residuals.T @ residuals  # (E, E)
        total = scatter.trace() / (count - 1)
        if not bool(total > 0):  # identical images have no spread
            return
        if count <= 4 * width:
            ridge = scatter + total * torch.eye(width, device=scatter.device)
            # The ridge is at least 1/(n - 1) of the largest eigenvalue, so Cholesky is safe.
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(ridge))
            self._precision = width * inverse
        else:
            self._precision = torch.linalg.pinv(scatter / (count - 1), hermitian=True)
