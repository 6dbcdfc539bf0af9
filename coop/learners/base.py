"""What the training loop needs of a method: parameters, the loss of a batch, and the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.model.clip import Clip
from tpt.prompts import Context, PromptEngine
from tpt.prompts.prompt_info import PromptInfo

START_DEVIATION = 0.02  # of a random start, N(0, 0.02^2)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of an epoch's pictures, and all of them for methods that look beyond the batch."""

    features: Tensor  # (B, E), unit
    labels: Tensor  # (B,)
    pool: Tensor  # (n, E), every picture of the epoch
    pool_labels: Tensor  # (n,)
    rng: torch.Generator  # on the CPU, the epoch's own


@dataclass(frozen=True, eq=False)
class Loss:
    """What is minimised, the terms it is the sum of, and the logits (B, K) of the batch."""

    total: Tensor
    logits: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Learner(Protocol):
    """A method that is being trained."""

    parameters: dict[str, Tensor]
    """What the optimiser moves: leaf tensors that require gradients, by name."""

    def loss(self, batch: Batch) -> Loss: ...

    def context(self) -> Context:
        """The context with the current parameters, as a prompt file would hold it."""
        ...


def start_context(
    clip: Clip,
    count: int,
    *,
    words: str | None = None,
    length: int = 16,
    class_specific: bool = False,
    position: str | None = None,
    seed: int = 0,
) -> Context:
    """Where training starts: words, or M random vectors.

    Args:
        count: K, for a class-specific context.
        words: the vectors of these words, `{}` where the class name stands; default random.
        length: M of a random start, drawn from N(0, 0.02^2).
        class_specific: one context a class, (K, M, D); random start only, as published.
        position: "end" (default), "middle" or "front".

    Raises:
        MethodError: words for a class-specific context, or a position that contradicts theirs.
    """
    if words is None:
        shape = (count, length, clip.width) if class_specific else (length, clip.width)
        rng = torch.Generator().manual_seed(seed)
        vectors = START_DEVIATION * torch.randn(shape, generator=rng, dtype=torch.float32)
        info = PromptInfo(clip.name, clip.pretrained, digest=clip.digest)
        return Context(vectors, position or "end", info=info)
    if class_specific:
        raise MethodError(
            f'A class-specific context starts at random, but the words "{words}" were given to '
            "start from. Leave out one of the two."
        )
    context = Context.from_words(clip, words)
    if position is None or position == context.position:
        return context
    if "{}" in words:
        raise MethodError(
            f'The words "{words}" put the class name at position {context.position}, but the '
            f"position {position} was asked for. Leave out one of the two."
        )
    return Context(context.vectors, position, info=context.info)


def learnable(tensor: Tensor, clip: Clip) -> Tensor:
    """A copy on the model's device for the optimiser to move."""
    return tensor.detach().to(clip.device, torch.float32, copy=True).requires_grad_()


def check_engine(engine: PromptEngine, *, unified: str | None = None) -> None:
    """Refuse a start context that the method cannot train.

    Args:
        unified: the name of a method that needs one context for all classes.
    """
    if engine.conditional and unified != "CoCoOp":
        raise MethodError("This method starts from a fixed context, but a CoCoOp context came.")
    if unified and engine.context.class_specific:
        raise MethodError(
            f"{unified} shifts one context for all classes; class-specific contexts do not go with "
            "it. Leave out --class-specific, or use --method coop."
        )
