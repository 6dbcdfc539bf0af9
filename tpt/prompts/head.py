"""A few-shot head: a classifier on image features, stored beside a prompt's words.

All heads that `coop.heads` fits have one form, with f a unit image feature:

    logits = f W^T + b + alpha * sum_i exp(-beta (1 - f . key_i)) onehot(label_i)

GDA-CLIP and LP++ have no keys; for Tip-Adapter W is the scaled class features and b zero. A head
answers for the classes it was fitted on. Its logits replace `exp(logit_scale) * f . t_c` in every
method: views vote, are averaged and gated with them. Methods that tune a prompt refuse a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import PromptError

PREFIX = "head."  # of its tensors in a prompt file
NAMES = ("text", "weight", "bias", "keys", "labels")


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted head of K classes for unit image features of width E.

    Raises:
        PromptError: shapes that do not fit, NaN or infinite numbers, labels out of range.
    """

    method: str  # that fitted it
    text: Tensor  # (K, E) unit class features of the prompt
    weight: Tensor  # (K, E)
    bias: Tensor  # (K,)
    keys: Tensor | None = None  # (n, E)
    labels: Tensor | None = None  # (n,) of the keys
    alpha: float = 0.0  # weight of the keys' part
    beta: float = 1.0  # how fast a key's influence falls with its distance

    def __post_init__(self) -> None:
        for name in ("text", "weight", "bias", "keys"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, value.detach().float().contiguous())
        shape = tuple(self.weight.shape)
        keys, labels = self.keys, self.labels
        whole = self.weight.ndim == 2 and tuple(self.text.shape) == shape
        whole = whole and tuple(self.bias.shape) == shape[:1] and 0 not in shape
        whole = whole and (keys is None) == (labels is None)
        if whole and keys is not None and labels is not None:
            whole = keys.ndim == 2 and keys.shape[1] == shape[1] and labels.shape == keys.shape[:1]
            whole = whole and not labels.is_floating_point() and len(labels) > 0
            whole = whole and int(labels.min()) >= 0 and int(labels.max()) < shape[0]
        if not whole:
            raise PromptError(
                f"The head's tensors do not fit together ({_shapes(self)}); expected text and "
                "weight (K, E), bias (K,), and keys (n, E) with labels (n,) from 0 to K - 1, or "
                "neither."
            )
        numbers = [t for t in (self.text, self.weight, self.bias, keys) if t is not None]
        if not all(bool(t.isfinite().all()) for t in numbers) or not math.isfinite(self.alpha):
            raise PromptError(
                "The head holds NaN or infinite numbers. The fit that made it probably diverged; "
                "fit it again."
            )

    @property
    def classes(self) -> int:
        """K."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """E."""
        return self.weight.shape[1]

    def logits(self, features: Tensor) -> Tensor:
        """Unit features (..., E) to logits (..., K)."""
        plain = features @ self.weight.T + self.bias
        if self.keys is None or self.labels is None:
            return plain
        near = torch.exp(-self.beta * (1 - features @ self.keys.T))  # (..., n)
        return plain + self.alpha * (near @ F.one_hot(self.labels, self.classes).to(near.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The head's tensors by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    def to(self, device: torch.device) -> Head:
        """A copy on a device."""
        moved = {name: t.to(device, copy=True) for name, t in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def _shapes(head: Head) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in head.tensors().items())
