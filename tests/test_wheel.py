"""The wheel works by itself: built, installed in an environment of its own, used from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tpt", "coop", "cli")


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run without anything of this checkout on the path; the command must end well."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git knows of this checkout."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            "tpt",
            "coop",
            "cli",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "NOTICE",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split("\0")[:-1]:
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", output, source, folder=output)
    (built,) = output.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        *("tpt", "coop", "cli")
    }
    for name in (
        "tpt/py.typed",
        "tpt/data/imagenet.csv",
        "tpt/report/page/report.html",
        "tpt/report/page/macros.html",
        "tpt/report/page/report.css",
        "tpt/report/page/report.js",
        "tpt/serve/page/page.html",
        "tpt/serve/page/page.css",
        "tpt/serve/page/page.js",
        "tpt/model/embedded/lite/open_clip_model.safetensors",
        "tpt/model/embedded/lite/open_clip_config.json",
    ):
        assert name in names


@pytest.mark.slow
def test_an_installed_wheel_predicts_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    run(sys.executable, "-m", "venv", home, folder=tmp_path)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, folder=tmp_path)
    # What it depends on is borrowed as it is; a checkout that is installed there for editing is
    # not: Python does not look into .pth files of such a folder.
    site = sysconfig.get_path("purelib", vars={"base": str(home)})
    Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copyfile(ROOT / "examples" / "images" / "cat.jpg", tmp_path / "photo.jpg")
    tpt = home / "bin" / "tpt"
    found = run(python, "-c", "import tpt, coop, cli; print(tpt.__file__)", folder=tmp_path)
    assert found.stdout.startswith(str(home))
    assert run(tpt, "eval", "--help", folder=tmp_path).stdout.startswith("Usage: tpt eval")
    done = run(tpt, "predict", "photo.jpg", "--classes", "cat,dog", "--views", 4, folder=tmp_path)
    record = json.loads(done.stdout)
    assert record["path"] == "photo.jpg"
    assert len(record["predictions"]) == 2
