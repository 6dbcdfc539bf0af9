"""Metrics from a few numbers an image equal the libraries' on whole probability vectors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score
from torchmetrics.classification import MulticlassCalibrationError

from tpt.errors import MethodError, OutputError
from tpt.evaluate.bootstrap import percentile_interval
from tpt.evaluate.image_scores import ImageScores, collect_scores
from tpt.evaluate.metrics import BINS, METRICS, SetMetrics, measure_set

IMAGES, CLASSES = 400, 12
CALIBRATED = ("nll", "brier", "ece15", "ece20")


def draw_probabilities(seed: int, images: int = IMAGES, classes: int = CLASSES) -> Any:
    """Labels (n,) and probabilities (n, classes) that are right somewhat often."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.standard_normal((images, classes))
    logits[np.arange(images), labels] += 1.5
    logits = np.exp(2 * logits)
    return labels, logits / logits.sum(axis=1, keepdims=True)


def describe(labels: Any, p: Any) -> ImageScores:
    """Columns as the evaluation fills them, by their definitions."""
    n = np.arange(len(labels))
    order = np.argsort(-p, axis=1, kind="stable")
    return ImageScores(
        label=labels,
        predicted=order[:, 0],
        rank=np.argmax(order == labels[:, None], axis=1),
        score=p[n, order[:, 0]],
        nll=-np.log(p[n, labels]),
        brier=((p - np.eye(p.shape[1])[labels]) ** 2).sum(axis=1),
        classes=p.shape[1],
    )


def build_columns(label: list[int], predicted: list[int], **changes: Any) -> ImageScores:
    """Small columns with probabilities of 0.5 and ranks that agree with the predictions."""
    n = len(label)
    rank = np.array([int(y != c) for y, c in zip(label, predicted, strict=True)], dtype=np.int64)
    half = np.full(n, 0.5)
    whole = ImageScores(
        np.array(label, dtype=np.int64), np.array(predicted, dtype=np.int64), rank, *[half] * 3, 3
    )
    return dataclasses.replace(whole, **changes)


def as_votes(columns: ImageScores) -> ImageScores:
    return dataclasses.replace(columns, score=None, nll=None, brier=None)


def measure_one(columns: ImageScores, **options: Any) -> SetMetrics:
    return measure_set({"zero-shot": columns}, "zero-shot", **{"resamples": 50} | options)[
        "zero-shot"
    ]


# --- point values ---


def test_point_values_equal_the_libraries_on_whole_probability_vectors() -> None:
    labels, p = draw_probabilities(0)
    metrics = measure_one(describe(labels, p)).metrics
    every = np.arange(CLASSES)
    assert list(metrics) == list(METRICS)
    assert metrics["acc1"] == top_k_accuracy_score(labels, p, k=1, labels=every)
    assert metrics["acc5"] == top_k_accuracy_score(labels, p, k=5, labels=every)
    recall = balanced_accuracy_score(labels, p.argmax(axis=1))
    assert metrics["mean_per_class_recall"] == pytest.approx(recall)
    assert metrics["nll"] == pytest.approx(log_loss(labels, p, labels=every))
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES)
    error = torch.nn.functional.mse_loss(torch.from_numpy(p), one_hot.double())
    assert metrics["brier"] == pytest.approx(CLASSES * error.item())


@pytest.mark.parametrize("bins", BINS)
def test_calibration_error_equals_the_multiclass_one(bins: int) -> None:
    labels, p = draw_probabilities(1)
    whole = MulticlassCalibrationError(CLASSES, n_bins=bins, norm="l1")
    expected = whole(torch.from_numpy(p), torch.from_numpy(labels)).item()
    assert expected > 0.01
    assert measure_one(describe(labels, p)).metrics[f"ece{bins}"] == pytest.approx(expected)


