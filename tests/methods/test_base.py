"""What every method takes and gives, and what it says to views and features that are none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from every_method import METHODS
from torch import Tensor

import tpt
from tpt.errors import MethodError
from tpt.methods.base import Method, check_features, encode_views
from tpt.methods.registry import make_method

NAMES = ["cat", "dog", "golden retriever"]
KEPT = {"zero": 6, "mta": 20}  # of 20 views, where it is not a tenth


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, golden: SimpleNamespace) -> Method:
    return make_method(request.param, tpt.PromptEngine(golden.clip, NAMES))


def name_of(method: Method) -> str:
    return next(name for name, info in METHODS.items() if info.home.endswith(type(method).__name__))


def unit_features(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def as_dict(out: tpt.Adapted) -> dict[str, Tensor]:
    return {key: value for key, value in vars(out).items() if value is not None}


def test_the_outcome_has_the_documented_shapes(method: Method) -> None:
    out = method.adapt_features(unit_features(20, 32))
    name = name_of(method)
    tuned = {"tpt": (4, 64), "ctpt": (4, 64), "tps": (3, 32), "rtpt": (4, 64)}.get(name)
    shapes: dict[str, tuple[int, ...]] = {
        "logits": (3,),
        "initial_logits": (3,),
        "selected": (KEPT.get(name, 2),) if method.reads_views else (1,),
        "view_entropy": (20,) if method.reads_views else (1,),
    }
    if name != "zero_shot":
        shapes["entropy"] = ()
    if tuned is not None:
        shapes["shift" if name == "tps" else "vectors"] = tuned
        shapes |= {"gradient": tuned, "loss": (), "final_loss": (), "final_entropy": ()}
    if name == "zero":
        shapes["votes"] = (3,)
    assert {key: tuple(value.shape) for key, value in as_dict(out).items()} == shapes
    assert not any(value.requires_grad for value in as_dict(out).values())


def test_a_batch_has_the_same_shapes_behind_a_leading_axis(method: Method) -> None:
    features = unit_features(3, 20, 32)
    together = method.adapt_features(features)
    method.reset()
    if method.together is not None:  # the images of a batch decide about one another
        shapes = {
            key: value.shape for key, value in as_dict(method.adapt_features(features[0])).items()
        }
        assert {key: value.shape for key, value in as_dict(together.image(0)).items()} == shapes
        return
    for index in range(3):  # in order, for the methods that keep state
        alone = as_dict(method.adapt_features(features[index]))
        part = as_dict(together.image(index))
        assert part.keys() == alone.keys()
        for key, value in part.items():
            assert torch.equal(value, alone[key]), key


def test_a_batch_of_one_keeps_its_axis(method: Method) -> None:
    out = method.adapt_features(unit_features(1, 20, 32))
    assert all(len(value) == 1 for value in as_dict(out).values())


def test_adapting_to_views_is_adapting_to_their_features(
    method: Method, golden: SimpleNamespace
) -> None:
    views = torch.stack([golden.views(1, 12), golden.views(2, 12)])
    for given in (views, views[0]):
        method.reset()
        expected = as_dict(method.adapt_features(encode_views(golden.clip, given)))
        method.reset()
        got = as_dict(method.adapt(given))
        assert got.keys() == expected.keys()
        for key, value in got.items():
            if method.reads_views:
                assert torch.equal(value, expected[key]), key
            else:  # only view 0 is encoded, in a smaller pass
                torch.testing.assert_close(value, expected[key], atol=1e-4, rtol=1e-4)


def test_the_model_and_the_features_stay_as_they_were(
    method: Method, golden: SimpleNamespace
) -> None:
    before = {key: value.clone() for key, value in golden.clip.model.state_dict().items()}
    features = unit_features(2, 12, 32)
    given, start = features.clone(), method.engine.start.clone()
    method.adapt_features(given)
    assert torch.equal(given, features)
    assert torch.equal(method.engine.start, start)
    assert all(torch.equal(v, before[k]) for k, v in golden.clip.model.state_dict().items())
    assert all(p.grad is None for p in golden.clip.model.parameters())


@pytest.mark.parametrize("forbid", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_forbids_gradients(method: Method, forbid: Any) -> None:
    features = unit_features(12, 32)
    expected = as_dict(method.adapt_features(features))
    fresh = make_method(name_of(method), method.engine)
    with forbid():
        got = as_dict(fresh.adapt_features(1 * features))
    assert all(torch.equal(got[key], value) for key, value in expected.items())


# --- what is refused ---


@pytest.mark.parametrize(
    "shape",
    [
        (3, 32, 32),
        (4, 3, 16, 32),
        (4, 1, 32, 32),
        (4, 32, 32, 3),
        (2, 2, 4, 3, 32, 32),
        (0, 3, 32, 32),
        (0, 4, 3, 32, 32),
        (2, 0, 3, 32, 32),
        (32, 32),
        (),
    ],
)
def test_views_of_another_shape_are_refused(method: Method, shape: tuple[int, ...]) -> None:
    with pytest.raises(MethodError) as caught:
        method.adapt(torch.zeros(shape))
    message = str(caught.value)
    assert f"Views have shape {shape}; expected (N, 3, 32, 32), or (B, N, 3, 32, 32)" in message
    assert "`tpt.Views` makes them." in message


@pytest.mark.parametrize(
    "shape", [(32,), (), (0, 32), (2, 0, 32), (2, 3, 4, 32), (0, 3, 32), (4, 31), (2, 4, 64)]
)
def test_features_of_another_shape_are_refused(method: Method, shape: tuple[int, ...]) -> None:
    with pytest.raises(MethodError, match=r"expected \(N, 32\), or \(B, N, 32\)") as caught:
        method.adapt_features(torch.ones(shape))
    assert f"have shape {shape}" in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(method: Method, bad: float) -> None:
    features = unit_features(2, 4, 32)
    features[1, 3, 5] = bad
    with pytest.raises(MethodError, match="NaN or infinite numbers"):
        method.adapt_features(features)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: 2 * f, "2 to 2 long"),
        (lambda f: 0 * f, "0 to 0 long"),
        (lambda f: torch.cat([f[:3], 0.5 * f[3:]]), "0.5 to 1 long"),
    ],
)
def test_features_that_are_not_of_unit_length_are_refused(
    method: Method, change: Callable[[Tensor], Tensor], text: str
) -> None:
    with pytest.raises(MethodError, match="expected unit length") as caught:
        method.adapt_features(change(unit_features(4, 32)))
    assert text in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_another_precision_are_taken_as_float32(
    golden: SimpleNamespace, dtype: torch.dtype
) -> None:
    features = unit_features(2, 4, 32).to(dtype)
    assert check_features(golden.clip, features).dtype == torch.float32


def test_only_the_views_asked_for_are_encoded(
    golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    encode = golden.clip.encode_images

    def count(images: Tensor) -> Tensor:
        seen.append(len(images))
        return encode(images)

    monkeypatch.setattr(golden.clip, "encode_images", count)
    assert encode_views(golden.clip, golden.views(1, 6), count=1).shape == (1, 32)
    assert encode_views(golden.clip, golden.views(1, 6).unsqueeze(0)).shape == (1, 6, 32)
    assert seen == [1, 6]


class Counting(Method):
    """Without settings, and with a constructor of its own."""

    def __init__(self, engine: tpt.PromptEngine, start: int = 0) -> None:
        super().__init__(engine)
        self.count = start


class Louder(tpt.VTE):
    """With an argument beside those of the method that it changes."""

    def __init__(self, engine: tpt.PromptEngine, factor: float, **options: Any) -> None:
        super().__init__(engine, **options)
        self.factor = factor


def test_a_subclass_may_have_a_constructor_of_its_own(golden: SimpleNamespace) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES)
    assert Counting(engine, start=3).count == 3
    assert list(inspect.signature(Counting).parameters) == ["engine", "start"]
    assert Louder(engine, 2.0, keep=0.5).settings.keep == 0.5
    assert list(inspect.signature(Louder).parameters) == ["engine", "factor", "options"]
