"""The text side's cost: what is said of it is what the engine's own passes are counted to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_models import build, save

import tpt
from tpt.model.describe import count_products
from tpt.prompts import _jacobian
from tpt.prompts.operations import JacobianCost, count_jacobian, count_text_operations

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


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_what_the_jacobian_takes_is_what_its_passes_are_counted_to_be(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_jacobian, "_DIRECTIONS", 1)  # vmap's products are not all counted
    engine = tpt.PromptEngine(tpt.load_clip(save(build(kind), tmp_path), device="cpu"), NAMES)
    told = count_jacobian(engine)
    engine.start_graph()
    pull = torch.ones(1, len(NAMES), engine.clip.embedding_width)
    with count_products() as by_graph:
        engine.pull_back(pull)
    with count_products() as building:
        engine.build_jacobian()
    with count_products() as by_product:
        engine.pull_back(pull)
    # An encoder projects its words once more when it is made.
    assert told.once == pytest.approx(building.get_total_flops(), rel=0.01)
    assert told.saved == max(0, by_graph.get_total_flops() - by_product.get_total_flops())
    assert engine._jacobian is not None
    assert told.bytes == engine._jacobian.matrix.nbytes
    if told.saved:
        assert told.even_after is not None
        assert (told.even_after - 1) * told.saved < told.once <= told.even_after * told.saved


def test_a_jacobian_that_saves_nothing_never_breaks_even() -> None:
    assert JacobianCost(bytes=10**9, once=5, saved=0).even_after is None
    assert str(JacobianCost(10**9, 5, 0)) == "1 GB, saves 0 GFLOP a picture, never breaks even"
    assert str(JacobianCost(10**9, 5, 2)).endswith("breaks even after 3 tuned pictures")
