"""The published figures: as the papers print them, and for which models they hold."""

from __future__ import annotations

import pytest

from tpt.evaluate.published import SHIFTS, SPLITS, harmonic_mean, model_rows


def find(method: str, model: str = "ViT-B-16"):
    return next(row for row in SHIFTS if (row.method, row.model) == (method, model))


def test_rows_of_vit_b16_are_the_papers():
    assert find("TPT").accuracy == (0.6898, 0.5477, 0.6345, 0.7706, 0.4794)
    assert find("TPT").fine_grained == 0.6510
    assert find("CoOp, 16 shots, M = 4").accuracy == (0.7151, 0.4971, 0.6420, 0.7521, 0.4799)
    assert find("TPT + CoCoOp").fine_grained is None
    assert find("ZERO, templates").ood_average == 0.6483


def test_rows_of_rn50_are_the_papers():
    assert find("TPT", "RN50").accuracy == (0.6074, 0.2667, 0.5470, 0.5911, 0.3509)
    assert find("TPT", "RN50").ood_average is None


@pytest.mark.parametrize("row", [row for row in SHIFTS if row.ood_average], ids=lambda r: r.method)
def test_an_ood_average_is_the_mean_of_its_four_shifts(row):
    # a figure copied into the wrong column would not add up
    assert sum(row.accuracy[1:]) / 4 == pytest.approx(row.ood_average, abs=1.01e-4)


def test_harmonic_means_are_those_that_the_papers_print():
    printed = {"CLIP": 71.70, "CoOp": 71.66, "CoCoOp": 75.83, "KgCoOp": 77.00, "PromptSRC": 79.97}
    made = {row.method: round(100 * row.harmonic_mean, 2) for row in SPLITS}
    assert made == pytest.approx(printed, abs=0.011)


def test_the_harmonic_mean_of_nothing_is_nothing():
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_every_row_calls_itself_published_and_names_its_paper():
    assert find("TPT").label == "TPT, published (arXiv 2209.07511)"
    assert find("CoCoOp").label == "CoCoOp, published (arXiv 2203.05557, figures from 2209.07511)"
    assert SPLITS[-1].label == "PromptSRC, published (arXiv 2307.06948)"


@pytest.mark.parametrize(
    ("model", "pretrained", "first"),
    [
        ("ViT-B-16", "openai", (0.6673,)),
        ("ViT-B-16-quickgelu", "openai", (0.6673,)),
        ("RN50-quickgelu", "openai", (0.5816,)),
        ("ViT-B-16", "laion2b_s34b_b88k", ()),
        ("ViT-L-14", "openai", ()),
    ],
)
def test_rows_hold_for_openai_weights_of_two_models(model, pretrained, first):
    assert tuple(row.accuracy[0] for row in model_rows(model, pretrained)[:1]) == first
