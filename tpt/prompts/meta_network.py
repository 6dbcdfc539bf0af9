"""CoCoOp's meta-network, which shifts a context for each image.

Kaiyang Zhou et al. (2203.05557), section 3.2: ctx_m(x) = v_m + pi(x), the same shift
pi(x) = W2 relu(W1 x + b1) + b2 for every vector, with x the unit image feature. The hidden layer is
E // 16 wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpt.errors import PromptError

NAMES = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
"""The tensors' names in official checkpoints and in our files, after "meta_net."."""


@dataclass(frozen=True, eq=False)
class MetaNet:
    """Two linear layers with a ReLU between them, from image features to a shift of the context.

    Args:
        weight_1, bias_1: (H, E) and (H,), H hidden units.
        weight_2, bias_2: (D, H) and (D,).

    Raises:
        PromptError: shapes that do not fit, or numbers that are not finite.
    """

    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(tensor.shape) for tensor in self.tensors().values()]
        hidden, width = shapes[1], shapes[3]
        fits = (
            [len(shape) for shape in shapes] == [2, 1, 2, 1]
            and shapes[0][:1] == hidden
            and shapes[2] == width + hidden
        )
        if not fits:
            raise PromptError(
                f"The meta-network's tensors have shapes {', '.join(map(str, shapes))}; expected "
                "(H, E), (H,), (D, H) and (D,) with H hidden units."
            )
        if not all(bool(tensor.isfinite().all()) for tensor in self.tensors().values()):
            raise PromptError(
                "The meta-network holds numbers that are NaN or infinite. The training that made "
                "it probably diverged; use an earlier file."
            )

    @property
    def feature_width(self) -> int:
        """E, of the image features it reads."""
        return self.weight_1.shape[1]

    @property
    def width(self) -> int:
        """D, of the shift it gives."""
        return self.weight_2.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The four tensors by their official names."""
        return dict(
            zip(NAMES, (self.weight_1, self.bias_1, self.weight_2, self.bias_2), strict=True)
        )

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> MetaNet:
        """Make a network from tensors by their official names, copied as float32 to the CPU."""
        missing = [name for name in NAMES if not isinstance(tensors.get(name), Tensor)]
        if missing:
            raise PromptError(
                f"The meta-network lacks {' and '.join(missing)}; expected {', '.join(NAMES)}."
            )
        return cls(*(tensors[name].detach().to("cpu", torch.float32, copy=True) for name in NAMES))

    @classmethod
    def draw(cls, feature_width: int, width: int, rng: torch.Generator) -> MetaNet:
        """A new network, drawn as `torch.nn.Linear` does: uniform within 1 / sqrt(inputs)."""
        hidden = max(1, feature_width // 16)

        def uniform(*shape: int, inputs: int) -> Tensor:
            drawn = torch.rand(shape, generator=rng, dtype=torch.float32)
            return (2 * drawn - 1) / math.sqrt(inputs)

        return cls(
            uniform(hidden, feature_width, inputs=feature_width),
            uniform(hidden, inputs=feature_width),
            uniform(width, hidden, inputs=hidden),
            uniform(width, inputs=hidden),
        )

    def to(self, device: torch.device) -> MetaNet:
        """A copy on a device."""
        return MetaNet(*(tensor.to(device, copy=True) for tensor in self.tensors().values()))

    def __call__(self, features: Tensor) -> Tensor:
        """The shift (B, D) for unit image features (B, E)."""
        hidden = F.linear(features, self.weight_1, self.bias_1).relu()
        return F.linear(hidden, self.weight_2, self.bias_2)
