"""TDA against a plain rendering of its caches; what it keeps, saves, refuses and warns of."""

from __future__ import annotations

import copy
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import tpt
from tpt.errors import MethodError, OutputError
from tpt.methods._feature_cache import Cache

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


@pytest.fixture(scope="module")
def mixed(engine: tpt.PromptEngine) -> Tensor:
    """A stream (60, 6, E) in which every class is named and entropies vary."""
    rng = torch.Generator().manual_seed(5)
    classes = F.normalize(engine.class_features() - engine.class_features().mean(0), dim=-1)
    own = classes[torch.arange(60) % 4] * torch.rand(60, 1, generator=rng)
    own = own + 0.1 * torch.randn(60, 32, generator=rng)
    return F.normalize(own.unsqueeze(1) + 0.1 * torch.randn(60, 6, 32, generator=rng), dim=-1)


class Plain:
    """The method with dictionaries of lists, one entry after the other."""

    def __init__(self, engine: tpt.PromptEngine, keep: float | None, **changes: Any) -> None:
        self.classes = engine.class_features().double()
        self.keep, self.set = keep, tpt.TDA(engine, **changes).settings
        self.positive: dict[int, list[tuple[float, Tensor]]] = {}
        self.negative: dict[int, list[tuple[float, Tensor, Tensor]]] = {}

    def adapt(self, views: Tensor) -> Tensor:
        logits = 100 * views.double() @ self.classes.T
        p = logits.softmax(-1)
        order = (-torch.special.xlogy(p, p).sum(-1)).argsort(stable=True)
        kept = order[: max(1, int((self.keep or 0) * len(views)))] if self.keep else [0]
        feature, plain, p = views.double()[kept].mean(0), logits[kept].mean(0), p[kept].mean(0)
        entropy = -float(torch.special.xlogy(p, p).sum())
        label, s = int(plain.argmax()), self.set
        offer(self.positive, label, (entropy, feature), s.positive_capacity)
        if s.entropy_low < entropy / math.log2(len(p)) < s.entropy_high:
            mark = ((p > s.mask_low) & (p < s.mask_high)).double()
            offer(self.negative, label, (entropy, feature, mark), s.negative_capacity)
        for taken, entries in self.positive.items():
            for _, key in entries:
                plain[taken] += s.alpha * torch.exp(-s.beta * (1 - feature @ key))
        for entries in self.negative.values():
            for _, key, mark in entries:
                near = torch.exp(-s.negative_beta * (1 - feature @ key))
                plain = plain - s.negative_alpha * near * mark
        return plain.float()


def offer(cache: dict[int, list[Any]], label: int, entry: tuple[Any, ...], capacity: int) -> None:
    own = cache.setdefault(label, [])
    if len(own) < capacity:
        own.append(entry)
    elif capacity and entry[0] < own[-1][0]:
        own[-1] = entry
    own.sort(key=lambda item: item[0])


# --- what it computes ---


@pytest.mark.parametrize("keep", [None, 0.5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"alpha": 1.0, "beta": 8.0},
        {"positive_capacity": 1, "negative_capacity": 4},
        {"positive_capacity": 0, "negative_alpha": 3.0},
        {"negative_capacity": 0},
        {"entropy_low": 0.0, "entropy_high": 1.0, "mask_low": 0.1, "mask_high": 0.6},
    ],
)
def test_it_is_the_method_of_the_paper(
    engine: tpt.PromptEngine, mixed: Tensor, keep: float | None, changes: dict[str, Any]
) -> None:
    method, plain = tpt.TDA(engine, keep=keep, **changes), Plain(engine, keep, **changes)
    out = method.adapt_features(mixed)
    want = torch.stack([plain.adapt(image) for image in mixed])
    torch.testing.assert_close(out.logits, want, atol=2e-3, rtol=0)
    held = {"positive": plain.positive, "negative": plain.negative}
    assert method.cached == {
        name: sum(map(len, held[name].values()))
        for name in ("positive", "negative")
        if getattr(method.settings, f"{name}_capacity")
    }
    assert min(method.cached.values()) > 0


def test_by_default_only_view_0_counts(engine: tpt.PromptEngine, mixed: Tensor) -> None:
    method = tpt.TDA(engine)
    alone = method.adapt_features(mixed[:, :1]).logits
    method.reset()
    assert torch.equal(method.adapt_features(mixed).logits, alone)
    assert not method.reads_views
    assert tpt.TDA(engine, keep=0.1).reads_views