@pytest.mark.parametrize("bins", BINS)
def test_a_reliability_diagram_adds_up_to_the_calibration_error(bins: int) -> None:
    edges = np.concatenate(
        [np.linspace(0, 1, bins + 1), torch.linspace(0, 1, bins + 1, dtype=torch.float64).numpy()]
    )
    label = np.zeros(len(edges), dtype=np.int64)
    predicted = np.arange(len(edges)) % 2  # every other edge right, so a wrong bin would show
    columns = build_columns(label.tolist(), predicted.tolist(), score=edges)
    measured = measure_one(columns)
    assert measured.reliability is not None
    found = measured.reliability[bins]
    assert sum(found.count) == len(edges)
    total = sum(
        n * abs(accuracy - confidence)
        for n, confidence, accuracy in zip(
            found.count, found.confidence, found.accuracy, strict=True
        )
        if confidence is not None and accuracy is not None
    )
    assert total / len(edges) == pytest.approx(measured.metrics[f"ece{bins}"], abs=1e-12)


def test_a_reliability_diagram_has_what_each_bin_holds() -> None:
    columns = build_columns([0, 0, 0], [0, 1, 0], score=np.array([0.41, 0.45, 0.81]))
    measured = measure_one(columns)
    assert measured.reliability is not None
    found = measured.reliability[15]
    assert found.count == (0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0)
    assert found.confidence[6] == pytest.approx(0.43)
    assert found.accuracy[6] == pytest.approx(0.5)
    assert (found.confidence[12], found.accuracy[12]) == pytest.approx((0.81, 1))
    assert found.confidence[0] is None
    assert found.accuracy[0] is None


def test_certainty_is_in_the_last_bin_with_what_is_nearly_certain() -> None:
    columns = build_columns([0, 0], [1, 0], score=np.array([1.0, 0.96]))
    measured = measure_one(columns)
    assert measured.reliability is not None
    assert measured.reliability[15].count[-1] == measured.reliability[20].count[-1] == 2
    assert measured.metrics["ece15"] == pytest.approx(0.98 - 0.5)
    low, high = measured.intervals["ece15"] or (None, None)
    assert (low, high) == pytest.approx((0.04, 1))  # only the second image drawn, only the first


def test_classes_without_images_do_not_lower_the_mean_over_classes() -> None:
    columns = build_columns([0, 0, 0, 2], [0, 0, 1, 1])
    assert measure_one(columns).metrics["mean_per_class_recall"] == pytest.approx((2 / 3 + 0) / 2)


def test_five_classes_have_no_top_five() -> None:
    for classes, expected in ((5, None), (6, 1.0)):
        measured = measure_one(build_columns([0, 1], [0, 2], classes=classes))
        assert measured.metrics["acc5"] == expected
        assert measured.intervals["acc5"] == (expected and (1.0, 1.0))


# --- a method against the baseline ---


def test_mcnemar_p_of_a_worked_example() -> None:
    """9 images put right and 1 put wrong: p = 2 (C(10, 0) + C(10, 1)) / 2^10 = 22 / 1024."""
    before = build_columns([0] * 20, [1] * 9 + [0] * 11)
    after = build_columns([0] * 20, [0] * 9 + [1] + [0] * 10)
    versus = measure_set({"zero-shot": before, "tpt": after}, "zero-shot", resamples=50)[
        "tpt"
    ].versus
    assert versus is not None
    assert (versus.put_right, versus.put_wrong) == (9, 1)
    assert versus.difference == pytest.approx(8 / 20)
    assert versus.mcnemar_p == pytest.approx(22 / 1024)
    assert versus.interval[0] <= versus.difference <= versus.interval[1]


def test_a_method_right_on_the_same_images_differs_by_nothing() -> None:
    columns = build_columns([0, 0, 1], [0, 1, 1])
    measured = measure_set({"zero-shot": columns, "tpt": columns}, "zero-shot", resamples=50)
    assert measured["zero-shot"].versus is None
    versus = measured["tpt"].versus
    assert versus is not None
    assert (versus.difference, versus.mcnemar_p) == (0, 1)
    assert versus.interval == (0, 0)


