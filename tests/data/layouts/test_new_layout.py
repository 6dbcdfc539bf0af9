"""Somebody's layout is one module and one registration: the example of docs/adding-a-layout.md."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from tpt.data import layouts
from tpt.data.labelled_sets import ReadOptions
from tpt.data.layouts import LAYOUTS, Layout, read_sets, register_layout
from tpt.errors import SourceError

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-layout.md"
(MODULE,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
(ENTRY,) = re.findall(
    r'```toml\n.*?\njsonl = "(.*?)"', PAGE.read_text(encoding="utf-8"), flags=re.S
)
LINES = """\
{"image": "b.png", "label": "sea_lion"}
{"image": "cat/a.png", "label": "cat"}
"""


@pytest.fixture(autouse=True)
def _theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder from which the page's module can be imported; nothing of it stays."""
    monkeypatch.syspath_prepend(tmp_path)
    Path("json_lines.py").write_text(MODULE, encoding="utf-8")
    Path("pets.jsonl").write_text(LINES, encoding="utf-8")
    layouts._register_plugins.cache_clear()
    yield
    layouts._register_plugins.cache_clear()
    sys.modules.pop("json_lines", None)
    for known in (layouts._modules, layouts._summaries):
        known.pop("jsonl", None)


def install(target: str) -> None:
    """What pip writes down of an installed package's entry points."""
    Path("theirs-1.0.dist-info").mkdir()
    Path("theirs-1.0.dist-info/METADATA").write_text("Name: theirs\nVersion: 1.0\n")
    Path("theirs-1.0.dist-info/entry_points.txt").write_text(f"[tpt.layouts]\njsonl = {target}\n")
    importlib.invalidate_caches()


def test_a_registered_layout_is_found_by_looking_and_by_name() -> None:
    with pytest.raises(SourceError, match="a file of no known layout"):
        read_sets("pets.jsonl")
    module: Layout = importlib.import_module("json_lines")  # type: ignore[assignment]
    register_layout(module)
    register_layout(module)  # again is no other
    assert LAYOUTS["jsonl"] == "JSON lines with image and label"
    (one,) = read_sets("pets.jsonl")
    assert read_sets("pets.jsonl", ReadOptions("jsonl")) == (one,)
    assert (one.name, one.layout, one.classes) == ("pets", "JSON lines", ("cat", "sea lion"))
    assert [(sample.key, sample.label) for sample in one.samples] == [
        ("b.png", 1),
        ("cat/a.png", 0),
    ]
    (one,) = read_sets("pets.jsonl", ReadOptions(classes=("Sea Lion", "cat", "dog")))
    assert one.classes[one.samples[0].label] == "Sea Lion"
    assert one.notes == ("1 of the 3 classes has no pictures here: dog.",)


def test_its_errors_are_told_like_ours() -> None:
    register_layout(importlib.import_module("json_lines"))  # type: ignore[arg-type]
    Path("pets.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r'"pets.jsonl" cannot be read \(KeyError'):
        read_sets("pets.jsonl")


def test_a_name_that_is_taken_is_refused() -> None:
    module = importlib.import_module("json_lines")
    for name in ("table", "domains", "auto"):
        module.NAME = name  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=f'There is a layout "{name}" already'):
            register_layout(module)  # type: ignore[arg-type]


def test_an_installed_packages_layout_is_known_to_the_command() -> None:
    install(ENTRY)
    result = CliRunner().invoke(main, ["eval", "pets.jsonl", "--model", "none", "--output", "out"])
    assert "pets: JSON lines; 2 classes, 2 pictures" in result.stderr


def test_an_installed_layout_that_does_not_work_is_named_and_stops_no_other() -> None:
    install("no_such_module")
    Path("pets.csv").write_text("path,label\ncat.jpg,cat\ndog.jpg,dog\n")
    for name in ("cat", "dog"):
        Path(f"{name}.jpg").touch()
    with pytest.warns(UserWarning, match="jsonl") as caught:
        (pets,) = read_sets("pets.csv")
    assert pets.classes == ("cat", "dog")
    assert str(caught[0].message) == (
        'The layout "jsonl" ("no_such_module") of another package cannot be used '
        "(ModuleNotFoundError: No module named 'no_such_module'). Repair or uninstall that package."
    )


def test_an_installed_layout_that_breaks_down_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(ENTRY)
    module = importlib.import_module("json_lines")
    monkeypatch.setattr(module, "read", lambda path, name, options: {}["label"])
    with pytest.raises(SourceError, match=r"of another package cannot read .*KeyError: 'label'"):
        read_sets("pets.jsonl")
