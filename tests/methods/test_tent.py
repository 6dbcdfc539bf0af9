"""TENT and BATCLIP beside the golden values: streams, features, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tpt
from tpt.errors import MethodError
from tpt.methods.batclip import bimodal_loss
from tpt.prompts.head import Head

NAMES = ["cat", "dog", "cup"]
KINDS = [tpt.TENT, tpt.BATCLIP]


@pytest.fixture
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_hands_over_pictures_and_starts_afresh(
    engine: tpt.PromptEngine, kind: Any
) -> None:
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 256, (3, 40, 40), generator=rng, dtype=torch.uint8)] * 5
    method = kind(engine)

    def scores() -> list[float]:
        records = tpt.stream(pictures, method, tpt.Views(engine.clip, n=1), batch_size=2)
        return [record.predictions[0].score or 0.0 for record in records]

    first = scores()
    assert first[0] == pytest.approx(first[1], abs=1e-5)
    assert first[0] != pytest.approx(first[4], abs=1e-5)  # two batches later
    assert scores() == pytest.approx(first, abs=1e-4)


def test_a_broken_picture_is_a_record_of_its_own(engine: tpt.PromptEngine) -> None:
    pictures = [torch.zeros(3, 40, 40), "no-such-file.png", torch.ones(3, 40, 40)]
    records = list(tpt.stream(pictures, tpt.TENT(engine), tpt.Views(engine.clip, n=1)))
    assert [record.error is None for record in records] == [True, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_other_shapes_are_refused(engine: tpt.PromptEngine, kind: Any) -> None:
    with pytest.raises(MethodError, match="needs pictures, not their features"):
        kind(engine).adapt_features(torch.ones(2, 1, 32))
    with pytest.raises(MethodError, match=r"expected a normalised batch \(B, 1, 3, 32, 32\)"):
        kind(engine).adapt(torch.ones(2, 3, 32, 32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "SGD"}, 'Unknown optimizer "SGD": expected Adam or AdamW.'),
        ({"lr": 0}, "lr must be a positive number; got 0."),
        ({"weight_decay": -1}, "the decay of the weights, a number from 0 on; got -1."),
    ],
)
def test_settings_that_cannot_be_are_refused(
    engine: tpt.PromptEngine, kind: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        kind(engine, **options)
    assert words in str(caught.value)


def test_a_head_has_no_class_features_to_tune_towards(engine: tpt.PromptEngine) -> None:
    text = engine.start_features()
    head = Head("gda", text, text, torch.zeros(3))
    other = tpt.PromptEngine(engine.clip, NAMES, replace(engine.context, head=head))
    with pytest.raises(MethodError, match="a CoCoOp context or a few-shot head has none"):
        tpt.TENT(other)


def test_the_bimodal_loss_has_the_gradient_of_finite_differences() -> None:
    rng = torch.Generator().manual_seed(0)
    raw = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    classes = torch.nn.functional.normalize(
        torch.randn(3, 4, generator=rng, dtype=torch.float64), dim=-1
    )

    def loss(features: torch.Tensor) -> torch.Tensor:
        return bimodal_loss(features, classes, 5 * features @ classes.T)

    assert torch.autograd.gradcheck(loss, (raw,))
