"""results.json: what it holds, and that it is strict JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tpt.errors import OutputError
from tpt.evaluate.metrics import METRICS, Reliability, SetMetrics, Versus
from tpt.evaluate.results import (
    SetInfo,
    Times,
    build_results,
    write_results,
)


def measured(acc1: float | None, votes: bool = False, versus: Versus | None = None) -> SetMetrics:
    metrics: dict[str, float | None] = dict.fromkeys(METRICS, 0.25) | {"acc1": acc1}
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(METRICS, (0.2, 0.3))
    if votes:
        metrics |= dict.fromkeys(["nll", "brier", "ece15", "ece20"])
        intervals |= dict.fromkeys(["nll", "brier", "ece15", "ece20"])
    two = Reliability((1, 3), (None, 0.9), (None, 1 / 3))
    return SetMetrics(4, metrics, intervals, None if votes else {15: two, 20: two}, versus)


def set_info(name: str, layout: str, path: str, classes: tuple[str, ...], **more: Any) -> SetInfo:
    return SetInfo(name=name, layout=layout, path=path, classes=classes, images=4, **more)


BETTER = Versus(0.1, (-0.05, 0.25), 0.125, 3, 1)
SETS = (
    set_info("photo", "one folder a class", "/data/photo", ("dog", "horse"), role="clean"),
    set_info("sketch", "one folder a class", "/data/sketch", ("dog", "horse"), clean="photo"),
)
METHODS = [
    {"name": "zero-shot", "method": "zero_shot", "settings": {}, "context": {}, "templates": []},
    {"name": "tpt", "method": "tpt", "settings": {"keep": 0.1}, "context": {}, "templates": []},
]


def build(sets: tuple[SetInfo, ...] = SETS, **changes: Any) -> dict[str, Any]:
    found = {
        "photo": {"zero-shot": measured(0.8), "tpt": measured(0.85, versus=BETTER)},
        "sketch": {"zero-shot": measured(0.3), "tpt": measured(0.45, versus=BETTER)},
    }
    settings = {"model": "tpt-tiny", "pretrained": "embedded"}
    times = {"photo": {"tpt": Times(110.25, 9.0)}}
    return build_results(
        sets, METHODS, changes.get("found", found), settings, {}, "zero-shot", times
    )


def get(results: dict[str, Any], name: str, method: str) -> dict[str, Any]:
    return next(r for r in results["results"] if (r["dataset"], r["method"]) == (name, method))


def test_an_entry_has_the_keys_of_the_common_benchmark():
    entry = get(build(), "sketch", "tpt")
    assert entry["model"] == "tpt-tiny"
    assert entry["pretrained"] == "embedded"
    assert entry["task"] == "zeroshot_classification"
    assert entry["language"] == "en"
    assert entry["metrics"]["acc1"] == 0.45
    assert entry["intervals"]["acc1"] == [0.2, 0.3]


def test_gap_and_effective_robustness_follow_from_the_clean_set():
    results = build()
    # zero-shot loses 80 - 30 = 50 points; TPT 85 - 45 = 40, ten points less.
    assert get(results, "sketch", "zero-shot")["clean"] == {
        "dataset": "photo",
        "acc1": 0.8,
        "gap": 0.5,
        "effective_robustness": 0.0,
    }
    clean = get(results, "sketch", "tpt")["clean"]
    assert clean["gap"] == 0.4
    assert clean["effective_robustness"] == 0.1
    assert get(results, "photo", "tpt")["clean"] is None


def test_a_clean_set_that_was_not_measured_leaves_the_gap_open():
    found = {"sketch": {"zero-shot": measured(0.3)}}
    clean = get(build(found=found), "sketch", "zero-shot")["clean"]
    assert clean == {"dataset": "photo", "acc1": None, "gap": None, "effective_robustness": None}


def test_the_baseline_is_not_compared_with_itself():
    results = build()
    assert get(results, "sketch", "zero-shot")["versus_baseline"] is None
    assert get(results, "sketch", "tpt")["versus_baseline"] == {
        "difference": 0.1,
        "interval": [-0.05, 0.25],
        "mcnemar_p": 0.125,
        "put_right": 3,
        "put_wrong": 1,
    }


def test_votes_have_no_calibration_and_no_reliability():
    found = {"sketch": {"zero-shot": measured(0.3), "tpt": measured(0.3, votes=True)}}
    entry = get(build(found=found), "sketch", "tpt")
    assert entry["metrics"]["ece15"] is None
    assert entry["intervals"]["ece15"] is None
    assert entry["reliability"] is None


def test_reliability_is_kept_by_number_of_bins_with_floats_of_six_places():
    reliability = get(build(), "sketch", "tpt")["reliability"]
    assert list(reliability) == ["15", "20"]
    assert reliability["15"] == {
        "count": [1, 3],
        "confidence": [None, 0.9],
        "accuracy": [None, 0.333333],
    }


def test_a_pair_without_measurement_has_no_entry_and_one_without_times_says_null():
    found = {"sketch": {"zero-shot": measured(0.3)}}
    results = build(found=found)
    assert [(r["dataset"], r["method"]) for r in results["results"]] == [("sketch", "zero-shot")]
    assert get(results, "sketch", "zero-shot")["ms"] == {"image": None, "method": None}
    assert get(build(), "photo", "tpt")["ms"] == {"image": 110.25, "method": 9.0}


def test_the_only_clean_set_is_the_source_of_domain_generalisation():
    table = build()["protocols"]["domain_generalisation"]
    assert table["source"] == "photo"
    assert "base_to_new" not in build()["protocols"]


def test_two_clean_sets_are_no_single_source():
    second = set_info("sketch", "folders", "/data/sketch", ("dog",), role="clean")
    third = set_info("a", "folders", "a", ("dog",)), set_info("b", "folders", "b", ("dog",))
    table = build((SETS[0], second, *third))["protocols"]["domain_generalisation"]
    assert table["source"] is None
    assert [column["title"] for column in table["columns"]] == ["a", "b"]


def test_what_is_written_is_strict_json(tmp_path: Path):
    results = build()
    write_results(results, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results


def test_a_number_that_is_not_finite_is_named_and_the_old_file_stays(tmp_path: Path):
    path = tmp_path / "results.json"
    write_results(build(), path)
    old = path.read_bytes()
    found = {"sketch": {"zero-shot": measured(float("nan"))}}
    place = r"at results\[0\]\.metrics\.acc1, .*--precision fp32"
    with pytest.raises(OutputError, match=place):
        write_results(build(found=found), path)
    assert path.read_bytes() == old


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path):
    with pytest.raises(OutputError, match="The results could not be saved to"):
        write_results(build(), tmp_path / "nowhere" / "results.json")


def test_the_file_is_utf8_with_names_as_they_are(tmp_path: Path):
    named = set_info("größe", "folders", "größe", ("dog",))
    found = {"größe": {"zero-shot": measured(0.5)}}
    write_results(build((named,), found=found), tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert "größe" in text
    assert json.loads(text)["sets"][0]["name"] == "größe"
