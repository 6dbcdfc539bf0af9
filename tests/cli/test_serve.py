"""The options of `tpt serve`, and what it says where something is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]


def test_a_dry_run_loads_and_checks_everything(run_tpt: Run) -> None:
    result = run_tpt("serve", "--classes", "cat,dog", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "model    tiny on cpu, fp32" in result.stdout
    assert "classes  2" in result.stdout
    assert "classes  of each request" in run_tpt("serve", "--dry-run").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "tda"), "keeps state between images"),
        (("--method", "tqt"), 'Unknown method "tqt"'),
        (("--queue", "0"), "Invalid value for '--queue'"),
        (("--views", "4", "--method", "zero_shot"), "--views has no meaning with"),
        (
            ("--allow-host", "https://tpt.example"),
            "is not the name of a host. Expected one without",
        ),
        (("--allow-host", "tpt.example:443"), "such as tpt.example.org"),
        (("--token-file", "none.txt"), '"none.txt" cannot be read'),
        (("--token-file", "empty.txt"), "holds no token; expected one line of ASCII"),
    ],
)
def test_wrong_usage_is_told(run_tpt: Run, words: tuple[str, ...], told: str) -> None:
    Path("empty.txt").write_text("\n")
    result = run_tpt("serve", "--classes", "cat,dog", *words, "--dry-run")
    assert result.exit_code == 2
    assert told in result.stderr


def test_the_missing_extra_is_named(run_tpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    hidden = ("fastapi", "python_multipart")

    def pretend(name: str, *rest: Any) -> Any:
        return None if name in hidden else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", pretend)
    result = run_tpt("serve", "--classes", "cat,dog")
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        "Error: `tpt serve` needs fastapi, python-multipart. Install them: pip install "
        "'tpt-runtime[serve]'."
    )
