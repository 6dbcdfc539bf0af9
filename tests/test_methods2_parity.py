"""Golden values of the public TPS, O-TPT, A-TPT, R-TPT, OGA and StatA programs, by public names.

What each program computes, and where it departs from its paper, is in the docstrings of the
methods; `tests/parity/methods2.json` holds the settings of every run.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PARITY
from torch import Tensor

import tpt

CASES = {case["name"]: case for case in json.loads((PARITY / "methods2.json").read_text())["cases"]}
NAMES = ("TPS", "OTPT", "ATPT", "RTPT", "OGA", "StatA")


def runs(kind: str) -> list[Any]:
    """(case name, run) of every run of this kind that a method of ours answers."""
    return [
        pytest.param(case["name"], run, id=f"{case['name']}-{run['key']}")
        for case in CASES.values()
        for run in case["runs"]
        if case["kind"] == kind and run["method"] in NAMES
    ]


@pytest.fixture(scope="module")
def want() -> dict[str, Tensor]:
    with np.load(PARITY / "methods2.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="module")
def engines(golden: SimpleNamespace) -> dict[str, tpt.PromptEngine]:
    made = {}
    for name, case in CASES.items():
        context = tpt.Context.from_words(golden.clip, case["ctx_words"].replace("_", " "))
        made[name] = tpt.PromptEngine(golden.clip, case["classes"], context)
    return made


def make(engine: tpt.PromptEngine, run: dict[str, Any]) -> Any:
    def only(*names: str) -> dict[str, Any]:
        return {name: run[name] for name in names if name in run}

    match run["method"]:
        case "TPS":
            return tpt.TPS(engine, **only("keep", "steps", "lr", "per_class"))
        case "OTPT":
            return tpt.CTPT(engine, penalty="orthogonal", **only("weight", "keep", "lr"))
        case "ATPT":
            return tpt.CTPT(engine, penalty="angular", **only("weight", "keep", "lr"))
        case "RTPT":
            return tpt.RTPT(engine, **only("keep", "lr", "neighbours", "temperature"))
        case "OGA":
            return tpt.OGA(engine, **only("capacity", "tau", "normalize"))
    return tpt.StatA(engine, **only("alpha", "laplacian", "neighbours", "soft", "rounds"))


@pytest.mark.parametrize("name", CASES)
def test_the_class_features_are_those_of_the_public_programs(
    engines: dict[str, tpt.PromptEngine], want: dict[str, Tensor], name: str
) -> None:
    torch.testing.assert_close(
        engines[name].class_features(), want[f"{name}/text_features"], atol=2e-5, rtol=0
    )


@pytest.mark.parametrize(("case", "run"), runs("tune"))
def test_tuning_agrees_with_the_public_program(
    engines: dict[str, tpt.PromptEngine], want: dict[str, Tensor], case: str, run: dict[str, Any]
) -> None:
    key = f"{case}/{run['key']}"
    out = make(engines[case], run).adapt_features(want[f"{case}/image_features"])
    torch.testing.assert_close(out.logits, want[f"{key}_logits"], atol=5e-3, rtol=0)
    assert out.logits.argmax(-1).tolist() == want[f"{key}_logits"].argmax(-1).tolist()
    loss = want[f"{key}_loss"].reshape(len(out.loss), -1)[:, 0]
    torch.testing.assert_close(out.loss, loss, atol=2e-6, rtol=2e-4)
    if f"{key}_grad" in want:
        gap = (out.gradient - want[f"{key}_grad"]).flatten(1).norm(dim=1)
        assert (gap <= 2e-3 * want[f"{key}_grad"].flatten(1).norm(dim=1)).all()
    if f"{key}_selected" in want:
        chosen = want[f"{key}_selected"]
        assert out.selected.tolist() == (chosen if chosen.ndim == 2 else chosen[:, 0]).tolist()


def test_the_views_of_rtpt_are_weighed_as_by_the_public_program(
    engines: dict[str, tpt.PromptEngine], want: dict[str, Tensor]
) -> None:
    from tpt.methods.rtpt import weigh_views

    got = weigh_views(want["m2_tune/image_features"], 20, 0.01)
    torch.testing.assert_close(got, want["m2_tune/rtpt_self_excluded_weights"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("case", "run"), runs("stream"))
def test_a_stream_agrees_with_the_public_program_after_every_batch(
    engines: dict[str, tpt.PromptEngine], want: dict[str, Tensor], case: str, run: dict[str, Any]
) -> None:
    method = make(engines[case], run)
    stream, stored, got = want[f"{case}/stream"].unsqueeze(1), [], []
    for part in stream.split(run["batch"]):
        before = method.stored
        got.append(method.adapt_features(part).logits.softmax(-1))
        stored.append(method.stored - before)
    want_probs = want[f"{case}/{run['key']}_probs"]
    torch.testing.assert_close(torch.cat(got), want_probs, atol=3e-5, rtol=0)
    if f"{case}/{run['key']}_stored" in want and run["batch"] == 1:
        entered = want[f"{case}/{run['key']}_stored"]
        assert sum(stored) <= int(entered.sum())  # an image may take another's place
        assert all(bool(e) for e, s in zip(entered, stored, strict=True) if s)


@pytest.mark.parametrize(("case", "run"), runs("batch"))
def test_a_batch_agrees_with_the_public_program(
    engines: dict[str, tpt.PromptEngine], want: dict[str, Tensor], case: str, run: dict[str, Any]
) -> None:
    method = make(engines[case], run)
    key = f"{case}/{run['key']}"
    batches = zip(want[f"{key}_features"], want[f"{key}_probs"], strict=True)
    for features, probs in batches:
        out = method.adapt_features(features.unsqueeze(1))
        torch.testing.assert_close(out.logits.softmax(-1), probs, atol=3e-5, rtol=0)


# --- methods that tune the towers ---


def tower_runs() -> list[Any]:
    return [
        pytest.param(run, id=run["key"])
        for run in CASES["m2_images"]["runs"]
        if run["method"] in ("TENT", "BATCLIP")
    ]


@pytest.mark.parametrize("run", tower_runs())
def test_tuning_the_towers_agrees_with_the_public_program(
    golden: SimpleNamespace,
    engines: dict[str, tpt.PromptEngine],
    want: dict[str, Tensor],
    run: dict[str, Any],
) -> None:
    low = want["m2_images/low"]
    pictures = low.repeat_interleave(4, 2).repeat_interleave(4, 3).unsqueeze(1)
    before = {name: p.clone() for name, p in golden.clip.model.named_parameters()}
    options = {name: run[name] for name in ("lr", "optimizer", "weight_decay")}
    method = getattr(tpt, run["method"])(engines["m2_images"], **options)
    out = method.adapt(pictures)
    key = f"m2_images/{run['key']}"
    torch.testing.assert_close(out.logits, want[f"{key}_logits_before"], atol=1e-2, rtol=0)
    torch.testing.assert_close(out.loss, want[f"{key}_loss"], atol=0, rtol=2e-4)
    after = method.adapt(pictures).logits
    torch.testing.assert_close(after, want[f"{key}_logits_after"], atol=2e-2, rtol=0)
    method.reset()
    torch.testing.assert_close(method.adapt(pictures).logits, out.logits, atol=1e-4, rtol=0)
    for name, p in golden.clip.model.named_parameters():  # the caller's weights
        assert torch.equal(p, before[name])
        assert not p.requires_grad
