"""`tpt calibrate`, `tpt predict --reject` and `--other`, `tpt eval --outside` and `--order`."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from refusals import error_of

import tpt

Run = Callable[..., Result]
PLAIN = ("--method", "zero_shot", "--num-workers", 0)


@pytest.fixture(autouse=True)
def _pictures(make_images: Callable[..., list[str]]) -> None:
    make_images(*(f"pets/{name}/{n}.png" for name in ("cat", "dog", "owl") for n in range(4)))
    make_images(*(f"others/{n}.png" for n in range(5)))


def notes_of(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return " ".join(result.stderr.split())


def records(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_calibrated_prompt_gives_scores_by_its_temperature(run_tpt: Run) -> None:
    made = run_tpt("calibrate", "pets", "--output", "c.safetensors", *PLAIN)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines()[0].split() == ["pictures", "12"]
    assert "before," in made.stdout
    assert "Use it: tpt predict images/ --init c.safetensors --method zero_shot" in made.stderr
    found = tpt.Context.load("c.safetensors").calibration
    assert found is not None
    assert found.method == "zero_shot"
    assert found.threshold is None
    assert run_tpt("predict", "pets/cat", "--init", "c.safetensors", *PLAIN).exit_code == 0
    words = ("pets/cat/0.png", "--classes", "cat,dog,owl", *PLAIN)
    plain = json.loads(run_tpt("predict", *words).stdout)
    read = json.loads(run_tpt("predict", *words, "--init", "c.safetensors").stdout)

    def order(record: dict[str, Any]) -> list[int]:
        return [prediction["index"] for prediction in record["predictions"]]

    assert order(read) == order(plain)
    a, b = (record["predictions"][0]["score"] for record in (plain, read))
    assert (a < b) is (found.temperature < 1)
    shown = run_tpt("prompt", "show", "c.safetensors", "--words", 0)
    assert f"temperature {found.temperature:.4g} for zero_shot" in shown.stdout


def test_another_method_does_not_use_the_calibration_and_says_so(run_tpt: Run) -> None:
    run_tpt("calibrate", "pets", "--output", "c.safetensors", *PLAIN)
    words = ("predict", "pets/cat/0.png", "--init", "c.safetensors", "--views", 4)
    result = run_tpt(*words, "--method", "vte")
    assert "was calibrated for --method zero_shot, not for this vte" in notes_of(result)
    run_tpt(*("calibrate", "pets", "--output", "v.safetensors", "--method", "vte", "--views", 4))
    words = ("predict", "pets/cat/0.png", "--init", "v.safetensors", "--method", "vte")
    assert "calibrated for other settings of it" in notes_of(run_tpt(*words, "--views", 6))
    assert "calibrated for" not in notes_of(run_tpt(*words, "--views", 4))


@pytest.mark.parametrize("rule", ["probability", "energy"])
def test_a_threshold_rejects_the_wanted_share_and_marks_records(run_tpt: Run, rule: str) -> None:
    words = ("--output", "c.safetensors", "--false-alarms", 0.25, "--rule", rule)
    made = run_tpt("calibrate", "pets", *words, *PLAIN)
    assert f"({rule}); 25.0 % rejected" in made.stdout
    use = ("predict", "pets", "--recursive", "--init", "c.safetensors", *PLAIN)
    done = run_tpt(*use, "--output", "out.jsonl")
    assert "3 rejected as none of the classes" in done.stderr
    assert sum(record.get("rejected", False) for record in records()) == 3
    assert all(record.get("rejected", True) for record in records())
    assert not any(
        "rejected" in json.loads(line)
        for line in run_tpt(*use, "--reject", "off").stdout.splitlines()
    )
    settings = json.loads(Path("out.jsonl.settings.json").read_text())["settings"]
    assert settings["reading"]["rule"] == rule
    table = run_tpt(*use, "--format", "table").stdout
    assert table.count("none of these") == 3
    rows = run_tpt(*use, "--format", "csv").stdout.splitlines()
    assert "rejected" in rows[0].split(",")
    assert sum(",True," in row for row in rows) == 3


def test_pictures_without_labels_set_a_threshold_alone(run_tpt: Run) -> None:
    words = ("calibrate", "others", "--output", "c.safetensors", "--unlabelled", *PLAIN)
    assert "no temperature to fit, only a threshold" in error_of(run_tpt(*words), 2)
    made = run_tpt(*words, "--classes", "cat,dog", "--false-alarms", 0.2)
    assert made.exit_code == 0, made.stderr
    assert "temperature" not in made.stdout
    found = tpt.Context.load("c.safetensors").calibration
    assert found is not None
    assert (found.temperature, found.pictures) == (1.0, 5)


def test_a_rejection_may_be_given_by_hand(run_tpt: Run) -> None:
    words = ("predict", "others", "--classes", "cat,dog", *PLAIN)
    every = run_tpt(*words, "--reject", "1.1").stdout.splitlines()
    assert all(json.loads(line)["rejected"] for line in every)
    none = run_tpt(*words, "--reject", "energy:-1000").stdout.splitlines()
    assert not any("rejected" in json.loads(line) for line in none)
    assert '--reject "low" is not a threshold' in error_of(run_tpt(*words, "--reject", "low"), 2)


def test_another_class_stands_for_everything_else(run_tpt: Run) -> None:
    words = ("predict", "pets", "--recursive", "--classes", "cat,dog,owl", *PLAIN)
    run_tpt(*words, "--other", "something else", "--output", "out.jsonl")
    for record in records():
        best = record["predictions"][0]["label"]
        assert record.get("rejected", False) is (best == "something else")
    settings = json.loads(Path("out.jsonl.settings.json").read_text())["settings"]
    assert settings["classes"][-1] == "something else"
    assert settings["reading"]["other"] == 3


@pytest.mark.parametrize("option", [("--reject", "0.5"), ("--other", "else")])
def test_votes_cannot_be_rejected(run_tpt: Run, option: tuple[str, ...]) -> None:
    words = ("predict", "others", "--classes", "a,b", "--method", "zero", "--views", 4)
    assert "counts votes and gives no probabilities" in error_of(run_tpt(*words, *option), 2)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("pets", "--output", "c.json"), 1, "ends in .safetensors (preferred) or .pt"),
        (("pets", "--output", "no/c.pt"), 1, "in a folder that exists"),
        (("pets", "--output", "c.pt", "--method", "zero", "--views", 2), 2, "nothing to calibrate"),
        (("pets/cat", "--output", "c.pt"), 2, "and no class folders"),
    ],
)
def test_what_cannot_be_calibrated_is_told(
    run_tpt: Run, words: tuple[Any, ...], code: int, text: str
) -> None:
    assert text in error_of(run_tpt("calibrate", *words), code)
    assert not list(Path().glob("c.*"))


def test_a_file_is_not_written_over_unasked(run_tpt: Run) -> None:
    words = ("calibrate", "pets", "--output", "c.safetensors", *PLAIN)
    run_tpt(*words)
    assert "exists already. Use --overwrite" in error_of(run_tpt(*words), 1)
    assert run_tpt(*words, "--overwrite").exit_code == 0


def test_a_broken_picture_is_named_and_left_out(run_tpt: Run) -> None:
    Path("pets/cat/bad.png").write_text("no picture")
    made = run_tpt("calibrate", "pets", "--output", "c.safetensors", *PLAIN)
    assert made.exit_code == 3
    assert "bad.png" in made.stderr
    assert made.stdout.splitlines()[0].split() == ["pictures", "12"]


# --- tpt eval ---


def evaluate(run_tpt: Run, *options: object) -> tuple[Result, dict[str, Any]]:
    words = ("eval", "pets", "--num-workers", 0, "--output", "out", *options)
    result = run_tpt(*words)
    assert result.exit_code == 0, result.stderr
    return result, json.loads(Path("out/results.json").read_text())


def test_eval_tells_calibration_before_and_after(run_tpt: Run) -> None:
    run_tpt("calibrate", "pets", "--output", "c.safetensors", *PLAIN)
    methods = "zero-shot+init,zero-shot+init:temperature=1"
    _, results = evaluate(run_tpt, "--init", "c.safetensors", "--methods", methods)
    nll = {entry["method"]: entry["metrics"]["nll"] for entry in results["results"]}
    assert nll["zero-shot+init"] < nll["zero-shot+init:temperature=1"]
    assert nll["zero-shot"] == pytest.approx(nll["zero-shot+init:temperature=1"], abs=1e-4)
    refused = run_tpt("eval", "pets", "--methods", "tpt:temperature=0", "--output", "no")
    assert "what logits are divided by, a number above 0" in error_of(refused, 2)


def test_eval_tells_outside_pictures_apart(run_tpt: Run) -> None:
    words = ("--methods", "zero-shot,zero,vte", "--views", 2, "--reject", "0.4")
    result, results = evaluate(run_tpt, "--outside", "others", *words)
    entries = results["outside"]
    assert {(e["method"], e["rule"]) for e in entries} == {
        (method, rule) for method in ("zero-shot", "vte") for rule in ("probability", "energy")
    }
    for entry in entries:
        assert (entry["inside_images"], entry["outside_images"]) == (12, 5)
        assert 0 <= entry["auroc"] <= 1
        assert (entry["misses"] is None) is (entry["rule"] == "energy")
    assert "pets against others, vte, energy: AUROC" in result.stdout
    assert "## Outside pictures" in Path("out/tables.md").read_text()
    again = run_tpt("report", "out")
    assert again.exit_code == 0, again.stderr


def test_the_report_of_outside_pictures_is_drawn_again(run_tpt: Run) -> None:
    evaluate(run_tpt, "--outside", "others", "--methods", "vte", "--views", 2)
    page = Path("out/report.html")
    before = page.read_bytes()
    assert b'id="table-outside"' in before
    page.unlink()
    assert run_tpt("report", "out").exit_code == 0
    assert page.read_bytes() == before


def test_a_resumed_run_keeps_its_outside_pictures(run_tpt: Run) -> None:
    words = ("--outside", "others", "--methods", "vte", "--views", 2)
    _, first = evaluate(run_tpt, *words)
    _, again = evaluate(run_tpt, *words, "--resume")
    assert again["outside"] == first["outside"]
    other = run_tpt("eval", "pets", "--views", 2, "--output", "out", "--resume")
    assert other.exit_code == 1


@pytest.mark.parametrize("order", ["sorted", "blocks:2"])
def test_the_order_is_in_the_tables_name(run_tpt: Run, order: str) -> None:
    _, results = evaluate(run_tpt, "--order", order, "--methods", "zero-shot,tda")
    assert [entry["name"] for entry in results["sets"]] == [f"pets ({order})"]
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    labels = [line["label"] for line in lines]
    changes = sum(a != b for a, b in pairwise(labels))
    assert changes == 2 if order == "sorted" else changes <= 5


def test_an_order_that_is_none_is_refused(run_tpt: Run) -> None:
    result = run_tpt("eval", "pets", "--order", "random", "--output", "out")
    assert "expected shuffled, sorted or blocks:N" in error_of(result, 2)
