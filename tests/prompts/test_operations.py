"""The text side's cost: what is said of it is what the engine's own passes are counted to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_models import build, save

import tpt
from tpt.model.describe import count_products
from tpt.prompts.operations import count_text_operations

NAMES = ["cat", "golden retriever", "pot", "a very long name of a small thing", "dog", "sea lion"]


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_operations_are_those_of_a_counted_pass(kind: str, tmp_path: Path) -> None:
    engine = tpt.PromptEngine(tpt.load_clip(save(build(kind), tmp_path), device="cpu"), NAMES)
    told = count_text_operations(engine)
    with count_products() as forward, torch.enable_grad():
        vectors = engine.start.requires_grad_()
        features = engine.class_features(vectors)
    with count_products() as backward:
        torch.autograd.grad(features.sum(), vectors)
    assert told.classes == len(NAMES)
    assert told.once == forward.get_total_flops() > 0
    assert told.picture == backward.get_total_flops() + told.once
