"""The linear probe finds what the public program's search finds, and is no prompt."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from refusals import refusal
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import tpt
from coop.linear_probe import LinearProbe, fit_linear_probe, save_linear_probe
from tpt.errors import MethodError, OutputError, PromptError

Pictures = tuple[Tensor, Tensor]


def draw_pictures(count: int, classes: int, noise: float, seed: int, width: int = 6) -> Pictures:
    """Unit features around one centre a class, and labels; the centres do not depend on `seed`."""
    centres = torch.randn((classes, width), generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    features = centres[labels] + noise * torch.randn((count, width), generator=rng)
    return torch.nn.functional.normalize(features, dim=-1), labels


def nothing(width: int = 6) -> Pictures:
    return torch.zeros(0, width), torch.zeros(0, dtype=torch.long)


# --- the search ---


def search_as_published(train: Pictures, val: Pictures) -> tuple[float, Any]:
    """The public program's search, plainly: the last step's C, and its classifier."""

    def fit(strength: float) -> tuple[float, Any]:
        model = LogisticRegression(C=strength, max_iter=1000, solver="lbfgs")
        model.fit(train[0].numpy(), train[1].numpy())
        predicted = model.predict(val[0].numpy())
        return sum(predicted == val[1].numpy()) / len(val[1]), model

    strengths = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    peak = strengths[int(np.argmax([fit(strength)[0] for strength in strengths]))]
    left, right = 1e-1 * peak, 1e1 * peak
    for _ in range(8):
        (right_left, model_left), (right_right, model_right) = fit(left), fit(right)
        middle = 0.5 * (np.log10(right) + np.log10(left))
        if right_left < right_right:
            final, model = right, model_right
            left = np.power(10, middle)
        else:
            final, model = left, model_left
            right = np.power(10, middle)
    return final, model


# Left and right both win somewhere, and C moved by one part in 100,000 changes nothing.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("classes", "noise", "seed"), [(2, 1.0, 6), (3, 0.6, 3), (3, 1.5, 1), (4, 1.0, 0)]
)
def test_the_published_search_chooses_c(classes: int, noise: float, seed: int) -> None:
    train = draw_pictures(20 * classes, classes, noise, seed)
    val = draw_pictures(30 * classes, classes, noise, seed + 50)
    strength, model = search_as_published(train, val)
    probe = fit_linear_probe(*train, *val, classes)
    assert probe.strength == pytest.approx(strength, rel=1e-9)
    test = draw_pictures(200, classes, noise, seed + 90)[0]
    got, want = probe.logits(test).argmax(-1), torch.from_numpy(model.predict(test.numpy()))
    assert (got == want).float().mean() > 0.99
    assert probe.weight.shape == (classes, 6)
    assert probe.bias.shape == (classes,)


class Thermometer:
    """A classifier whose accuracy falls evenly with the distance of log10(C) to a best one.

    The pictures are numbers from 0 to 1, the upper half is class 1; its threshold is off by a
    fortieth of that distance.
    """

    best = 0.0

    def __init__(self, C: float, max_iter: int, **more: Any) -> None:  # noqa: N803
        assert max_iter == 1000
        distance = abs(math.log10(C) - self.best)
        self.coef_, self.intercept_ = np.ones((1, 1)), -np.array([0.5 + distance / 40])

    def fit(self, features: Any, labels: Any) -> None:
        pass

    def predict(self, features: Any) -> Any:
        return (features @ self.coef_.T + self.intercept_)[:, 0] > 0


@pytest.mark.parametrize("best", [1.57, 0.31, 0.01, -3.42, -0.86, 5.9, 9.1, -6.73])
def test_eight_halvings_from_the_best_of_seven(
    best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = torch.linspace(0, 1, 7920).unsqueeze(1)
    pictures = (numbers, (numbers[:, 0] > 0.5).long())
    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Thermometer)
    monkeypatch.setattr(sys.modules[__name__], "LogisticRegression", Thermometer)
    monkeypatch.setattr(Thermometer, "best", best)
    strength, _ = search_as_published(pictures, pictures)
    probe = fit_linear_probe(*pictures, *pictures, 2)
    assert probe.strength == pytest.approx(strength, rel=1e-9)
    if abs(best) < 6:
        assert math.log10(probe.strength) == pytest.approx(best, abs=1 / 32)


def test_without_validation_pictures_c_is_1() -> None:
    train = draw_pictures(12, 3, 1.0, 0)
    probe = fit_linear_probe(*train, *nothing(), 3)
    assert probe.strength == 1
    model = LogisticRegression(C=1.0, max_iter=1000).fit(train[0].numpy(), train[1].numpy())
    want = torch.from_numpy(model.decision_function(train[0].numpy())).float()
    torch.testing.assert_close(probe.logits(train[0]), want, atol=1e-4, rtol=0)


def test_one_picture_a_class_is_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = fit_linear_probe(*draw_pictures(30, 30, 0.1, 1), *draw_pictures(30, 30, 0.1, 2), 30)
    assert probe.weight.shape == (30, 6)


# --- what it has learned ---


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classes_that_lie_apart_are_told_apart(classes: int) -> None:
    train, val = (draw_pictures(20, classes, 0.05, seed) for seed in (1, 2))
    probe = fit_linear_probe(*train, *val, classes)
    features, labels = draw_pictures(100, classes, 0.05, 3)
    assert torch.equal(probe.logits(features).argmax(-1), labels)


def test_two_classes_have_a_row_of_weights_each() -> None:
    """scikit-learn has one row for two classes; ours predicts the same, with the same certainty."""
    train = draw_pictures(30, 2, 1.5, 0)
    probe = fit_linear_probe(*train, *nothing(), 2)
    assert probe.weight.shape == (2, 6)
    assert probe.bias.shape == (2,)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(train[0].numpy(), train[1].numpy())
    features = draw_pictures(300, 2, 1.5, 1)[0]
    logits = probe.logits(features)
    assert logits.argmax(-1).tolist() == model.predict(features.numpy()).tolist()
    want = torch.from_numpy(model.predict_proba(features.numpy())).float()
    torch.testing.assert_close(logits.softmax(-1), want, atol=1e-5, rtol=0)


def test_labels_may_come_in_any_order() -> None:
    features, labels = draw_pictures(24, 3, 0.5, 0)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    one = fit_linear_probe(features, labels, *nothing(), 3)
    other = fit_linear_probe(features[order], labels[order], *nothing(), 3)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-3, rtol=0)


# --- what is refused ---


def test_a_class_without_a_picture_is_named_by_numbers() -> None:
    features, labels = draw_pictures(12, 3, 1.0, 0)
    there = labels != 1
    message = refusal(MethodError, fit_linear_probe, features[there], labels[there], *nothing(), 3)
    assert "needs a picture of each of the 3 classes, but 2 have one that can be read" in message


def test_scikit_learn_that_is_not_installed_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    train = draw_pictures(12, 3, 1.0, 0)
    message = refusal(MethodError, fit_linear_probe, *train, *nothing(), 3)
    assert "needs scikit-learn. Install it: pip install 'tpt-runtime[train]'" in message


# --- its file ---


def make_probe() -> LinearProbe:
    return LinearProbe(torch.randn(3, 6), torch.tensor([0.5, -1.0, 2.0]), 31.6)


def test_the_file_holds_weights_and_where_they_came_from(tmp_path: Path) -> None:
    probe, path = make_probe(), tmp_path / "probe.safetensors"
    facts = {"model": "tiny", "pretrained": None, "classes": ["cat", "Hündin", "dog"], "shots": 4}
    save_linear_probe(probe, path, facts)
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("weight", "bias")}
        assert len(list(file.keys())) == 2
        head = {key: json.loads(value) for key, value in file.metadata().items()}
    assert torch.equal(tensors["weight"], probe.weight)
    assert torch.equal(tensors["bias"], probe.bias)
    assert head == {"format": "tpt-linear-probe", "format_version": 1, "C": 31.6, **facts}


def test_weights_that_are_a_view_are_written_as_they_look(tmp_path: Path) -> None:
    probe = LinearProbe(torch.randn(6, 3).T, torch.zeros(3), 1.0)
    save_linear_probe(probe, tmp_path / "probe.safetensors", {})
    with safetensors.safe_open(tmp_path / "probe.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("weight"), probe.weight)


@pytest.mark.parametrize("name", ["probe.pt", "probe", "probe.safetensors.bak"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    message = refusal(MethodError, save_linear_probe, make_probe(), tmp_path / name, {})
    assert "A linear probe is saved as .safetensors" in message
    assert name in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_said_in_a_sentence(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "probe.safetensors"
    message = refusal(OutputError, save_linear_probe, make_probe(), target, {})
    assert str(target) in message
    assert "linear probe" in message


def test_a_linear_probe_is_refused_as_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "probe.safetensors"
    save_linear_probe(make_probe(), path, {"model": "tiny"})
    message = refusal(PromptError, tpt.Context.load, path)
    assert f'"{path}" is not a prompt file' in message
