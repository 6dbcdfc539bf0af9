"""StatA: a batch at once, anchored to the text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import MethodError

NAMES = [f"thing number {number}" for number in range(30)]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def clusters(engine: tpt.PromptEngine, classes: list[int], each: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, E) of a few of the classes, moved away from their text together."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor(classes).repeat(each)
    away = 0.4 * F.normalize(torch.randn(32, generator=rng), dim=0)
    noise = 0.05 * torch.randn(len(labels), 32, generator=rng)
    f = F.normalize(engine.start_features()[labels] + away + noise, dim=-1)
    return f.unsqueeze(1), labels


def test_few_classes_among_many_are_told_apart_better_than_one_by_one(
    engine: tpt.PromptEngine,
) -> None:
    features, labels = clusters(engine, [3, 11, 20], 20)
    out = tpt.StatA(engine).adapt_features(features)
    before = (out.initial_logits.argmax(-1) == labels).float().mean()
    after = (out.logits.argmax(-1) == labels).float().mean()
    assert after >= before


def test_the_order_within_a_batch_does_not_matter(engine: tpt.PromptEngine) -> None:
    features, _ = clusters(engine, [3, 11, 20], 10)
    method = tpt.StatA(engine)
    straight = method.adapt_features(features).logits
    back = method.adapt_features(features.flip(0)).logits.flip(0)
    torch.testing.assert_close(straight.softmax(-1), back.softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_small_batches_give_finite_answers(engine: tpt.PromptEngine, count: int) -> None:
    features, _ = clusters(engine, [3], count)
    assert tpt.StatA(engine).adapt_features(features).is_finite


def test_images_that_are_all_the_same_are_no_trouble(engine: tpt.PromptEngine) -> None:
    one, _ = clusters(engine, [3], 1)
    assert tpt.StatA(engine).adapt_features(one.repeat(9, 1, 1)).is_finite
    text = engine.start_features()[:1].repeat(5, 1).unsqueeze(1)
    assert tpt.StatA(engine).adapt_features(text).is_finite


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0}, "a class's text counts for, a number above 0; got 0"),
        ({"laplacian": -1}, "how much neighbours count, a number from 0 on; got -1"),
        ({"neighbours": 0}, "a whole number from 1 on; got 0"),
        ({"rounds": 0}, "means and variances are improved, a whole number from 1 on; got 0"),
        ({"soft": 1}, "soft is true or false; got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    engine: tpt.PromptEngine, options: dict[str, object], words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.StatA(engine, **options)
    assert words in str(caught.value)