def test_only_view_0_of_the_pictures_is_looked_at(
    engine: tpt.PromptEngine, golden: SimpleNamespace
) -> None:
    views = golden.views(1, 4)
    spoilt = views.clone()
    spoilt[1:] = float("nan")
    got, want = (tpt.TDA(engine).adapt(v).logits for v in (spoilt, views))
    assert torch.equal(got, want)


def test_an_image_learns_from_those_before_it_alone(
    engine: tpt.PromptEngine, mixed: Tensor
) -> None:
    whole = tpt.TDA(engine).adapt_features(mixed).logits
    half = tpt.TDA(engine).adapt_features(mixed[:30]).logits
    assert torch.equal(whole[:30], half)
    assert not torch.equal(tpt.TDA(engine).adapt_features(mixed[30:]).logits, whole[30:])


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_a_stream_may_be_cut_into_any_batches(
    engine: tpt.PromptEngine, mixed: Tensor, batch: int
) -> None:
    method = tpt.TDA(engine)
    got = torch.cat([method.adapt_features(part).logits for part in mixed.split(batch)])
    assert torch.equal(got, tpt.TDA(engine).adapt_features(mixed).logits)


# --- what it keeps ---


@pytest.mark.filterwarnings("ignore:.*looks correlated")
def test_the_caches_never_outgrow_their_capacity(engine: tpt.PromptEngine) -> None:
    method = tpt.TDA(engine, entropy_low=0.0, entropy_high=1.0)
    rng = torch.Generator().manual_seed(1)
    sizes = {name: tensor.nbytes for name, tensor in method._tensors().items()}
    for _ in range(20):
        method.adapt_features(F.normalize(torch.randn(50, 1, 32, generator=rng), dim=-1))
        assert method.cached["positive"] <= 3 * 4
        assert method.cached["negative"] <= 2 * 4
    assert {name: tensor.nbytes for name, tensor in method._tensors().items()} == sizes


def test_a_cache_holds_the_most_confident_in_order() -> None:
    cache = Cache(2, 3, 4, marked=True, device=torch.device("cpu"))
    entropies = [0.5, 0.9, 0.1, 0.9, 0.3, 0.5, 0.2]
    for place, value in enumerate(entropies):
        key, mark = torch.full((4,), float(place)), torch.tensor([place % 2 == 0, True])
        cache.offer(1, torch.tensor(value), key, mark)
    assert len(cache) == 3
    assert cache.entropies[1].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert cache.keys[1, :, 0].tolist() == [2, 6, 4]
    assert cache.marks is not None
    assert cache.marks[1, :, 0].tolist() == [True, True, True]
    assert cache.affinity(torch.ones(4), 1.0)[0].tolist() == [0, 0, 0]


def test_of_equal_entropies_the_first_stays() -> None:
    cache = Cache(1, 1, 2, marked=False, device=torch.device("cpu"))
    for place in range(2):
        cache.offer(0, torch.tensor(0.5), torch.full((2,), float(place)))
    assert cache.keys[0, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("reset", "call", "forgets"),
    [
        ("stream", "start_stream", True),
        ("stream", "reset", True),
        ("never", "start_stream", False),
        ("never", "reset", True),
    ],
)
def test_what_empties_the_caches(
    engine: tpt.PromptEngine, mixed: Tensor, reset: str, call: str, forgets: bool
) -> None:
    method = tpt.TDA(engine, reset=reset)
    first = method.adapt_features(mixed).logits
    getattr(method, call)()
    assert (sum(method.cached.values()) == 0) is forgets
    assert torch.equal(method.adapt_features(mixed).logits, first) is forgets


def test_it_works_on_where_the_caller_forbids_gradients(
    engine: tpt.PromptEngine, mixed: Tensor
) -> None:
    expected = tpt.TDA(engine).adapt_features(mixed).logits
    method = tpt.TDA(engine)
    with torch.inference_mode():
        first = method.adapt_features(1 * mixed[:30]).logits
    second = method.adapt_features(mixed[30:]).logits
    assert torch.equal(torch.cat([first, second]), expected)


# --- a state as a file ---


