"""`tpt models` lists, filters, and says what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result


@pytest.mark.parametrize("pattern", ["rn50x", "RN50x"])
def test_a_pattern_keeps_names_that_contain_it_in_any_case(
    run_tpt: Callable[..., Result], pattern: str
) -> None:
    result = run_tpt("models", pattern)
    assert result.exit_code == 0
    _, *rows = result.stdout.splitlines()
    names = [row.split()[0] for row in rows]
    assert names
    assert all("rn50x" in name.lower() for name in names)


def test_without_a_pattern_all_are_listed_under_titles(run_tpt: Callable[..., Result]) -> None:
    result = run_tpt("models")
    title, first, *others = result.stdout.splitlines()
    assert title.split() == ["name", "input", "width", "text", "path", "weights"]
    assert first.split() == ["lite", "192", "240", "shared-prefix", "embedded"]
    assert len(others) > 100
    assert "hf-hub:" in result.stderr


def test_json_holds_the_facts_of_every_model(run_tpt: Callable[..., Result]) -> None:
    result = run_tpt("models", "--format", "json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert result.stderr == ""
    assert rows["ViT-B-16"].keys() == {"name", "image_size", "width", "text_path", "tags"}
    assert "openai" in rows["ViT-B-16"]["tags"]
    assert rows["ViT-B-16"]["width"] == 512


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ViT-B-16", "shared-prefix"),
        ("ViT-B-16-SigLIP", "full-length"),
        ("roberta-ViT-B-32", "full-length"),
    ],
)
def test_the_text_path_says_which_models_are_fast_or_slow(
    run_tpt: Callable[..., Result], name: str, path: str
) -> None:
    rows = json.loads(run_tpt("models", name, "--format", "json").stdout)
    assert {row["name"]: row["text_path"] for row in rows}[name] == path


def test_no_match_fails_and_says_how_to_list_all(run_tpt: Callable[..., Result]) -> None:
    result = run_tpt("models", "no-such-model")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        'Error: No model name contains "no-such-model". `tpt models` without a pattern lists all.\n'
    )


def test_show_tells_what_a_model_is_by_name_and_by_path(
    run_tpt: Callable[..., Result], tiny_folder: Path
) -> None:
    result = run_tpt("models", "show", "tiny", "--device", "cpu")
    assert result.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if "  " in line)
    assert rows["pictures"] == "64 x 64, shortest, bicubic"
    assert rows["kind"] == "open_clip"
    assert "GFLOP a picture in the image tower" in result.stdout
    assert rows["1,000"].startswith("classes")
    words = ("models", "show", str(tiny_folder), "--classes", "7", "--format", "json")
    facts = json.loads(run_tpt(*words).stdout)
    assert facts["text_operations"]["classes"] == 7
    assert facts["digest"] == rows["digest"]
    assert facts["name"] == f"local-dir:{tiny_folder}"


def test_convert_writes_a_folder_that_is_the_same_model(run_tpt: Callable[..., Result]) -> None:
    digest = json.loads(run_tpt("models", "show", "tiny", "--format", "json").stdout)["digest"]
    result = run_tpt("models", "convert", "tiny", "converted")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"Wrote local-dir:converted (digest {digest}, as before)." in result.stderr
    shown = json.loads(run_tpt("models", "show", "converted", "--format", "json").stdout)
    assert shown["digest"] == digest
    again = run_tpt("models", "convert", "tiny", "converted")
    assert again.exit_code == 1
    assert '"converted" is not empty' in again.stderr


@pytest.mark.parametrize("words", [("show",), ("convert", "lite")])
def test_a_missing_argument_is_wrong_usage(run_tpt: Callable[..., Result], words: Any) -> None:
    assert run_tpt("models", *words).exit_code == 2
