"""Logits and accuracy of a context on pictures whose features are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tpt.evaluate import published
from tpt.prompts import PromptEngine
from tpt.prompts.sentences import encode_templates

_PROMPTS_A_PASS = 4096
"""Class prompts of conditional contexts that go through the text tower at once."""


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in [0, 1] and the number of pictures it was measured on."""

    accuracy: float
    images: int


@torch.no_grad()
def predict_logits(engine: PromptEngine, features: Tensor) -> Tensor:
    """Logits (n, K) of plain views (n, E) under an engine's start context."""
    features = features.to(engine.clip.device)
    if not engine.conditional:
        return engine.logits(features, engine.class_features())
    size = max(1, _PROMPTS_A_PASS // len(engine.classes))
    parts = []
    for some in features.split(size):
        classes = engine.class_features(engine.start_for(some))  # (b, K, E)
        parts.append(engine.logits(some.unsqueeze(1), classes).squeeze(1))
    return torch.cat(parts)


@torch.no_grad()
def template_logits(engine: PromptEngine, features: Tensor, templates: tuple[str, ...]) -> Tensor:
    """Logits (n, K) of hand-crafted templates, with which the learned prompt is compared."""
    classes = encode_templates(engine.clip, engine.classes, templates)
    return engine.logits(features.to(engine.clip.device), classes)


def score(logits: Tensor, labels: Tensor) -> Score:
    """Top-1 accuracy on at least one picture."""
    right = (logits.argmax(-1).cpu() == labels.cpu()).float().mean()
    return Score(float(right), len(labels))


def harmonic_mean(base: Score | None, new: Score | None) -> float | None:
    """The figure of the base-to-new protocol (2203.05557)."""
    return published.harmonic_mean(base.accuracy, new.accuracy) if base and new else None