@pytest.mark.parametrize("keep", [None, 0.5])
@pytest.mark.parametrize("through", ["adapt_features", "start_stream"])
def test_a_saved_state_goes_on_with_the_bits_of_the_unbroken_stream(
    engine: tpt.PromptEngine, mixed: Tensor, tmp_path: Path, keep: float | None, through: str
) -> None:
    unbroken = tpt.TDA(engine, keep=keep).adapt_features(mixed).logits
    before = tpt.TDA(engine, keep=keep)
    before.adapt_features(mixed[:31])
    before.save_state(tmp_path / "state.safetensors")
    after = tpt.TDA(engine, keep=keep)
    after.load_state(tmp_path / "state.safetensors")
    if through == "start_stream":  # the next stream starts with what was loaded; another afresh
        after.start_stream()
    assert after.cached == before.cached
    assert torch.equal(after.adapt_features(mixed[31:]).logits, unbroken[31:])
    after.start_stream()
    assert sum(after.cached.values()) == 0


def test_a_state_of_one_cache_is_saved_too(
    engine: tpt.PromptEngine, mixed: Tensor, tmp_path: Path
) -> None:
    method = tpt.TDA(engine, negative_capacity=0)
    method.adapt_features(mixed)
    method.save_state(tmp_path / "state.safetensors")
    other = tpt.TDA(engine, negative_capacity=0)
    other.load_state(tmp_path / "state.safetensors")
    assert other.cached == method.cached
    with pytest.raises(MethodError, match="Use the capacities and the model it was made with"):
        tpt.TDA(engine).load_state(tmp_path / "state.safetensors")


@pytest.fixture
def saved(engine: tpt.PromptEngine, mixed: Tensor, tmp_path: Path) -> Path:
    method = tpt.TDA(engine)
    method.adapt_features(mixed)
    method.save_state(tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def refuse(engine: tpt.PromptEngine, path: Path, **changes: Any) -> str:
    """The message of the refusal; the caches are then as they were."""
    method = tpt.TDA(engine, **changes)
    with pytest.raises(MethodError) as caught:
        method.load_state(path)
    assert sum(method.cached.values()) == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["cat", "dog", "bird", "ice cream"], 'Class number 3 of the state of TDA "'),
        (["dog", "cat", "golden retriever", "ice cream"], 'is "cat", but "dog" was given there'),
        (["cat", "dog"], "was made for 4 classes, but there are 2. Give the same classes"),
    ],
)
def test_a_state_of_other_classes_is_refused(
    golden: SimpleNamespace, saved: Path, names: list[str], text: str
) -> None:
    assert text in refuse(tpt.PromptEngine(golden.clip, names), saved)


def test_classes_written_otherwise_are_the_same(golden: SimpleNamespace, saved: Path) -> None:
    same = [name.replace(" ", "_") for name in NAMES]
    method = tpt.TDA(tpt.PromptEngine(golden.clip, same))
    assert sum(len(cache) for cache in method._caches.values()) == 0
    method.load_state(saved)
    assert sum(len(cache) for cache in method._caches.values()) > 0


def test_a_state_of_another_model_is_refused(
    golden: SimpleNamespace, mixed: Tensor, tmp_path: Path
) -> None:
    def named(name: str, pretrained: str | None, moved: float = 0.0) -> tpt.PromptEngine:
        model = copy.deepcopy(golden.clip.model)
        model.visual.proj.data += moved
        clip = tpt.Clip(model, golden.clip.tokenizer, name=name, pretrained=pretrained)
        return tpt.PromptEngine(clip, NAMES)

    path = tmp_path / "state.safetensors"
    method = tpt.TDA(named("ViT-B-16", "openai"))
    method.adapt_features(mixed)
    method.save_state(path)
    message = refuse(named("ViT-B-32", "openai", 0.1), path)
    assert "was made with ViT-B-16 (openai), but the model is ViT-B-32 (openai)" in message
    assert "is ViT-B-16 (openai) with other weights" in refuse(
        named("ViT-B-16", "openai", 0.1), path
    )
    for same in ("ViT-B-16", "local-dir:/elsewhere"):
        tpt.TDA(named(same, "openai")).load_state(path)


def test_a_state_of_other_capacities_is_refused(engine: tpt.PromptEngine, saved: Path) -> None:
    message = refuse(engine, saved, positive_capacity=5)
    assert "positive.keys (4, 3, 32)" in message
    assert "positive.keys (4, 5, 32)" in message


def test_a_state_ends_in_safetensors(engine: tpt.PromptEngine, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"ends in \.safetensors, but .*state\.pt. does not"):
        tpt.TDA(engine).save_state(tmp_path / "state.pt")


def test_a_state_that_cannot_be_written_says_so(engine: tpt.PromptEngine, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="The state of TDA could not be saved"):
        tpt.TDA(engine).save_state(tmp_path / "nowhere" / "state.safetensors")