def test_the_paired_interval_is_tighter_than_that_of_unpaired_draws() -> None:
    random = np.random.default_rng(0)
    before = (random.random(500) < 0.4).astype(int)
    after = np.where(random.random(500) < 0.05, 0, before)  # the same but for a few put right
    pair = [build_columns([0] * 500, right.tolist()) for right in (before, after)]
    versus = measure_set(dict(zip("ab", pair, strict=True)), "a", resamples=400)["b"].versus
    assert versus is not None
    draws = [
        (random.choice(right == 0, (400, 500))).mean(axis=1)  # each method its own draws
        for right in (before, after)
    ]
    low, high = percentile_interval(draws[1] - draws[0])
    assert versus.interval[1] - versus.interval[0] < 0.5 * (high - low)
    assert low < 0 < versus.interval[0]  # only pairing shows that the difference is real


# --- intervals ---


def test_intervals_hold_the_point_values_and_narrow_with_more_images() -> None:
    few, many = (measure_one(describe(*draw_probabilities(2, n)), resamples=300) for n in (99, 999))
    for key in METRICS[:5]:
        widths = []
        for measured in (few, many):
            interval, value = measured.intervals[key], measured.metrics[key]
            assert interval is not None
            assert value is not None
            assert interval[0] < value < interval[1]
            widths.append(interval[1] - interval[0])
        assert widths[1] < 0.6 * widths[0]


def test_the_seed_makes_intervals_anew_and_the_level_widens_them() -> None:
    columns = describe(*draw_probabilities(3))
    once, twice, other = (measure_one(columns, seed=seed) for seed in (5, 5, 6))
    assert once == twice
    assert once.intervals != other.intervals
    assert once.metrics == other.metrics
    wide, narrow = (measure_one(columns, level=level).intervals["nll"] for level in (0.99, 0.5))
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_method_measured_beside_others_has_the_interval_it_has_alone() -> None:
    alone = describe(*draw_probabilities(4))
    votes = as_votes(describe(alone.label, draw_probabilities(5)[1]))
    beside = measure_set({"zero": votes, "zero-shot": alone}, "zero-shot", resamples=50)
    assert list(beside) == ["zero", "zero-shot"]
    assert beside["zero-shot"] == measure_one(alone)


# --- edge cases ---


def test_a_method_that_votes_has_no_calibration() -> None:
    measured = measure_one(as_votes(describe(*draw_probabilities(6))))
    assert measured.reliability is None
    for key in METRICS:
        assert (measured.metrics[key] is None) == (key in CALIBRATED)
        assert (measured.intervals[key] is None) == (key in CALIBRATED)


def test_no_images_have_no_metrics() -> None:
    nothing = describe(np.zeros(0, dtype=np.int64), np.zeros((0, CLASSES)))
    for measured in measure_set({"zero-shot": nothing, "tpt": nothing}, "zero-shot").values():
        assert measured == SetMetrics(0, dict.fromkeys(METRICS), dict.fromkeys(METRICS), None, None)


def test_one_image_has_intervals_without_width() -> None:
    measured = measure_one(describe(*draw_probabilities(0, images=1)))
    assert measured.images == 1
    for key in METRICS:
        value = measured.metrics[key]
        assert measured.intervals[key] == pytest.approx((value, value))


def test_all_images_right_is_an_accuracy_of_one() -> None:
    measured = measure_one(build_columns([0, 1, 2], [0, 1, 2]))
    for key in ("acc1", "mean_per_class_recall"):
        assert measured.metrics[key] == 1
        assert measured.intervals[key] == (1, 1)


# --- errors ---


