"""A bounded cache of image features: for every class the most confident images taken for it.

It holds at most K * capacity images, however long the stream is.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Up to `capacity` images a class, lowest entropy first.

    Args:
        classes: K.
        capacity: C, images a class.
        width: E, of the features.
        marked: keep with each image a mask of the classes it might be: K * C * K bytes more.
    """

    def __init__(
        self, classes: int, capacity: int, width: int, marked: bool, device: torch.device
    ) -> None:
        self.keys = torch.zeros(classes, capacity, width, device=device)  # (K, C, E)
        self.entropies = torch.full((classes, capacity), float("inf"), device=device)  # inf: empty
        self.marks = (  # (K, C, K)
            torch.zeros(classes, capacity, classes, dtype=torch.bool, device=device)
            if marked
            else None
        )

    def __len__(self) -> int:
        """How many images it holds."""
        return int(self.entropies.isfinite().sum())

    def offer(self, label: int, entropy: Tensor, key: Tensor, mark: Tensor | None = None) -> None:
        """Store an image for class `label`, if its entropy is below the highest of that class.

        Args:
            label: the class it was taken for.
            entropy: () of its prediction.
            key: its feature (E,).
            mark: which classes it might be, (K,) bool.
        """
        if not bool(entropy < self.entropies[label, -1]):  # the last place is the worst, or empty
            return
        self.entropies[label, -1] = entropy
        self.keys[label, -1] = key
        order = self.entropies[label].argsort(stable=True)
        self.entropies[label] = self.entropies[label, order]
        self.keys[label] = self.keys[label, order]
        if self.marks is not None and mark is not None:
            self.marks[label, -1] = mark
            self.marks[label] = self.marks[label, order]

    def affinity(self, feature: Tensor, beta: float) -> Tensor:
        """exp(-beta (1 - f . key)) for a feature (E,): (K, C), 0 in empty places."""
        near = torch.exp(-beta * (1 - self.keys @ feature))
        return near * self.entropies.isfinite()

    def tensors(self) -> dict[str, Tensor]:
        """The cache's tensors by name."""
        named = {"keys": self.keys, "entropies": self.entropies}
        return named if self.marks is None else {**named, "marks": self.marks}

    def take(self, tensors: dict[str, Tensor]) -> None:
        """Copy the tensors of another cache of the same size."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])
