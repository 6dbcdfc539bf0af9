"""The documentation's commands are spelt right, and its example of a method works.

The example in docs/adding-a-method.md passes the checks that every method of the shelf passes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tpt
from cli.main import main
from tpt.methods import registry
from tpt.methods.registry import METHODS, MethodInfo, make_method

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
METHOD, ENTRY, TEST = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
MODULE = "tpt.methods.average"

# A plugin of pytest that puts the example on the shelf before any test is collected.
PLUGIN = """
import importlib.util, sys
from types import MappingProxyType
from tpt.methods import registry
from tpt.methods.registry import MethodInfo

spec = importlib.util.spec_from_file_location({module!r}, {path!r})
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
info = {entry}
registry.METHODS = MappingProxyType({{**registry.METHODS, info.name: info}})
"""


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, MethodInfo]:
    """A copy of the shelf with the page's method on it."""
    module = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(METHOD, vars(module))
    info = eval(ENTRY.strip(), {"MethodInfo": MethodInfo})
    assert info.home.partition(":")[0] == MODULE
    shelf = MappingProxyType({**METHODS, info.name: info})
    monkeypatch.setattr(registry, "METHODS", shelf)
    return shelf


def test_the_example_runs_by_its_name(
    shelf: Mapping[str, MethodInfo], golden: SimpleNamespace
) -> None:
    engine = tpt.PromptEngine(golden.clip, ["cat", "dog", "cup"])
    method = make_method("average", engine, {"plain_weight": 2})
    assert vars(method.settings) == {"plain_weight": 2}
    pixels = np.random.RandomState(0).randint(0, 256, (40, 48, 3), dtype=np.uint8)
    (record,) = tpt.stream([pixels], method, tpt.Views(golden.clip, n=4))
    assert record.error is None
    assert len(record.predictions) == 3
    assert record.adapt is not None
    assert record.adapt.views_kept == 4
    with pytest.raises(tpt.MethodError, match="how much view 0 counts, a number above 0; got 0"):
        make_method("average", engine, {"plain_weight": 0})


def test_the_examples_own_test_passes_and_can_fail(
    shelf: Mapping[str, MethodInfo], golden: SimpleNamespace
) -> None:
    names: dict[str, Any] = {"tpt": tpt, "torch": torch, "F": F, "SimpleNamespace": SimpleNamespace}
    names["Average"] = sys.modules[MODULE].Average  # type: ignore[attr-defined]
    exec(TEST, names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test(golden)
    names["Average"] = tpt.VTE
    with pytest.raises(AssertionError):
        test(golden)


@pytest.mark.slow
def test_the_shared_checks_take_the_example_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "average.py"
    path.write_text(METHOD, encoding="utf-8")
    entry = ENTRY.strip()
    plugin = PLUGIN.format(module=MODULE, path=str(path), entry=entry)
    (tmp_path / "shelf_with_example.py").write_text(plugin, encoding="utf-8")
    files = [f"tests/{name}" for name in re.findall(r"`tests/([\w/]+/test_\w+\.py)`", PAGE)]
    checked = [name for name in files if name not in ("tests/methods/test_average.py",)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "shelf_with_example", "-k", "average", "-rf", *checked),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"`((?:tests|tpt|cli)/[\w/]+(?:\.py)?)`", PAGE))
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == {"tpt/methods/average.py", "tests/methods/test_average.py"}


def list_commands(page: str) -> list[str]:
    """The `tpt ...` lines of indented blocks, continued ones joined; `...` stands for options."""
    joined = page.replace("\\\n", " ")
    return [
        line.split("#")[0].strip() for line in re.findall(r"^    (tpt .*)$", joined, flags=re.M)
    ]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_spelt_right(page: Path) -> None:
    for line in list_commands(page.read_text(encoding="utf-8")):
        _, name, *arguments = shlex.split(line.replace("--methods ...", "").replace(" ...", ""))
        command = main.get_command(click.Context(main), name)
        assert command is not None, line
        try:
            command.make_context(name, arguments)
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_commands_of_pages_are_found_at_all() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {"corruptions.md", "evaluation.md"} <= pages
    assert len(list_commands((ROOT / "docs" / "evaluation.md").read_text())) >= 5
