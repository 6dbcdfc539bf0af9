"""What holds for every method, whatever it does."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from every_method import METHODS
from torch import Tensor

import tpt
from tpt.errors import MethodError, PromptError
from tpt.methods.base import Method
from tpt.methods.registry import make_method
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend

NAMES = ["cat", "dog", "golden retriever", "passenger_car", "ice cream"]
TEMPLATES = ["a sketch of a {}.", "itap of my {}"]
STATELESS = [name for name, info in METHODS.items() if not info.keeps_state]
KEEPING = [name for name, info in METHODS.items() if "keep" in info.options]
WITH_TEMPLATES = [name for name, info in METHODS.items() if info.takes_templates]
KINDS = ["engine", "conditional"]


def unit_features(*shape: int, seed: int = 0) -> Tensor:
    """Features of images whose views resemble one another."""
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn((*shape[:-2], 1, shape[-1]), generator=rng)
    return F.normalize(own + torch.randn(shape, generator=rng), dim=-1)


def as_dict(out: tpt.Adapted) -> dict[str, Tensor]:
    return {key: value for key, value in vars(out).items() if value is not None}


def assert_same(got: tpt.Adapted, want: tpt.Adapted) -> None:
    assert as_dict(got).keys() == as_dict(want).keys()
    for key, value in as_dict(want).items():
        assert torch.equal(as_dict(got)[key], value), key


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


@pytest.fixture(scope="module")
def conditional(golden: SimpleNamespace) -> tpt.PromptEngine:
    """An engine whose contexts a meta-network makes (CoCoOp)."""
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    context = replace(words, meta=MetaNet.draw(32, 64, torch.Generator().manual_seed(3)))
    return tpt.PromptEngine(golden.clip, NAMES, context)


# --- what it says of itself ---


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_the_registry_says_of_it(engine: tpt.PromptEngine, name: str) -> None:
    info, method = METHODS[name], make_method(name, engine)
    assert method.keeps_state is info.keeps_state
    assert method.reads_views is info.needs_views is info.reads_views(method.settings)
    assert method.gives_probabilities is (name != "zero")
    assert isinstance(method.settings, info.settings)
    out = method.adapt_features(unit_features(8, 32))
    assert (out.gradient is not None) is info.gradient


@pytest.mark.parametrize("name", METHODS)
def test_the_constructors_arguments_are_the_settings(engine: tpt.PromptEngine, name: str) -> None:
    info = METHODS[name]
    method = make_method(name, engine)
    again = type(method)(engine, **vars(method.settings))
    assert again.settings == method.settings == info.settings()


# --- batches, order, repetition ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STATELESS)
def test_what_shares_a_batch_changes_no_bit(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(kind)
    method = make_method(name, engine)
    features = unit_features(5, 16, 32)
    together, reverse = (method.adapt_features(f) for f in (features, features.flip(0)))
    for index, image in enumerate(features):
        alone = make_method(name, engine).adapt_features(image)
        assert_same(together.image(index), alone)
        assert_same(reverse.image(4 - index), alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_the_same_images_give_the_same_bits_again(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    method = make_method(name, request.getfixturevalue(kind))
    features = unit_features(4, 16, 32)
    method.start_stream()
    first = method.adapt_features(features)
    method.reset()
    assert_same(method.adapt_features(features), first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vte", "zero", "mta", "tps", "ctpt", "rtpt"])
def test_images_adapted_at_once_agree_with_one_at_a_time(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """What a GPU runs; a CPU takes images one at a time."""
    method: Any = make_method(name, request.getfixturevalue(kind))
    features = unit_features(3, 16, 32)
    at_once = method._tuner.adapt if name in ("ctpt", "rtpt") else method._adapt
    together, single = at_once(features), method.adapt_features(features)
    assert torch.equal(together.selected, single.selected)
    for key in ("initial_logits", "view_entropy", "entropy"):
        got, want = getattr(together, key), getattr(single, key)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.logits, single.logits, atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_what_was_given_out_is_not_changed_by_the_next_image(
    engine: tpt.PromptEngine, name: str
) -> None:
    method = make_method(name, engine)
    first, second = unit_features(2, 16, 32)
    out = method.adapt_features(first)
    before = {key: value.clone() for key, value in as_dict(out).items()}
    method.adapt_features(second)
    assert all(torch.equal(value, before[key]) for key, value in as_dict(out).items())


# --- where every image starts ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_initial_logits_are_those_of_zero_shot(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(kind)
    features = unit_features(3, 16, 32)
    plain = tpt.ZeroShot(engine).adapt_features(features).logits
    out = make_method(name, engine).adapt_features(features)
    torch.testing.assert_close(out.initial_logits, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_TEMPLATES)
def test_templates_replace_the_context(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(kind)
    features = unit_features(3, 16, 32)
    out = make_method(name, engine, templates=TEMPLATES).adapt_features(features)
    plain = tpt.ZeroShot(engine, TEMPLATES).adapt_features(features).logits
    torch.testing.assert_close(out.initial_logits, plain, atol=1e-4, rtol=0)
    other = make_method(name, engine).adapt_features(features)
    assert not torch.equal(out.initial_logits, other.initial_logits)


@pytest.mark.parametrize("name", WITH_TEMPLATES)
@pytest.mark.parametrize("templates", ["a photo of a {}.", ["a photo"]])
def test_templates_that_are_none_are_refused(
    engine: tpt.PromptEngine, name: str, templates: Any
) -> None:
    with pytest.raises(PromptError, match=r"expected exactly one \{\}|single string"):
        make_method(name, engine, templates=templates)


@pytest.mark.parametrize("name", ["tpt", "ctpt", "rtpt"])
def test_templates_have_no_place_where_the_context_is_tuned(
    engine: tpt.PromptEngine, name: str
) -> None:
    with pytest.raises(MethodError, match="tunes the engine's context") as caught:
        make_method(name, engine, templates=TEMPLATES)
    assert "words of one template instead" in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_a_blend_is_what_every_method_starts_from(golden: SimpleNamespace, name: str) -> None:
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    mixed = tpt.PromptEngine(golden.clip, NAMES, replace(words, blend=Blend(("a {}.",), 0.5)))
    features = unit_features(2, 16, 32)
    out = make_method(name, mixed).adapt_features(features)
    plain = 100 * features[:, 0] @ mixed.class_features().T
    torch.testing.assert_close(out.initial_logits, plain, atol=2e-3, rtol=0)


# --- small cases ---


@pytest.mark.parametrize("views", [1, 2, 16])
@pytest.mark.parametrize("name", METHODS)
def test_one_class_leaves_nothing_to_decide_but_works(
    golden: SimpleNamespace, name: str, views: int
) -> None:
    method = make_method(name, tpt.PromptEngine(golden.clip, ["cat"]))
    out = method.adapt_features(unit_features(2, views, 32))
    assert out.logits.shape == (2, 1)
    assert all(value.isfinite().all() for value in as_dict(out).values())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", METHODS)
def test_few_views_are_enough(engine: tpt.PromptEngine, name: str, count: int) -> None:
    out = make_method(name, engine).adapt_features(unit_features(count, 32))
    assert all(value.isfinite().all() for value in as_dict(out).values())


@pytest.fixture(scope="module")
def thousand(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, [f"thing {number}" for number in range(1000)])


@pytest.mark.parametrize("name", METHODS)
def test_two_classes_and_a_thousand_work(
    golden: SimpleNamespace, thousand: tpt.PromptEngine, name: str
) -> None:
    for engine in (tpt.PromptEngine(golden.clip, ["cat", "dog"]), thousand):
        out = make_method(name, engine).adapt_features(unit_features(2, 8, 32))
        assert out.logits.shape == (2, len(engine.classes))
        assert all(value.isfinite().all() for value in as_dict(out).values())


@pytest.mark.parametrize("name", METHODS)
def test_nan_and_half_precision_features(engine: tpt.PromptEngine, name: str) -> None:
    features = unit_features(2, 8, 32)
    half = make_method(name, engine).adapt_features(features.bfloat16())
    assert half.logits.dtype == torch.float32
    assert half.is_finite
    features[1, 0, 3] = float("nan")
    with pytest.raises(MethodError, match="NaN or infinite numbers"):
        make_method(name, engine).adapt_features(features)


@pytest.mark.parametrize("name", METHODS)
def test_one_view_speaks_for_itself(engine: tpt.PromptEngine, name: str) -> None:
    features = unit_features(1, 32)
    out = make_method(name, engine).adapt_features(features)
    assert out.selected.tolist() == [0]
    if name in ("vte", "zero", "mta"):
        plain = tpt.ZeroShot(engine).adapt_features(features)
        assert out.logits.argmax() == plain.logits.argmax()


@pytest.mark.parametrize("name", METHODS)
def test_views_that_are_all_the_same_are_no_trouble(engine: tpt.PromptEngine, name: str) -> None:
    features = unit_features(1, 32).repeat(16, 1)
    out = make_method(name, engine).adapt_features(features)
    assert all(value.isfinite().all() for value in as_dict(out).values())
    if name in ("vte", "mta"):
        torch.testing.assert_close(out.logits, out.initial_logits, atol=1e-3, rtol=0)


# --- what is refused ---


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan"), float("inf"), "0.1"])
@pytest.mark.parametrize("name", KEEPING)
def test_a_share_that_would_keep_nothing_or_too_much_is_refused(
    engine: tpt.PromptEngine, name: str, keep: Any
) -> None:
    with pytest.raises(MethodError, match=r"share of views kept, in \(0, 1\]") as caught:
        make_method(name, engine, {"keep": keep})
    published = 0.3 if name == "zero" else 0.1
    assert f"got {keep}. The published value is {published}." in str(caught.value)


@pytest.mark.parametrize("name", KEEPING)
def test_keep_says_how_many_views_are_kept(engine: tpt.PromptEngine, name: str) -> None:
    out = make_method(name, engine, {"keep": 0.5}).adapt_features(unit_features(9, 32))
    assert len(out.selected) == 4
    assert out.view_entropy[out.selected].tolist() == out.view_entropy.sort().values[:4].tolist()


@pytest.mark.parametrize("name", KEEPING)
def test_a_method_that_keeps_views_reads_them(engine: tpt.PromptEngine, name: str) -> None:
    method = make_method(name, engine, {"keep": 0.5})
    assert method.reads_views
    assert METHODS[name].reads_views(method.settings)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
@pytest.mark.parametrize("name", ["tpt", "ctpt", "tps", "rtpt"])
def test_no_step_is_refused(engine: tpt.PromptEngine, name: str, steps: Any) -> None:
    with pytest.raises(MethodError, match=f"steps must be at least 1; got {steps}"):
        make_method(name, engine, {"steps": steps})


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["tpt", "ctpt", "tps", "rtpt"])
def test_a_rate_that_is_not_positive_is_refused(
    engine: tpt.PromptEngine, name: str, lr: float
) -> None:
    with pytest.raises(MethodError, match=f"lr must be a positive number; got {lr}"):
        make_method(name, engine, {"lr": lr})


@pytest.mark.parametrize(
    ("name", "option", "bad", "text"),
    [
        ("ctpt", "weight", -1, "weight is how much dispersion counts, a number from 0 on; got -1"),
        ("ctpt", "weight", float("inf"), "a number from 0 on; got inf"),
        ("mta", "lambda_y", 0, "evenly the inlierness is spread, a number above 0; got 0"),
        ("mta", "lambda_q", -0.5, "lambda_q is how much similar views count, a number from 0 on"),
        ("mta", "lambda_q", float("nan"), "a number from 0 on; got nan"),
    ],
)
def test_a_weight_outside_its_range_is_refused(
    engine: tpt.PromptEngine, name: str, option: str, bad: float, text: str
) -> None:
    with pytest.raises(MethodError) as caught:
        make_method(name, engine, {option: bad})
    assert text in str(caught.value)


# --- through the runtime ---


@pytest.mark.parametrize("name", METHODS)
def test_a_stream_runs_with_every_method(tiny: tpt.Clip, name: str) -> None:
    method: Method = make_method(name, tpt.PromptEngine(tiny, ["cat", "dog", "old_ship"]))
    pixels = [torch.full((3, 40, 48), level, dtype=torch.uint8) for level in (30, 120)]
    records = list(tpt.stream(pixels, method, tpt.Views(tiny, n=4), batch_size=2))
    assert [record.error for record in records] == [None, None]
    assert all(record.zero_shot is not None for record in records)


# --- copies, threads, and what is edited later ---

HOLDERS = [*METHODS, "tpt, carried", "gate of tda"]
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda one: pickle.loads(pickle.dumps(one))}


def make(name: str, engine: tpt.PromptEngine) -> Method:
    if name == "tpt, carried":
        return tpt.TPT(engine, reset="never")
    return tpt.Gate(tpt.TDA(engine), 1.0) if name == "gate of tda" else make_method(name, engine)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", HOLDERS)
def test_a_copy_goes_on_as_the_method_itself(
    golden: SimpleNamespace, name: str, used: bool, how: str
) -> None:
    method = make(name, tpt.PromptEngine(golden.clip, NAMES))
    if used:
        method.adapt_features(unit_features(8, 32, seed=1))
    other = COPIES[how](method)
    for seed in (2, 3):
        want = method.adapt_features(unit_features(8, 32, seed=seed))
        assert_same(other.adapt_features(unit_features(8, 32, seed=seed)), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STATELESS)
def test_many_threads_get_what_one_gets(
    request: pytest.FixtureRequest, name: str, kind: str
) -> None:
    method = make_method(name, request.getfixturevalue(kind))
    images = [unit_features(8, 32, seed=seed) for seed in range(12)]
    want = [method.adapt_features(image) for image in images]
    fresh = tpt.Gate(make_method(name, method.engine), 1.0)
    with ThreadPoolExecutor(4) as pool:
        for got, alone in zip(pool.map(method.adapt_features, images), want, strict=True):
            assert_same(got, alone)
        list(pool.map(fresh.adapt_features, images))
    assert fresh.seen == len(images)


@pytest.mark.parametrize("name", HOLDERS)
def test_edits_of_what_was_given_or_taken_change_nothing_later(
    golden: SimpleNamespace, name: str
) -> None:
    start = tpt.Context.from_words(golden.clip, "a photo of a")
    context = tpt.Context(start.vectors)
    methods = [make(name, tpt.PromptEngine(golden.clip, NAMES, context)) for _ in range(2)]
    edited = methods[0].engine
    context.vectors.zero_()
    for constant in (
        edited.start,
        edited.start_features(),
        methods[0].start_classes(torch.ones(1)),
    ):
        constant.zero_()
    given = unit_features(8, 32, seed=1)
    for value in as_dict(methods[0].adapt_features(given)).values():
        value.zero_()
    given.zero_()
    methods[1].adapt_features(unit_features(8, 32, seed=1))
    later = [method.adapt_features(unit_features(8, 32, seed=2)) for method in methods]
    assert_same(*later)


@pytest.mark.parametrize("name", [name for name in HOLDERS if name not in STATELESS])
def test_a_method_with_state_serves_one_stream_at_a_time(tiny: tpt.Clip, name: str) -> None:
    method, views = make(name, tpt.PromptEngine(tiny, NAMES)), tpt.Views(tiny, n=2)
    images = [torch.zeros(3, 70, 80, dtype=torch.uint8)] * 3
    first = tpt.stream(images, method, views)
    next(first)
    with pytest.raises(MethodError, match="serves another stream already"):
        next(tpt.stream(images, method, views))
    assert next(tpt.stream(images, copy.deepcopy(method), views)).predictions
    assert len(list(first)) == 2
    assert len(list(tpt.stream(images, method, views))) == 3
    broken_off = tpt.stream(images, method, views)
    next(broken_off)
    broken_off.close()
    assert len(list(tpt.stream(images, method, views))) == 3


def test_a_method_without_state_serves_many_streams(tiny: tpt.Clip) -> None:
    method, views = tpt.VTE(tpt.PromptEngine(tiny, NAMES)), tpt.Views(tiny, n=2)
    streams = [tpt.stream([torch.zeros(3, 9, 9)] * 2, method, views) for _ in range(2)]
    assert [len(list(zip(*streams, strict=True)))] == [2]
