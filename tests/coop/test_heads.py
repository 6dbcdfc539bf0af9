"""Heads from a few shots: the public programs' numbers, the choices, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import PARITY
from torch import Tensor

from coop.heads import GDA, GDA_ALPHAS, LPPlusPlus, TipAdapter
from tpt.errors import MethodError, PromptError
from tpt.prompts.head import Head

CASE = next(
    case
    for case in json.loads((PARITY / "methods2.json").read_text())["cases"]
    if case["name"] == "m2_shots"
)
RUNS = {run["key"]: run for run in CASE["runs"] if run["method"] is not None}


@pytest.fixture(scope="module")
def want() -> dict[str, Tensor]:
    with np.load(PARITY / "methods2.npz") as arrays:
        found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return {k.split("/", 1)[1]: v for k, v in found.items() if k.startswith("m2_shots/")}


def shots(want: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return want["shot_features"], want["shot_labels"]


def close(got: Tensor, want: Tensor, atol: float = 2e-3) -> None:
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


# --- the public programs ---


@pytest.mark.parametrize("key", [key for key in RUNS if key.startswith("tip")])
def test_tip_adapter_agrees_with_the_public_program(want: dict[str, Tensor], key: str) -> None:
    options = {k: RUNS[key][k] for k in ("alpha", "beta", "epochs", "lr") if k in RUNS[key]}
    head = TipAdapter(want["text_features"], **options).fit(*shots(want))
    close(head.logits(want["test_features"]), want[f"{key}_logits"])


def test_keys_are_the_mean_of_the_passes(want: dict[str, Tensor]) -> None:
    tip = TipAdapter(want["text_features"]).fit(*shots(want), passes=want["shot_passes"])
    assert tip.keys is not None
    close(tip.keys, want["tip_passes_keys"], 1e-5)


@pytest.mark.parametrize("key", ["gda_one_pass", "gda_three_passes"])
def test_gda_agrees_with_the_public_program(want: dict[str, Tensor], key: str) -> None:
    features, labels = shots(want)
    if key == "gda_three_passes":
        passes = F.normalize(want["shot_passes"], dim=-1)
        features, labels = passes.flatten(0, 1), labels.repeat(len(passes))
    zero_shot = 100 * want["test_features"] @ want["text_features"].T
    head = GDA(want["text_features"], alpha=1.0).fit(features, labels)
    close(head.logits(want["test_features"]), zero_shot + want[f"{key}_plain_scores"])
    val = want["val_features"], want["val_labels"]
    chosen = GDA(want["text_features"]).fit(features, labels, val)
    alpha = want[f"{key}_alpha"]
    close(chosen.logits(want["test_features"]), zero_shot + alpha * want[f"{key}_plain_scores"])


@pytest.mark.parametrize("key", ["lpp_zero_bias", "lpp_zero_bias_20"])
def test_lpp_agrees_with_the_public_program(want: dict[str, Tensor], key: str) -> None:
    text, test = want["text_features"], want["test_features"]
    head = LPPlusPlus(text, RUNS[key]["epochs"]).fit(*shots(want))
    close(head.logits(test), want[f"{key}_logits"])
    val = want["val_features"], want["val_labels"]
    best = LPPlusPlus(text, RUNS[key]["epochs"]).fit(*shots(want), val)
    close(best.logits(test), want[f"{key}_best_val_logits"])


# --- choices ---


def test_what_is_given_is_not_chosen(want: dict[str, Tensor]) -> None:
    val = want["val_features"], want["val_labels"]
    tip = TipAdapter(want["text_features"], alpha=0.5, beta=2.0).fit(*shots(want), val)
    assert (tip.alpha, tip.beta) == (0.5, 2.0)
    half = TipAdapter(want["text_features"], alpha=0.5).fit(*shots(want), val)
    assert half.alpha == 0.5
    bare = TipAdapter(want["text_features"]).fit(*shots(want))
    assert (bare.alpha, bare.beta) == (1.17, 1.0)


def test_the_choice_is_by_validation_pictures_alone(want: dict[str, Tensor]) -> None:
    """Of labels that are shuffled the cache can only do harm: it is weighted down."""
    features, labels = shots(want)
    val = want["val_features"], want["val_labels"]
    wrong = labels.roll(8)
    first = GDA(want["text_features"]).fit(features, wrong, val)
    weights = [
        GDA(want["text_features"], alpha).fit(features, wrong).logits(val[0]).argmax(-1)
        for alpha in GDA_ALPHAS
    ]
    best = max(float((w == val[1]).float().mean()) for w in weights)
    assert float((first.logits(val[0]).argmax(-1) == val[1]).float().mean()) == best


def test_training_the_keys_fits_the_shots_better(want: dict[str, Tensor]) -> None:
    features, labels = shots(want)
    loss = [
        F.cross_entropy(
            TipAdapter(want["text_features"], 3, 5.5, epochs)
            .fit(features, labels)
            .logits(features),
            labels,
        )
        for epochs in (0, 20)
    ]
    assert loss[1] < loss[0]


def test_a_small_batch_trains_on_all_pictures_in_the_seeds_order(want: dict[str, Tensor]) -> None:
    made = [
        TipAdapter(want["text_features"], 1, 1, 3, batch=16, seed=seed).fit(*shots(want)).keys
        for seed in (0, 0, 1)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("kind", [TipAdapter, GDA, LPPlusPlus])
def test_one_picture_a_class_and_unequal_numbers_work(want: dict[str, Tensor], kind: Any) -> None:
    features, labels = shots(want)
    first = [int((labels == k).nonzero()[0]) for k in range(10)]
    for chosen in (first, [*first, *range(20)]):
        head = kind(want["text_features"]).fit(features[chosen], labels[chosen])
        assert head.logits(want["test_features"]).isfinite().all()


# --- what is refused ---


@pytest.mark.parametrize("kind", [TipAdapter, GDA, LPPlusPlus])
def test_what_cannot_be_fitted_is_told(want: dict[str, Tensor], kind: Any) -> None:
    features, labels = shots(want)
    with pytest.raises(MethodError, match="a picture of each of the 10 classes, but 9 have one"):
        kind(want["text_features"]).fit(features[labels > 0], labels[labels > 0])
    with pytest.raises(MethodError, match=r"labels \(3,\); expected \(n, 32\) and \(n,\)"):
        kind(want["text_features"]).fit(features, labels[:3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": torch.zeros(3)}, "do not fit together"),
        ({"keys": torch.zeros(4, 2)}, "do not fit together"),
        ({"keys": torch.zeros(1, 2), "labels": torch.tensor([2])}, "do not fit together"),
        ({"keys": torch.zeros(1, 2), "labels": torch.tensor([0.0])}, "do not fit together"),
        ({"bias": torch.tensor([0.0, float("nan")])}, "NaN or infinite numbers"),
        ({"alpha": float("inf")}, "NaN or infinite numbers"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    plain = {"text": torch.ones(2, 2), "weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    with pytest.raises(PromptError, match=words):
        Head("gda", **{**plain, **change})
