"""Every golden value of the public MTA, ZERO, TDA, C-TPT programs and of VTE, by public names."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PARITY
from torch import Tensor

import tpt

CASE = SimpleNamespace(**json.loads((PARITY / "methods.json").read_text())["cases"][0])


@pytest.fixture(scope="module")
def want() -> dict[str, Tensor]:
    with np.load(PARITY / "methods.npz") as arrays:
        return {key.split("/", 1)[1]: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    context = tpt.Context.from_words(golden.clip, CASE.ctx_words)
    return tpt.PromptEngine(golden.clip, CASE.classes, context)


def assert_close_logits(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=2e-3, rtol=0)
    assert got.argmax(-1).tolist() == want.argmax(-1).tolist()


def test_the_features_are_those_of_the_public_programs(
    golden: SimpleNamespace, engine: tpt.PromptEngine, want: dict[str, Tensor]
) -> None:
    views = torch.stack([golden.views(seed, CASE.n_views) for seed in CASE.views_seeds])
    got = golden.clip.encode_views(views)
    torch.testing.assert_close(got, want["image_features"], atol=2e-5, rtol=0)
    torch.testing.assert_close(engine.class_features(), want["text_features"], atol=2e-5, rtol=0)


def test_vte_agrees_with_plain_averaging(engine: tpt.PromptEngine, want: dict[str, Tensor]) -> None:
    out = tpt.VTE(engine, keep=CASE.keep).adapt_features(want["image_features"])
    assert_close_logits(out.logits, want["vte_logits"])


def test_zero_counts_the_votes_of_the_public_program(
    engine: tpt.PromptEngine, want: dict[str, Tensor]
) -> None:
    out = tpt.ZERO(engine, keep=CASE.zero_keep).adapt_features(want["image_features"])
    assert out.votes is not None
    assert out.votes.tolist() == want["zero_votes"].tolist()
    assert out.logits.argmax(-1).tolist() == want["zero_votes"].argmax(-1).tolist()


def test_mta_agrees_with_the_public_program(
    engine: tpt.PromptEngine, want: dict[str, Tensor]
) -> None:
    out = tpt.MTA(engine, **CASE.mta).adapt_features(want["image_features"])
    assert_close_logits(out.logits, want["mta_logits"])


@pytest.mark.parametrize("batch", [1, 24])
def test_tda_agrees_with_the_public_program_after_every_image(
    engine: tpt.PromptEngine, want: dict[str, Tensor], batch: int
) -> None:
    assert CASE.tda["scale"] == pytest.approx(engine.clip.logit_scale)
    positive, negative = CASE.tda["pos"], CASE.tda["neg"]
    method = tpt.TDA(
        engine,
        positive_capacity=positive["shot_capacity"],
        alpha=positive["alpha"],
        beta=positive["beta"],
        negative_capacity=negative["shot_capacity"],
        negative_alpha=negative["alpha"],
        negative_beta=negative["beta"],
        entropy_low=negative["entropy_threshold"]["lower"],
        entropy_high=negative["entropy_threshold"]["upper"],
        mask_low=negative["mask_threshold"]["lower"],
        mask_high=negative["mask_threshold"]["upper"],
    )
    stream = want["tda_stream"].unsqueeze(1)  # (24, 1, E)
    got = torch.cat([method.adapt_features(part).logits for part in stream.split(batch)])
    assert_close_logits(got, want["tda_logits"])
    assert method.settings == tpt.TDA(engine).settings  # the case has the published defaults


@pytest.mark.parametrize("path", ["packed", "full"])
def test_ctpt_agrees_with_the_public_program(
    golden: SimpleNamespace, engine: tpt.PromptEngine, want: dict[str, Tensor], path: str
) -> None:
    engine = tpt.PromptEngine(golden.clip, CASE.classes, engine.context, path=path)
    method = tpt.CTPT(engine, weight=CASE.ctpt["weight"], keep=CASE.keep, lr=CASE.ctpt["lr"])
    out = method.adapt_features(want["image_features"][0])
    assert out.loss is not None
    assert out.gradient is not None
    torch.testing.assert_close(out.loss, want["ctpt_loss"], atol=0, rtol=1e-4)
    assert (out.gradient - want["ctpt_grad"]).norm() <= 1e-3 * want["ctpt_grad"].norm()
    assert_close_logits(out.logits, want["ctpt_logits"])
