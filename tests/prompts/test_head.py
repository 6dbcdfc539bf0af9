"""A head in a prompt file, in an engine, and under the methods that may use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import tpt
from tpt.errors import MethodError, PromptError
from tpt.methods.registry import METHODS, make_method
from tpt.prompts.head import Head

NAMES = ["cat", "dog", "ice cream"]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def make_head(classes: int = 3, width: int = 32) -> Head:
    text = unit(classes, width)
    keys, labels = unit(5, width, seed=1), torch.arange(5) % classes
    return Head("tip-adapter", text, 100 * text, torch.zeros(classes), keys, labels, 2.0, 3.0)


@pytest.fixture
def context(golden: SimpleNamespace) -> tpt.Context:
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    return replace(words, head=make_head()).described(classes=tuple(NAMES))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_head_is_saved_and_read_with_its_prompt(
    context: tpt.Context, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"head{suffix}"
    context.save(path)
    again = tpt.Context.load(path)
    assert again.head is not None
    assert again.sha256 == context.sha256
    assert again.fixed_classes
    features = unit(4, 32, seed=2)
    assert context.head is not None
    assert torch.equal(again.head.logits(features), context.head.logits(features))


def test_the_logits_are_the_equation() -> None:
    head, f = make_head(), unit(4, 32, seed=2)
    assert head.keys is not None
    assert head.labels is not None
    want = f @ head.weight.T
    for i, row in enumerate(f):
        for key, label in zip(head.keys, head.labels, strict=True):
            want[i, label] += 2 * torch.exp(-3 * (1 - row @ key))
    torch.testing.assert_close(head.logits(f), want)


def test_an_engine_answers_with_the_head(golden: SimpleNamespace, context: tpt.Context) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    features = unit(16, 32, seed=2)
    assert context.head is not None
    out = tpt.ZeroShot(engine).adapt_features(features)
    torch.testing.assert_close(out.logits, context.head.logits(features)[0])
    torch.testing.assert_close(engine.start_features(), context.head.text)
    mean = F.normalize(features[tpt.VTE(engine).adapt_features(features).selected].mean(0), dim=-1)
    torch.testing.assert_close(
        tpt.VTE(engine).adapt_features(features).logits, context.head.logits(mean)
    )


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_tune_nothing_work_around_a_head(
    golden: SimpleNamespace, context: tpt.Context, name: str
) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    if METHODS[name].gradient:
        with pytest.raises(MethodError, match=r"has nothing to tune|head has none"):
            make_method(name, engine)
        return
    out = make_method(name, engine).adapt_features(unit(2, 16, 32, seed=3))
    assert out.is_finite
    if METHODS[name].takes_templates:
        with pytest.raises(MethodError, match="has no place for templates"):
            make_method(name, engine, templates=["a sketch of a {}"])


def test_a_gate_skips_by_the_head(golden: SimpleNamespace, context: tpt.Context) -> None:
    engine = tpt.PromptEngine(golden.clip, NAMES, context)
    sure = (
        context.head.keys[:1].unsqueeze(0)
        if context.head and context.head.keys is not None
        else None
    )
    assert sure is not None
    gate = tpt.Gate(tpt.VTE(engine), threshold=0.3)
    gate.adapt_features(sure.expand(1, 4, 32))
    assert gate.skipped == 1


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "dog"], "The head was fitted for 3 classes, but 2 class names were given"),
        (["cat", "dog", "cup"], 'The head was fitted and its class number 3 is "ice cream"'),
    ],
)
def test_a_head_is_for_its_own_classes(
    golden: SimpleNamespace, context: tpt.Context, classes: list[str], words: str
) -> None:
    with pytest.raises(PromptError, match=words):
        tpt.PromptEngine(golden.clip, classes, context)


def test_a_head_of_another_width_is_refused(golden: SimpleNamespace, context: tpt.Context) -> None:
    other = replace(context, head=make_head(width=8))
    with pytest.raises(PromptError, match="reads image features of width 8, but"):
        tpt.PromptEngine(golden.clip, NAMES, other)


def test_a_head_with_another_number_of_names_is_refused(context: tpt.Context) -> None:
    with pytest.raises(PromptError, match="for 4 classes, but 3 class names came with it"):
        replace(context, head=make_head(4))


@pytest.mark.parametrize("change", ["drop", "add", "nan"])
def test_a_damaged_head_is_one_sentence(context: tpt.Context, tmp_path: Path, change: str) -> None:
    from safetensors import safe_open

    path = tmp_path / "head.safetensors"
    context.save(path)
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    tensors = load_file(path)
    if change == "drop":
        del tensors["head.bias"]
    elif change == "add":
        tensors["head.more"] = torch.ones(1)
    else:
        tensors["head.bias"] = tensors["head.bias"] * float("nan")
    save_file(tensors, path, metadata=meta)
    with pytest.raises(PromptError) as caught:
        tpt.Context.load(path)
    words = {"drop": "damaged", "add": "damaged", "nan": "NaN or infinite"}[change]
    assert words in str(caught.value)


def test_tensors_of_a_head_in_a_file_that_says_nothing_of_one_are_strange(
    context: tpt.Context, tmp_path: Path
) -> None:
    path = tmp_path / "head.safetensors"
    save_file({"ctx": context.vectors, "head.weight": torch.ones(2, 2)}, path)
    with pytest.raises(PromptError, match="other learned tensors beside the context vectors"):
        tpt.Context.load(path)
