"""`tpt methods` lists the methods: what each is, what it costs, what can be set."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from cli.predict import command as predict
from tpt.images.views import Views
from tpt.methods import Gate
from tpt.methods.registry import METHODS, make_settings

Run = Callable[..., Result]


def test_without_a_name_all_are_listed_under_titles(run_tpt: Run) -> None:
    result = run_tpt("methods")
    assert result.exit_code == 0
    title, *rows = result.stdout.splitlines()
    assert title.split() == ["method", "state", "gradient", "paper", "what", "it", "does"]
    assert [row.split()[0] for row in rows] == list(METHODS)
    for row, info in zip(rows, METHODS.values(), strict=True):
        said = [word == "yes" for word in row.split()[1:3]]
        assert said == [info.keeps_state, info.gradient]
        assert f"arXiv {info.paper}  {info.summary}" in row
        assert row.index(info.summary) == title.index("what it does")
    assert "tpt methods NAME" in result.stderr


def test_the_list_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from cli.main import main\n"
        "try: main(['methods'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    *rows, last = done.stdout.splitlines()
    assert len(rows) == len(METHODS) + 1
    assert last == "False"


@pytest.mark.parametrize("name", METHODS)
def test_a_name_shows_its_cost_and_its_settings_with_the_defaults(run_tpt: Run, name: str) -> None:
    result = run_tpt("methods", name)
    assert result.exit_code == 0
    assert result.stderr == ""
    info = METHODS[name]
    title, *lines = result.stdout.splitlines()
    assert title == f"{info.title} (--method {name}), arXiv {info.paper}"
    assert any(line.endswith(f": {info.cost}") for line in lines)
    shown = [line.strip() for line in lines if " = " in line]
    assert shown == [f"{key} = {value}" for key, value in vars(make_settings(name, {})).items()]


def test_a_name_may_be_written_as_in_its_paper(run_tpt: Run) -> None:
    assert run_tpt("methods", "C-TPT").stdout == run_tpt("methods", "ctpt").stdout


def test_json_holds_the_facts_and_settings_of_every_method(run_tpt: Run) -> None:
    result = run_tpt("methods", "--format", "json")
    assert result.stderr == ""
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == list(METHODS)
    facts = {"name", "title", "summary", "cost", "paper", "keeps_state", "gradient"}
    for name, row in rows.items():
        assert row.keys() == facts | {"takes_templates", "settings"}
        assert {key: row[key] for key in facts} == {key: vars(METHODS[name])[key] for key in facts}
        assert row["takes_templates"] is METHODS[name].takes_templates
        assert row["settings"] == vars(make_settings(name, {}))


def test_json_of_one_name_holds_that_one(run_tpt: Run) -> None:
    (row,) = json.loads(run_tpt("methods", "zero", "--format", "json").stdout)
    assert row["name"] == "zero"
    assert row["settings"] == {"keep": 0.3}


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tdaa", 'Unknown method "tdaa". Did you mean "tda"'),
        ("zeroshoot", 'Did you mean "zero_shot"'),
        ("magic", 'Unknown method "magic". Expected one of zero_shot, tpt, '),
    ],
)
def test_an_unknown_name_is_told_the_nearest(
    run_tpt: Run, name: str, words: str, form: str
) -> None:
    result = run_tpt("methods", name, "--format", form)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_the_help_of_the_options_names_the_methods_defaults() -> None:
    """The help does not import torch, so its numbers are written there; here they are compared."""
    tpt, zero, tda = (vars(make_settings(name, {})) for name in ("tpt", "zero", "tda"))
    views = inspect.signature(Views).parameters
    known = {
        "views": f"[default: {views['n'].default}]",
        "augment": f"[default: {views['kind'].default}]",
        "keep": f"[default: {tpt['keep']}; zero: {zero['keep']}]",
        "steps": f"[default: {tpt['steps']}]",
        "lr": f"[default: {tpt['lr']}]",
        "reset": f"[tpt: {tpt['reset']}], or caches are emptied [tda: {tda['reset']}]",
        "gate_views": f"[default: {inspect.signature(Gate).parameters['views'].default}]",
    }
    options = {option.name: getattr(option, "help", None) or "" for option in predict.params}
    for name, text in known.items():
        assert text in options[name], name
