"""The wheel works by itself: built, installed in an environment of its own, used from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import archives
import foreign_models
import plain_answers
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it depends on, without extras and this checkout."""
    folder = tmp_path_factory.mktemp("core")
    home = folder / "env"
    run(sys.executable, "-m", "venv", home, folder=folder)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, folder=folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (about,) = site.glob("tpt_runtime-*.dist-info")
    for path in find_core_files(metadata.Distribution.at(about)):  # borrowed as they are
        if not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    return home


def find_core_files(package: metadata.Distribution) -> set[Path]:
    """What stands in this site-packages of what a package needs, and of what that needs."""
    found: set[Path] = set()
    seen: set[str] = set()
    todo = [package]
    while todo:
        for line in todo.pop().requires or ():
            needed = Requirement(line)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if not wanted or canonicalize_name(needed.name) in seen:
                continue
            seen.add(canonicalize_name(needed.name))
            there = metadata.distribution(needed.name)
            todo.append(there)
            tops = {file.parts[0] for file in there.files or ()} - {"..", "__pycache__"}
            found |= {Path(str(there.locate_file(top))) for top in tops}
    return found


@pytest.mark.slow
def test_an_installed_wheel_predicts_from_another_folder(home: Path, tmp_path: Path) -> None:
    python, tpt = home / "bin" / "python", home / "bin" / "tpt"
    shutil.copyfile(ROOT / "examples" / "images" / "cat.jpg", tmp_path / "photo.jpg")
    found = run(python, "-c", "import tpt, coop, cli; print(tpt.__file__)", folder=tmp_path)
    assert found.stdout.startswith(str(home))
    assert run(tpt, "eval", "--help", folder=tmp_path).stdout.startswith("Usage: tpt eval")
    done = run(tpt, "predict", "photo.jpg", "--classes", "cat,dog", "--views", 4, folder=tmp_path)
    record = json.loads(done.stdout)
    assert record["path"] == "photo.jpg"
    assert len(record["predictions"]) == 2


@pytest.mark.slow
def test_without_transformers_all_but_its_text_towers_works(home: Path, tmp_path: Path) -> None:
    """Models of every format answer as they do beside transformers."""
    models = tmp_path / "models"
    models.mkdir()
    for kind in ("clip", "siglip", "chinese_clip"):
        foreign_models.save(foreign_models.build(kind), models / kind)
    archives.script(archives.build(archives.VIT), models / "ViT.pt")
    archives.script(archives.build(archives.RESNET), models / "RN.pt")
    ours = plain_answers.answer_all(models)
    foreign = models / "foreign"
    foreign.mkdir()
    text = {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}
    config = {"embed_dim": 24, "vision_cfg": archives.VIT, "text_cfg": text}
    (foreign / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (foreign / "open_clip_model.safetensors").write_bytes(b"")
    program = shutil.copy(plain_answers.__file__, tmp_path)
    done = run(home / "bin" / "python", program, models, folder=tmp_path)
    told = json.loads(done.stdout)
    assert not told["imported"]
    answers = told["answers"]
    assert answers.pop("foreign") == missing(f'The text tower of "local-dir:{foreign}"')
    chinese = f'"local-dir:{models / "chinese_clip"}" in open_clip\'s format'
    assert answers["chinese_clip"].pop("converted") == missing(f"The text tower of {chinese}")
    assert ours["chinese_clip"].pop("converted") == ours["chinese_clip"]["digest"]
    assert answers == ours


def missing(what: str) -> str:
    """How a model is refused that needs the extra."""
    return (
        f"{what} needs transformers, which is not installed. Install it: "
        'pip install "tpt-runtime[hf]".'
    )
