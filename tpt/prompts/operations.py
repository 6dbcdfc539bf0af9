"""The cost of the text side: the operations of its matrix products.

The class features of the start are computed once a class list. An image is then tuned by one
vector-Jacobian product with them, and predicted by one forward pass with its own context. Weights
are frozen, so a linear map costs as much backward as forward, and a product inside attention twice
as much.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from tpt.model.describe import count_products
from tpt.prompts._full_length import FullEncoder
from tpt.prompts._shared_prefix import PackedEncoder
from tpt.prompts.engine import PromptEngine


@dataclass(frozen=True)
class TextOperations:
    """Operations of the text tower; a multiplication and an addition are two."""

    classes: int  # K
    once: int  # a forward pass for the class list
    picture: int  # tuning by one step, and the forward pass that predicts


def count_text_operations(engine: PromptEngine) -> TextOperations:
    """Operations of an engine's text tower, for one image at a time.

    On the shared-prefix path they follow from the packed shapes. On the full-length path all
    prompts cost the same, so one prompt is run and counted.
    """
    forward, backward = _count_passes(engine, engine._encode)
    return TextOperations(len(engine.classes), forward, backward + forward)


@dataclass(frozen=True)
class JacobianCost:
    """The cost and the savings of the start's Jacobian (`PromptEngine.build_jacobian`)."""

    bytes: int  # of memory
    once: int  # operations to build it
    saved: int  # operations saved for each image

    @property
    def even_after(self) -> int | None:
        """The number of tuned images that pays for it; None if it saves nothing."""
        return -(-self.once // self.saved) if self.saved else None

    def __str__(self) -> str:
        even = (
            "never breaks even"
            if self.even_after is None
            else (f"breaks even after {self.even_after:,} tuned pictures")
        )
        return f"{self.bytes / 1e9:,.3g} GB, saves {self.saved / 1e9:,.3g} GFLOP a picture, {even}"


def count_jacobian(engine: PromptEngine) -> JacobianCost:
    """What the Jacobian of an engine's start would cost and save.

    It costs one forward pass with a separate context for each class, and a backward pass for each
    of the E directions of the features. It replaces an image's backward pass by a product.

    Raises:
        PromptError: the context is conditional.
    """
    engine.check_jacobian()
    width, vectors = engine.clip.embedding_width, engine.start
    numbers = len(engine.classes) * width * vectors.shape[-2] * vectors.shape[-1]
    forward, backward = _count_passes(engine, engine._make_encoder(engine.classes, True))
    saved = _count_passes(engine, engine._encode)[1] - 2 * numbers
    return JacobianCost(
        numbers * engine.clip.text_dtype.itemsize, forward + width * backward, max(0, saved)
    )


def _count_passes(engine: PromptEngine, encoder: PackedEncoder | FullEncoder) -> tuple[int, int]:
    """(forward, backward) of a pass over all classes."""
    if isinstance(encoder, PackedEncoder):
        return _count_packed(encoder)
    forward, backward = _count_prompt(engine, encoder)
    return len(engine.classes) * forward, len(engine.classes) * backward


def _count_packed(encoder: PackedEncoder) -> tuple[int, int]:
    """(forward, backward) of n rows of R tokens after P shared tokens.

    The first layer projects only the context anew, and the last one computes only K tokens.
    """
    plan, last = encoder.plan, len(encoder.blocks) - 1
    tokens, seen, classes = plan.rows * plan.length, plan.shared + plan.length, len(plan.ends)
    linear = attention = 0
    for place, block in enumerate(encoder.blocks):
        before = tokens if place else len(plan.slot_tokens)  # before attention
        after = classes if place == last else tokens
        maps: list[Any] = [block.out.weight, block.up.weight, block.down.weight]
        linear += 2 * before * block.in_weight.numel() + 2 * after * sum(m.numel() for m in maps)
        attention += 2 * 2 * tokens * seen * block.in_weight.shape[1]  # scores, and their mixture
    projection: Any = encoder.projection
    if projection is not None:
        linear += 2 * classes * getattr(projection, "weight", projection).numel()
    return linear + attention, linear + 2 * attention


def _count_prompt(engine: PromptEngine, encoder: FullEncoder) -> tuple[int, int]:
    """(forward, backward) of one prompt; all rows are as long as the longest prompt."""
    start = engine.start if engine.start.ndim == 2 else engine.start[0]
    vectors = start.unsqueeze(0).unsqueeze(0).requires_grad_()  # (1, 1, M, D)
    one = copy.copy(encoder)
    one.ids, one.slots = encoder.ids[:1], encoder.slots[:1]
    with torch.enable_grad():
        with count_products() as forward:
            features = one(vectors)
        with count_products() as backward:
            torch.autograd.grad(features.sum(), vectors)
    return forward.get_total_flops(), backward.get_total_flops()
