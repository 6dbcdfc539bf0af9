"""R-TPT: the pointwise loss and the ensemble of views that agree."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import MethodError
from tpt.methods.rtpt import weigh_views

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def unit_features(views: int = 24, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(1, 32, generator=rng)
    return F.normalize(own + torch.randn(views, 32, generator=rng), dim=-1)


@pytest.mark.parametrize("steps", [1, 2])
def test_it_is_the_method_of_the_paper(engine: tpt.PromptEngine, steps: int) -> None:
    features = unit_features()
    full = tpt.PromptEngine(engine.clip, NAMES, engine.context, path="full")
    vectors = full.start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=1e-3, weight_decay=0.01)
    out = tpt.RTPT(engine, keep=0.25, steps=steps, lr=1e-3, neighbours=5).adapt_features(features)
    losses = []
    for _ in range(steps):
        p = (100 * features[out.selected] @ full.class_features(vectors).T).softmax(-1)
        losses.append(-(p * p.log()).sum(-1).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    torch.testing.assert_close(out.loss, losses[0].detach(), atol=1e-4, rtol=1e-4)
    logits = 100 * features @ full.class_features(vectors).detach().T
    weights = weigh_views(features.unsqueeze(0), 5, 0.01)[0]
    torch.testing.assert_close(out.logits, weights @ logits, atol=5e-2, rtol=0)


def test_a_view_that_is_like_no_other_hardly_counts() -> None:
    features = F.normalize(torch.ones(1, 8, 32) + 0.01 * unit_features(8), dim=-1)
    features[0, 0] = -features[0, 0]
    weights = weigh_views(features, 3, 0.01)
    assert weights[0, 0] < 1e-6
    assert float(weights.sum()) == pytest.approx(1)


def test_a_view_is_never_its_own_neighbour() -> None:
    """Whatever its cosine to itself rounds to: two views have one neighbour each, the other."""
    weights = weigh_views(unit_features(2).unsqueeze(0), 20, 0.01)
    assert weights.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neighbours": 0}, "how many nearest views count, a whole number from 1 on; got 0"),
        ({"temperature": 0}, "how evenly views are weighted, a number above 0; got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    engine: tpt.PromptEngine, options: dict[str, float], words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.RTPT(engine, **options)
    assert words in str(caught.value)
