"""Every `tpt` line of docs/ runs: on small pictures, with few views and the seeded model.

A page's lines run in order in a folder that holds what they name. What differs from the page: the
model, and sizes that are added at the end.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from _films import make_film
from click.testing import Result
from PIL import Image

import tpt
from cli.main import main
from tpt.data.imagenet import subset_ids

DOCS = Path(__file__).parents[2] / "docs"
PLAIN_SETS = ("pictures", "photos", "photos_labelled", "pacs/photo", "pacs/sketch", "cifar10/test")
PLAIN_SETS = (*PLAIN_SETS, "imagenette/val", "cue_conflict")
WORDNET_SETS = ("imagen", "imagenet/val", "imagenet-a", "imagenet-r", "imagenet-c/fog/3")
PROMPTS = ("coop", "photo", "imagenette", "cifar10", "base")
SMALL = {
    "predict": ("--views", "3"),
    "eval": ("--views", "3", "--limit", "2"),
    "calibrate": ("--views", "3"),
    "advise": ("--views", "3", "--limit", "10"),
    "train": ("--epochs", "1", "--shots", "1"),
    "transfer": ("--limit", "2", "--epochs", "1", "--shots", "1"),
}
PRINTED = {"eval": "top-1", "transfer": "zero-shot", "train": "pictures"}  # columns that pages name
ELSEWHERE = ("serve",)  # runs until it is stopped; tests/serve
NOT_HERE = ("s3://", "--ray", "rtsp://")  # lines with these need a network, a camera or a cluster


def commands(page: Path) -> list[str]:
    """The `tpt ...` lines of indented and fenced blocks, continued ones joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = "".join(re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, flags=re.M | re.S))
    indented = re.findall(r"^    (tpt .*)$", text, flags=re.M)
    found = [*indented, *re.findall(r"^(tpt .*)$", fenced, flags=re.M)]
    return [line.split(" #")[0].split(" | ")[0].strip() for line in found]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if commands(page)]


def shrink(line: str) -> list[str]:
    """The words of a line with a small model and small sizes."""
    line = re.sub(r"models (show|convert) \S+( --pretrained \S+)?", r"models \1 tiny", line)
    if "prompt import" not in line:  # which loads no model
        line = re.sub(r"--model \S+( --pretrained \S+)?", "", line).replace("all:1", "fog:1")
    line = re.sub(r"--shots \d+", "--shots 1", line)  # pictures have to be left to test on
    words = shlex.split(line.replace("--methods ...", "").replace(" ...", ""))[1:]
    small = SMALL.get(words[0], ())
    pairs = zip(small[::2], small[1::2], strict=True)
    return [*words, *(word for pair in pairs if pair[0] not in words for word in pair)]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    for file in path.parent.glob(f"{path.stem}.*") if not path.is_dir() else ():
        file.unlink()


def write_checkpoints(folder: Path) -> None:
    """A CoOp checkpoint, and one in a folder that Dassl wrote."""
    seed = folder / "output/caltech101/CoOp/vit_b16/seed1"
    (seed / "prompt_learner").mkdir(parents=True)
    (seed / "log.txt").write_text("MODEL:\n  BACKBONE:\n    NAME: ViT-B/16\n", encoding="utf-8")
    for path in (folder / "model.pth.tar-50", seed / "prompt_learner/model.pth.tar-50"):
        torch.save({"state_dict": {"ctx": torch.ones(4, 512)}}, path)


@pytest.fixture
def world(tmp_path: Path, tiny_folder: Path) -> Path:
    """A folder with the sets, lists and prompts that pages name."""
    wordnet = sorted({*subset_ids("imagenet-a")} & {*subset_ids("imagenet-r")})[:2]
    folders = [(name, ("cat", "dog")) for name in PLAIN_SETS]
    folders += [(name, tuple(wordnet)) for name in WORDNET_SETS]
    for number, (name, classes) in enumerate(folders):
        for place, label in enumerate(classes):
            (tmp_path / name / label).mkdir(parents=True)
            for copy in range(3):
                colour = (40 * number % 256, 90 * place, 60 * copy)
                Image.new("RGB", (40, 36), colour).save(tmp_path / name / label / f"{copy}.png")
    Image.new("RGB", (40, 36)).save(tmp_path / "photos/one.jpg")
    pictures = [path.read_bytes() for path in (tmp_path / "photos/cat").iterdir()]
    pq.write_table(pa.table({"image": pictures}), tmp_path / "pictures.parquet")
    make_film(tmp_path / "film.mp4", [tmp_path / "photos/one.jpg"] * 2, 5, size=(64, 48))
    for shard in range(4):
        with tarfile.open(tmp_path / f"shard-{shard:04}.tar", "w") as archive:
            archive.add(tmp_path / "photos/one.jpg", f"{shard}.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    write_checkpoints(tmp_path)
    (tmp_path / "imagen/classes.txt").write_text("\n".join(f"{n}={n[1:]}" for n in wordnet))
    context = tpt.Context.from_words(tpt.load_clip("tiny", device="cpu"), "a photo of a")
    for name in PROMPTS:
        context.described(classes=("cat", "dog")).save(tmp_path / f"{name}.safetensors")
    return tmp_path


def test_pages_with_commands_are_found() -> None:
    assert {"corruptions", "evaluation", "quickstart"} <= {page.stem for page in PAGES}
    assert len(commands(DOCS / "evaluation.md")) >= 8


def test_the_commands_of_the_table_of_models_are_spelt_right() -> None:
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\|.*`(tpt [^`]*)` \|$", page, flags=re.M)
    assert len(lines) >= 10
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(
    page: Path, world: Path, run_tpt: Callable[..., Result]
) -> None:
    for line in commands(page):
        words = shrink(line)
        if words[0] in ELSEWHERE:
            continue
        if any(each in line for each in NOT_HERE):
            command = main.get_command(click.Context(main), words[0])
            assert command is not None
            command.make_context(words[0], words[1:])  # spelt right
            continue
        if "--output" in words:  # every line of a page is a run of its own
            remove(world / words[words.index("--output") + 1])
        result = run_tpt(*words)
        assert result.exit_code == 0, (line, result.stderr)
        assert PRINTED.get(words[0], "") in result.output, line
