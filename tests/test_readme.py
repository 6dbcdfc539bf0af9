"""The README's commands and code are run, or at least parsed where they need real weights."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli.main import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.slow
def test_the_readme_commands_work_in_order(user_folder: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        name, *arguments = shlex.split(line)
        assert name == "tpt"
        done = run([sys.executable, "-m", "cli", *arguments], user_folder)
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr
    pictures = len(list((ROOT / "examples" / "images").glob("*.jpg")))
    assert len((user_folder / "records.jsonl").read_text().splitlines()) == pictures


def test_the_readme_commands_for_real_weights_are_spelt_right() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        name, *arguments = shlex.split(line.split("| ")[-1])
        assert name == "tpt"
        try:
            parse(main, arguments)
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


def parse(group: click.Group, arguments: list[str]) -> None:
    """Read a command line down to its last option without running it."""
    context = click.Context(group)
    name, command, rest = group.resolve_command(context, arguments)
    assert command is not None
    if isinstance(command, click.Group):
        parse(command, rest)
    else:
        command.make_context(name, rest)


@pytest.mark.slow
def test_the_readme_python_runs(user_folder: Path) -> None:
    (code,) = blocks("python")
    real = '"ViT-B-16", pretrained="openai"'  # cannot be downloaded everywhere
    assert code.count(real) == 1
    code = code.replace(real, '"lite"')
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    done = run([sys.executable, "-W", "error", "-c", code], user_folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_readme_names_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^    make (\w+)", TEXT, flags=re.M))
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in targets)
