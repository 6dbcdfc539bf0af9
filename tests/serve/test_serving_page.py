"""docs/serving.md and examples/serving: the clients run, and what is named exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from running_service import Running

from cli.main import main
from tpt.serve.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
FILES = ROOT / "examples" / "serving"
HTTPX, HUGGING_FACE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
(CURL,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture
def run(serving: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a piece of Python of the page prints, asked of the running service."""

    def act(program: str) -> Any:
        printed: list[Any] = []
        monkeypatch.chdir(ROOT)
        exec(program.replace("http://127.0.0.1:8000", serving.url), {"print": printed.append})
        return printed[0]

    return act


def test_the_clients_answer_alike(run: Any, serving: Running) -> None:
    predictions = run(HTTPX)
    assert {one["label"] for one in predictions} == {"cat", "dog"}
    found = run(HUGGING_FACE)
    assert [(one.label, one.score) for one in found] == [
        (one["label"], one["score"]) for one in predictions
    ]
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    words = shlex.split(CURL.replace("http://127.0.0.1:8000", serving.url))
    done = subprocess.run([*words, "-s"], cwd=ROOT, capture_output=True, check=True)
    assert json.loads(done.stdout)["records"][0]["predictions"] == predictions


def test_lines_that_start_a_service_are_spelt_right() -> None:
    unit = (FILES / "tpt-serve.service").read_text()
    container = (FILES / "Containerfile").read_text()
    entry = json.loads(re.search(r"ENTRYPOINT (.*)", container)[1])  # type: ignore[index]
    more = json.loads(re.search(r"\nCMD (.*)", container)[1])  # type: ignore[index]
    lines = [shlex.join(["tpt", *entry[1:], *more])]
    lines += re.findall(r"^(tpt serve.*)$", PAGE, flags=re.M)
    lines += ["tpt" + line for line in re.findall(r"ExecStart=\S+/tpt(.*)", unit)]
    assert len(lines) == 4
    command = main.get_command(click.Context(main), "serve")
    assert command is not None
    for line in lines:
        command.make_context("serve", shlex.split(line)[2:])


def test_options_of_the_page_exist() -> None:
    command = main.get_command(click.Context(main), "serve")
    assert command is not None
    known = {name for option in command.params for name in option.opts}
    shown = set(re.findall(r"`?(--[a-z][\w-]+)", PAGE))
    assert {"--queue", "--max-held-mb", "--allow-origin", "--allow-host"} <= shown <= known


def test_metrics_of_alerts_and_of_the_page_exist() -> None:
    metrics = Metrics(lambda: 0)
    names = {
        line.split()[2] for line in metrics.render().decode().splitlines() if line[:6] == "# HELP"
    }
    rules = (FILES / "alerts.yml").read_text()
    used = set(re.findall(r"\btpt_[a-z_]+", rules)) | set(re.findall(r"`(tpt_[a-z_]+)", PAGE))
    assert len(used) >= 6
    assert used <= names
