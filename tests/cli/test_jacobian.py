"""`--jacobian`: the same answers, what it costs and saves, and where it has no meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

PREDICT = ("predict", "pictures", "--recursive", "--classes", "cat,dog,cup", "--model", "tiny")
HOW = ("--views", "8", "--device", "cpu", "--precision", "fp32")


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat", "dog", "cat", "dog")):
        folder = Path("pictures", name)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * number, 200, 90)).save(folder / f"{number}.png")


def first_scores(path: str) -> list[float]:
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [line["predictions"][0]["score"] for line in lines]


def test_it_gives_the_same_answers_and_is_kept_with_them(run_tpt: Callable[..., Result]) -> None:
    told = []
    for extra in ((), ("--jacobian",)):
        path = f"out{len(extra)}.jsonl"
        done = run_tpt(*PREDICT, *HOW, "--output", path, *extra)
        assert done.exit_code == 0, done.stderr
        told.append(done.stderr)
    assert first_scores("out0.jsonl") == pytest.approx(first_scores("out1.jsonl"), abs=1e-4)
    assert "Jacobian: 3 of 3 classes" in told[1]
    assert "Jacobian" not in told[0]
    again = run_tpt(*PREDICT, *HOW, "--output", "out1.jsonl", "--resume")
    assert again.exit_code == 1
    assert "jacobian" in again.stderr


def test_a_dry_run_tells_from_how_many_pictures_on_it_pays(run_tpt: Callable[..., Result]) -> None:
    row = r"jacobian +{} \([\d.e-]+ GB, saves [\d.e-]+ GFLOP a picture, pays from ([\d,]+) "
    for extra, word in (((), "off"), (("--jacobian",), "on")):
        done = run_tpt(*PREDICT, *HOW, "--dry-run", *extra)
        found = re.search(row.format(word), done.stdout)
        assert found is not None, done.stdout
        assert int(found[1].replace(",", "")) > 64  # a pass for each direction of the features
    assert "jacobian" not in run_tpt(*PREDICT, *HOW, "--dry-run", "--method", "vte").stdout


def test_an_evaluation_has_it_too(run_tpt: Callable[..., Result]) -> None:
    words = ("eval", "pictures", "--model", "tiny", *HOW)
    for extra in ((), ("--jacobian",)):
        done = run_tpt(*words, "--output", f"run{len(extra)}", *extra)
        assert done.exit_code == 0, done.stderr
    assert "Jacobian: 2 of 2 classes" in done.stderr
    results = json.loads(Path("run1/results.json").read_text())
    assert results["settings"]["jacobian"] is True
    dry = run_tpt(*words, "--output", "run2", "--dry-run")
    assert "Jacobian of 2 classes: off (" in dry.stderr
    assert not Path("run2").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            (*PREDICT, "--method", "vte", "--jacobian"),
            "--jacobian has no meaning with --method vte",
        ),
        (
            (*PREDICT, "--ray", "local", "--output", "out", "--jacobian"),
            "--jacobian has no meaning with --ray, whose actors would build one each",
        ),
        (
            ("eval", "pictures", "--methods", "zero-shot,tps", "--output", "out", "--jacobian"),
            "--jacobian has no meaning with --method zero_shot, tps",
        ),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(
    run_tpt: Callable[..., Result], words: tuple[str, ...], text: str
) -> None:
    refused = run_tpt(*words)
    assert refused.exit_code == 2
    assert text in " ".join(refused.stderr.split())