def test_what_is_no_state_is_refused(engine: tpt.PromptEngine, saved: Path) -> None:
    folder = saved.parent
    assert "cannot be read" in refuse(engine, folder / "missing.safetensors")
    (folder / "short.safetensors").write_bytes(saved.read_bytes()[:200])
    assert "is damaged or truncated" in refuse(engine, folder / "short.safetensors")
    save_file({"vectors": torch.zeros(4, 64)}, folder / "prompt.safetensors")
    assert "is not a state of TDA" in refuse(engine, folder / "prompt.safetensors")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format_version": 2}, "has format version 2, but this version of tpt-runtime reads 1"),
        ({"classes": 7}, "it names no classes"),
    ],
)
def test_a_state_with_other_metadata_is_refused(
    engine: tpt.PromptEngine, saved: Path, change: dict[str, Any], text: str
) -> None:
    head = {"format": "tpt-tda-state", "format_version": 1, "classes": NAMES, **change}
    meta = {key: json.dumps(value) for key, value in head.items()}
    save_file(load_file(saved), saved, metadata=meta)
    assert text in refuse(engine, saved)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("positive.keys", torch.full((4, 3, 32), float("nan")), "positive.keys holds NaN"),
        ("positive.entropies", torch.zeros(4, 3).half(), "entropies holds torch.float16"),
    ],
)
def test_a_state_with_other_numbers_is_refused(
    engine: tpt.PromptEngine, saved: Path, name: str, value: Tensor, text: str
) -> None:
    head = {"format": "tpt-tda-state", "format_version": 1, "classes": NAMES}
    meta = {key: json.dumps(content) for key, content in head.items()}
    save_file({**load_file(saved), name: value}, saved, metadata=meta)
    assert text in refuse(engine, saved)


# --- correlated streams ---


def test_a_correlated_stream_is_warned_of_once(engine: tpt.PromptEngine, mixed: Tensor) -> None:
    method = tpt.TDA(engine)
    plain = engine.logits(mixed[:, 0], engine.class_features()).argmax(-1)
    other = int((plain != plain[0]).nonzero()[0])
    method.adapt_features(mixed[:1].expand(45, -1, -1))
    method.adapt_features(mixed[other])
    with pytest.warns(UserWarning, match="46 of the last 50 images were taken for") as caught:
        method.adapt_features(mixed[:1].expand(100, -1, -1))
    assert len(caught) == 1
    assert f'"{NAMES[int(plain[0])]}": the stream looks correlated' in str(caught[0].message)
    assert "Shuffle the images" in str(caught[0].message)
    method.start_stream()
    with pytest.warns(UserWarning, match="looks correlated"):
        method.adapt_features(mixed[:1].expand(60, -1, -1))


def test_a_mixed_stream_is_not_warned_of(engine: tpt.PromptEngine, mixed: Tensor) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tpt.TDA(engine).adapt_features(mixed.repeat(3, 1, 1))
    assert caught == []


def test_with_two_classes_one_may_prevail(golden: SimpleNamespace, mixed: Tensor) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method = tpt.TDA(tpt.PromptEngine(golden.clip, ["cat", "dog"]))
        method.adapt_features(mixed[:1].expand(100, -1, -1))
    assert caught == []


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"positive_capacity": -1}, "positive_capacity is how many images a class are cached"),
        ({"negative_capacity": 1.5}, "a whole number from 0 on; got 1.5"),
        ({"positive_capacity": 0, "negative_capacity": 0}, "Without any cache the method is zero"),
        ({"alpha": -1}, "alpha is a weight of the caches, a number from 0 on; got -1"),
        ({"negative_beta": float("nan")}, "negative_beta is a weight of the caches"),
        ({"entropy_low": 0.6}, "0 <= low < high <= 1 is expected; got 0.6 and 0.5"),
        ({"mask_high": 1.1}, "mask_low and mask_high bound a share"),
        ({"keep": 0.0}, r"keep is the share of views kept, in (0, 1]"),
        ({"reset": "image"}, 'Unknown reset "image": expected stream (the default) or never.'),
    ],
)
def test_a_setting_outside_its_range_is_refused(
    engine: tpt.PromptEngine, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.TDA(engine, **changes)
    assert text in str(caught.value)


def test_settings_are_checked_wherever_they_are_made(engine: tpt.PromptEngine) -> None:
    with pytest.raises(MethodError, match="alpha is a weight"):
        replace(tpt.TDA(engine).settings, alpha=-1.0)
