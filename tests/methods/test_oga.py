"""OGA: what its memory keeps, and what its Gaussians add."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tpt
from tpt.errors import MethodError

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


def plain_views(engine: tpt.PromptEngine, count: int, seed: int = 0) -> Tensor:
    """Images near their classes (count, 1, E), the classes in turn."""
    rng = torch.Generator().manual_seed(seed)
    centres = engine.start_features()[torch.arange(count) % len(NAMES)]
    noise = torch.randn(centres.shape, generator=rng)
    return F.normalize(centres + 0.1 * noise, dim=-1).unsqueeze(1)


def test_without_weight_it_is_zero_shot(engine: tpt.PromptEngine) -> None:
    features = plain_views(engine, 40)
    out = tpt.OGA(engine, tau=0).adapt_features(features)
    assert torch.equal(out.logits, out.initial_logits)


def test_the_first_images_meet_gaussians_around_the_text(engine: tpt.PromptEngine) -> None:
    one = plain_views(engine, 1)
    out = tpt.OGA(engine).adapt_features(one)
    t = engine.start_features()
    gaussian = 32 * (one[:, 0] @ t.T - 0.5)  # P = E I, t unit
    torch.testing.assert_close(out.logits, out.initial_logits + 0.05 * gaussian)


def test_the_memory_keeps_the_surest_images_of_a_class(engine: tpt.PromptEngine) -> None:
    method = tpt.OGA(engine, capacity=2)
    for part in plain_views(engine, 64).split(1):
        method.adapt_features(part)
    assert 0 < method.stored <= 2 * len(NAMES)
    assert method._entropies.max() < torch.tensor(len(NAMES)).log()
    method.reset()
    assert method.stored == 0


def test_it_follows_the_equations(engine: tpt.PromptEngine) -> None:
    """The whole method written plainly, for a memory that no image leaves."""
    features = plain_views(engine, 24)
    f, t, capacity = features[:, 0], engine.start_features(), 8
    out = tpt.OGA(engine, capacity=capacity).adapt_features(features)
    p = (100 * f @ t.T).softmax(-1)
    named = p.argmax(-1)
    means = t.clone()
    for k in range(len(NAMES)):
        own = f[named == k]
        if len(own) >= 2:
            means[k] = own.sum(0) / capacity
    residuals = f - means[named]
    residuals = residuals - residuals.mean(0)
    n, width = residuals.shape
    cov = residuals.T @ residuals / (n - 1)
    precision = width * torch.linalg.pinv((n - 1) * cov + cov.trace() * torch.eye(width))
    gaussian = torch.stack([f @ precision @ m - 0.5 * m @ precision @ m for m in means], dim=-1)
    torch.testing.assert_close(out.logits, 100 * f @ t.T + 0.05 * gaussian, atol=1e-3, rtol=0)


def test_a_stream_begins_with_an_empty_memory_unless_told(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, NAMES)
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 255, (3, 40, 40), generator=rng, dtype=torch.uint8)] * 2
    for reset, same in (("stream", True), ("never", False)):
        method = tpt.OGA(engine, reset=reset)
        list(tpt.stream(pictures, method))
        seen = method.stored
        list(tpt.stream(pictures, method))
        assert (method.stored == seen) is same


def test_a_saved_memory_goes_on_with_the_bits_of_the_unbroken_stream(
    engine: tpt.PromptEngine, tmp_path: Path
) -> None:
    parts = plain_views(engine, 96).split(32)
    whole, before, after = (tpt.OGA(engine) for _ in range(3))
    want = [whole.adapt_features(part) for part in parts]
    before.adapt_features(parts[0])
    before.save_state(tmp_path / "half.safetensors")
    after.load_state(tmp_path / "half.safetensors")
    after.start_stream()  # what was loaded is kept
    assert after.stored == before.stored
    for part, expected in zip(parts[1:], want[1:], strict=True):
        assert torch.equal(after.adapt_features(part).logits, expected.logits)
    assert before._precision is not None  # so that it was saved and loaded
    after.start_stream()
    assert after.stored == 0


def test_an_empty_memory_is_saved_too(engine: tpt.PromptEngine, tmp_path: Path) -> None:
    tpt.OGA(engine).save_state(tmp_path / "s.safetensors")
    method = tpt.OGA(engine)
    method.adapt_features(plain_views(engine, 32))
    method.load_state(tmp_path / "s.safetensors")
    assert method.stored == 0
    one = plain_views(engine, 1)
    torch.testing.assert_close(
        method.adapt_features(one).logits, tpt.OGA(engine).adapt_features(one).logits
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": 0}, "how many images a class are stored, a whole number from 1 on; got 0"),
        ({"tau": -1.0}, "tau is how much the Gaussians count, a number from 0 on; got -1.0"),
        ({"normalize": "yes"}, "normalize is true or false; got yes"),
        ({"reset": "image"}, "expected stream (the default) or never"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    engine: tpt.PromptEngine, options: dict[str, object], words: str
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.OGA(engine, **options)
    assert words in str(caught.value)
