"""The start's Jacobian: the derivative of the class features by the context, as one matrix.

Every image starts from the same context v, so d t_ke / d v is a constant of the class list. An
image's first gradient is its product with d loss / d t_ke, without a backward pass through the text
tower. A class's features depend on no other class, so E backward passes, with a separate context
for each class, give the whole matrix. With separate contexts causal towers share less work: a pass
costs about as much as 2.4 images' gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.errors import PromptError, is_out_of_memory

_CLASSES = 32  # whose graph is held at a time while the matrix is built
_DIRECTIONS = 16  # features pulled back in one pass; with 32 or 64 it takes 2.5 times as long

Differentiable = Callable[[slice], tuple[Tensor, Tensor]]
"""Makes, for some of the classes, separate contexts (k, M, D) and features (k, E) with a graph."""


@dataclass(frozen=True, eq=False)
class StartJacobian:
    """J[k, e] = d t_ke / d v_k."""

    matrix: Tensor  # (K, E, M D), in the dtype of the text tower's weights
    start: torch.Size  # (M, D), or (K, M, D) for class-specific vectors

    def pull_back(self, pull: Tensor) -> Tensor:
        """Gradients (B, M, D), or (B, K, M, D), from gradients (B, K, E) at the class features."""
        pull = pull.to(self.matrix.dtype)
        if len(self.start) == 3:
            grads = torch.einsum("bke,kep->bkp", pull, self.matrix)
        else:
            grads = pull.flatten(1) @ self.matrix.flatten(0, 1)
        return grads.float().view(len(pull), *self.start)


def build_start_jacobian(
    features_of: Differentiable,
    classes: int,
    start: torch.Size,
    dtype: torch.dtype,
    *,
    vectorised: bool,
    show: Callable[[int], None],
) -> StartJacobian:
    """Build the Jacobian, some classes and some directions at a time.

    Args:
        features_of: makes the features of a part of the classes.
        classes: K.
        start: the shape of the start context.
        vectorised: as in `pull_back_each`.
        show: called with the number of classes done, first 0.

    Raises:
        PromptError: there is not enough memory.
    """
    matrix: Tensor | None = None
    show(0)
    for first in range(0, classes, _CLASSES):
        part = slice(first, min(first + _CLASSES, classes))
        vectors, features = features_of(part)
        width = features.shape[-1]
        if matrix is None:
            matrix = _allocate(features, (classes, width, start[-2] * start[-1]), dtype)
        every = torch.eye(width, dtype=torch.float32, device=features.device)
        for axes in torch.arange(width).split(_DIRECTIONS):
            pulls = every[axes].unsqueeze(1).expand(-1, len(features), -1)  # (n, k, E)
            rows = pull_back_each(vectors, features, pulls, vectorised)  # (n, k, M, D)
            matrix[part, axes] = rows.transpose(0, 1).flatten(2).to(dtype)
        show(part.stop)
    assert matrix is not None
    return StartJacobian(matrix, start)


def pull_back_each(vectors: Tensor, features: Tensor, pulls: Tensor, vectorised: bool) -> Tensor:
    """Gradients (n, ...) at `vectors` from the gradients `pulls` (n, k, E) at their features.

    Args:
        vectorised: whether the text path can be batched by vmap; open_clip's own cannot.
    """

    def pull_back(pull: Tensor) -> Tensor:
        return torch.autograd.grad(features, vectors, pull, retain_graph=True)[0]

    if vectorised and len(pulls) > 1:
        return torch.vmap(pull_back)(pulls)  # every backward kernel works on the batch
    return torch.stack([pull_back(pull) for pull in pulls])


def _allocate(like: Tensor, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device=like.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = shape[0] * shape[1] * shape[2] * dtype.itemsize / 1e9
        raise PromptError(
            f"The start's Jacobian of {shape[0]:,} classes would hold {size:,.3g} GB, for which "
            f"{like.device} has no room. Go without it (no --jacobian), or give fewer classes."
        ) from error
