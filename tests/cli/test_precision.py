"""What `--precision auto` chose is told, kept with what was written, and compared by --resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_model import name_tiny

from cli.main import main
from tpt.model import precision

PREDICT = ("predict", "in", "--classes", "cat,dog", "--views", 4, "--device", "cpu")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """`tpt` beside some pictures, on a CPU that has units for bf16."""
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.RandomState(number).randint(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "in" / name / f"{number}.png")

    def run(*args: object) -> Result:
        words = name_tiny([str(arg) for arg in args])
        return CliRunner().invoke(main, words, catch_exceptions=False)

    return run


def test_predict_tells_what_it_chose_and_goes_on_with_nothing_else(
    run: Callable[..., Result],
) -> None:
    words = (*PREDICT, "--recursive", "--output", "out.jsonl")
    done = run(*words)
    assert done.exit_code == 0
    assert "Precision: bf16, for which the device has units; --precision fp32 is" in done.stderr
    planned = run(*words, "--resume", "--dry-run").stdout
    assert ["precision", "bf16"] in [line.split() for line in planned.splitlines()]
    refused = run(*words, "--precision", "fp32", "--resume")
    assert refused.exit_code == 1
    assert 'precision was "bf16", now "fp32"' in refused.stderr
    assert run(*words, "--precision", "bf16", "--resume").exit_code == 0


def test_what_was_asked_for_is_not_told(run: Callable[..., Result]) -> None:
    for word in ("bf16", "fp32"):
        done = run(*PREDICT, "--recursive", "--precision", word)
        assert "Precision:" not in done.stderr


def test_eval_keeps_what_it_chose(run: Callable[..., Result]) -> None:
    done = run("eval", "in", "--views", 4, "--device", "cpu", "--output", "out")
    assert done.exit_code == 0
    assert "Precision: bf16" in done.stderr
    settings = json.loads(Path("out/results.json").read_text())["settings"]
    assert settings["precision"] == "bf16"


def test_train_keeps_what_it_chose(run: Callable[..., Result]) -> None:
    words = ("train", "in", "--shots", 1, "--epochs", 1, "--device", "cpu", "--output")
    done = run(*words, "out.safetensors")
    assert done.exit_code == 0, done.stderr
    assert "Precision: bf16" in done.stderr
    first = Path("out.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["settings"]["precision"] == "bf16"


def test_actors_do_not_screen(run: Callable[..., Result]) -> None:
    refused = run(*PREDICT, "--recursive", "--ray", "local", "--screen", "--output", "out")
    assert refused.exit_code == 2
    assert "--screen has no meaning with --ray" in refused.stderr
