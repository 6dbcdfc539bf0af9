"""The documentation's example of a method works, and the programs it names exist.

The example in docs/adding-a-method.md is installed as somebody's package would be, and passes the
checks that every method passes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tpt

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
METHOD, TEST = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
(ENTRY,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)
BUILD = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which somebody's package with the page's method is installed."""
    source, site = tmp_path_factory.mktemp("theirs"), tmp_path_factory.mktemp("site")
    (source / "average.py").write_text(METHOD, encoding="utf-8")
    (source / "broken.py").write_text("raise OSError('no disk')", encoding="utf-8")
    entries = ENTRY + 'broken = "broken:Broken"\nodd = "average:AverageSettings"\n'
    project = BUILD + entries.replace('["average"]', '["average", "broken"]')
    (source / "pyproject.toml").write_text(project, encoding="utf-8")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(source)], check=True, capture_output=True)
    path = os.pathsep.join([str(site), str(ROOT)])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(environment: dict[str, str], *words: str, module: str = "cli") -> Any:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_an_installed_method_predicts_by_its_name(installed: dict[str, str]) -> None:
    words = ["predict", "examples/images/cat.jpg", "--classes", "cat,dog", "--method", "average"]
    done = run(installed, *words, "--set", "plain-weight=2", "--views", "4", "--gate", "1")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["adapt"]["views_kept"] == 4
    refused = run(installed, *words, "--set", "plain-weight=0")
    assert refused.returncode == 2
    assert "how much view 0 counts, a number above 0; got 0" in refused.stderr


@pytest.mark.slow
def test_installed_methods_are_listed_and_broken_ones_told(installed: dict[str, str]) -> None:
    done = run(installed, "methods")
    assert done.returncode == 0
    assert "average    no    no        arXiv 2405.14977  average the features of" in done.stdout
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning")]
    assert warnings == [
        'Warning: The method "broken", "broken:Broken" of the package my-methods, cannot be '
        "imported (OSError: no disk). Repair or uninstall that package, or use another method.",
        'Warning: The method "odd", "average:AverageSettings" of the package my-methods, is '
        "not a subclass of tpt.methods.Method. Repair or uninstall that package, or use another "
        "method.",
    ]
    assert "plain_weight = 1.0" in run(installed, "methods", "average").stdout
    refused = run(installed, "predict", "examples/images", "--classes", "a,b", "--method", "broken")
    assert refused.returncode == 2
    assert "cannot be imported (OSError: no disk)" in refused.stderr


def test_the_examples_own_test_passes_and_can_fail(golden: SimpleNamespace) -> None:
    names: dict[str, Any] = {"tpt": tpt, "torch": torch, "F": F, "SimpleNamespace": SimpleNamespace}
    exec(METHOD, names)
    exec(TEST, names)
    test = names["test_it_is_the_mean_of_all_views"]
    test(golden)
    names["Average"] = tpt.VTE
    with pytest.raises(AssertionError):
        test(golden)


@pytest.mark.slow
def test_the_shared_checks_take_the_example_by_themselves(installed: dict[str, str]) -> None:
    checks = re.findall(r"`(tests/[\w/]+/test_\w+\.py)`", PAGE)
    options = ["-q", "-p", "no:cacheprovider", "-k", "average", "-rf"]
    done = run(installed, *options, *checks, module="pytest")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"`((?:tests|tpt|cli)/[\w/]+(?:\.py)?)`", PAGE))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_programs_that_a_page_names_exist_with_their_options() -> None:
    """Each of them runs in tests/programs; here the options that pages show are known to it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = " ".join(page.read_text(encoding="utf-8") for page in pages)
    shown = re.findall(r"((?:benchmarks|tools)/\w+\.py)([^`]*)", text)
    named = {program for program, _ in shown}
    assert {f"benchmarks/{name}.py" for name in ("speed", "shelf", "training")} <= named
    for program, words in shown:
        source = (ROOT / program).read_text(encoding="utf-8")
        for option in re.findall(r"--[\w-]+", words):
            assert f'"{option}"' in source, (program, option)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Broken links between pages, and docstrings that cannot be read, are warnings."""
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()