@pytest.mark.parametrize("key", ["score", "nll", "brier"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_an_error(key: str, value: float) -> None:
    with pytest.raises(MethodError, match=rf'"{key}" that is not a finite number .* image 1, so'):
        measure_one(build_columns([0, 0], [0, 0], **{key: np.array([0.5, value])}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nll": np.zeros(3)}, r'"nll" of shape \(3,\), but expected one entry .* 2 labels'),
        ({"classes": 1}, r'"predicted" 1 for image 1, but expected 0 to 0 with 1 classes'),
        ({"rank": np.array([0, -1])}, r'"rank" -1 for image 1, but expected 0 to 2'),
        ({"rank": np.array([0, 0])}, r"contradicts itself at image 1: the true class 0 has rank 0"),
        ({"score": np.array([0.5, 14])}, r"scores from 0\.5 to 14, but expected probabilities"),
        ({"score": np.array([0.5, -1])}, r"scores from -1 to 0\.5, but expected probabilities"),
    ],
)
def test_numbers_that_cannot_be_are_errors(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        measure_one(build_columns([0, 0], [0, 1], **changes))


def test_methods_of_other_images_are_not_compared() -> None:
    pair = {"zero-shot": build_columns([0, 1], [0, 1]), "tpt": build_columns([0, 2], [0, 1])}
    with pytest.raises(MethodError, match=r'"tpt" \(2 images.*different labels.*same order'):
        measure_set(pair, "zero-shot")


def test_a_baseline_that_was_not_run_is_an_error_that_suggests() -> None:
    with pytest.raises(MethodError, match=r'"zeroshot" is not among .* mean "zero-shot"'):
        measure_set({"zero-shot": build_columns([0], [0])}, "zeroshot")


# --- from lines of predictions ---


def list_rows() -> Iterator[dict[str, Any]]:
    for key, label, top, rank in (
        ("a.png", 0, [[2, 0.5], [0, 0.3]], 1),
        ("b.png", 2, [[2, 0.9], [1, 0.1]], 0),
    ):
        plain = {"top": top, "rank": rank, "nll": 1.25 + rank, "brier": 0.5, "ms": 0.4}
        votes = {"top": [[label, 14]], "votes": True, "rank": 0, "nll": None, "brier": None}
        yield {
            "set": "s",
            "key": key,
            "label": label,
            "methods": {"zero-shot": plain, "zero": votes},
        }
        yield {"set": "s", "key": "c.png", "label": 1, "error": {"type": "ImageError"}}


def test_lines_become_columns_without_those_that_failed() -> None:
    columns = collect_scores(list_rows(), ("zero-shot", "zero"), 7)
    plain, votes = columns["zero-shot"], columns["zero"]
    assert plain.classes == votes.classes == 7
    assert plain.label.tolist() == votes.label.tolist() == [0, 2]
    assert plain.predicted.tolist() == [2, 2]
    assert plain.rank.tolist() == [1, 0]
    numbers = [plain.score, plain.nll, plain.brier]
    assert [x.tolist() for x in numbers if x is not None] == [[0.5, 0.9], [2.25, 1.25], [0.5, 0.5]]
    assert votes.predicted.tolist() == [0, 2]
    assert votes.score is votes.nll is votes.brier is None
    assert measure_set(columns, "zero-shot", resamples=50)["zero"].metrics["acc1"] == 1


def test_votes_on_one_image_leave_no_mean_probability() -> None:
    rows = [row for row in list_rows() if "error" not in row]
    rows[1]["methods"]["zero-shot"] |= {"votes": True, "nll": None}
    columns = collect_scores(rows, ("zero-shot",), 7)["zero-shot"]
    assert columns.score is columns.nll is None
    assert columns.brier is not None


def test_lines_that_all_failed_are_no_images() -> None:
    failed = [row for row in list_rows() if "error" in row]
    columns = collect_scores(failed, ("zero-shot",), 7)
    assert measure_one(columns["zero-shot"]).images == 0


def test_a_line_without_a_method_is_an_error_that_names_the_picture() -> None:
    with pytest.raises(OutputError, match=r'Line 1 .*"a\.png"\) lacks what "tpt" predicted'):
        collect_scores(list_rows(), ("zero-shot", "tpt"), 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"label": None}, "its label"), ({"methods": {"zero-shot": {"top": []}}}, 'what "zero-shot"')],
)
def test_a_line_without_its_numbers_is_an_error(change: dict[str, Any], said: str) -> None:
    rows = [row | change for row in list_rows()]
    with pytest.raises(OutputError, match=rf"Line 1 .*lacks {said}.*new output folder"):
        collect_scores(rows, ("zero-shot",), 7)
