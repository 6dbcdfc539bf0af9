"""`--jacobian`: the same answers, what it costs and saves, and where it has no meaning."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image

import tpt
import tpt.prompts.engine as engine_room
from tpt.prompts.meta_network import MetaNet

PREDICT = ("predict", "pictures", "--recursive", "--classes", "cat,dog,cup", "--model", "tiny")
HOW = ("--views", "8", "--device", "cpu", "--precision", "fp32")


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat", "dog", "cat", "dog")):
        folder = Path("pictures", name)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * number, 200, 90)).save(folder / f"{number}.png")


def first_scores(path: str) -> list[float]:
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [line["predictions"][0]["score"] for line in lines]


def test_it_gives_the_same_answers_and_is_kept_with_them(run_tpt: Callable[..., Result]) -> None:
    told = []
    for extra in ((), ("--jacobian",)):
        path = f"out{len(extra)}.jsonl"
        done = run_tpt(*PREDICT, *HOW, "--output", path, *extra)
        assert done.exit_code == 0, done.stderr
        told.append(done.stderr)
    assert first_scores("out0.jsonl") == pytest.approx(first_scores("out1.jsonl"), abs=1e-4)
    assert "Jacobian: 3 of 3 classes" in told[1]
    assert "Jacobian" not in told[0]
    again = run_tpt(*PREDICT, *HOW, "--output", "out1.jsonl", "--resume")
    assert again.exit_code == 1
    assert "jacobian" in again.stderr


def test_a_dry_run_tells_after_how_many_pictures_it_breaks_even(
    run_tpt: Callable[..., Result],
) -> None:
    row = r"jacobian +{} \([\d.e-]+ GB, saves [\d.e-]+ GFLOP a picture, breaks even after ([\d,]+) "
    for extra, word in (((), "off"), (("--jacobian",), "on")):
        done = run_tpt(*PREDICT, *HOW, "--dry-run", *extra)
        found = re.search(row.format(word), done.stdout)
        assert found is not None, done.stdout
        assert int(found[1].replace(",", "")) > 64  # a pass for each direction of the features
    for words in (("--method", "vte"), ("--method", "tent"), ("--reset", "stream")):
        done = run_tpt(*PREDICT, *HOW[-4:], "--dry-run", *words)
        assert "jacobian" not in done.stdout, done.stdout


def test_a_short_run_is_told_that_it_does_not_pay(run_tpt: Callable[..., Result]) -> None:
    words = (*PREDICT, *HOW, "--jacobian", "--output", "out.jsonl")
    done = run_tpt(*words)
    assert "--jacobian takes longer than it saves with 4 pictures; it breaks even" in done.stderr
    assert "Jacobian: 0 of 3 classes" in done.stderr
    assert "Jacobian" not in run_tpt(*words, "--resume").stderr  # nothing is left to do
    quiet = run_tpt(*PREDICT, *HOW, "--jacobian", "--quiet", "--output", "quiet.jsonl")
    assert quiet.stderr == ""


def test_an_interrupt_while_it_is_built_can_be_resumed(
    run_tpt: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tpt.PromptEngine, "build_jacobian", interrupt)
        done = run_tpt(*PREDICT, *HOW, "--jacobian", "--output", "out.jsonl")
    assert done.exit_code == 130
    assert "Go on with --resume." in done.stderr
    done = run_tpt(*PREDICT, *HOW, "--jacobian", "--output", "out.jsonl", "--resume")
    assert done.exit_code == 0, done.stderr


def test_an_evaluation_has_it_too(run_tpt: Callable[..., Result]) -> None:
    words = ("eval", "pictures", "--model", "tiny", *HOW, "--methods", "zero-shot,tpt,ctpt")
    for extra in ((), ("--jacobian",)):
        done = run_tpt(*words, "--output", f"run{len(extra)}", *extra)
        assert done.exit_code == 0, done.stderr
    assert done.stderr.count("Jacobian: 2 of 2 classes") == 1
    results = json.loads(Path("run1/results.json").read_text())
    assert results["settings"]["jacobian"] is True
    dry = run_tpt(*words, "--output", "run2", "--dry-run")
    assert "Jacobian of 2 classes for tpt, ctpt: off (" in dry.stderr
    assert not Path("run2").exists()


def test_class_lists_that_come_again_and_outside_pictures_use_the_same_one(
    run_tpt: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("pictures", "more")
    shutil.copytree("pictures/cat", "other/cup")
    shutil.copytree("pictures/dog", "other/fox")
    shutil.copytree("pictures/dog", "outside")
    graphs: list[object] = []
    real = engine_room.pull_back_each
    monkeypatch.setattr(
        engine_room, "pull_back_each", lambda *rest: graphs.append(rest) or real(*rest)
    )
    words = ("eval", "pictures", "other", "more", "--model", "tiny", *HOW, "--methods", "tpt")
    done = run_tpt(*words, "--outside", "outside", "--output", "run", "--jacobian")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("Jacobian: 2 of 2 classes") == 2
    assert not graphs
    Path("run/outside.jsonl").unlink()
    done = run_tpt(*words, "--outside", "outside", "--output", "run", "--jacobian", "--resume")
    assert done.exit_code == 0, done.stderr
    assert not graphs


def test_a_prompt_that_can_have_none_is_told(
    run_tpt: Callable[..., Result], tiny: tpt.Clip
) -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = (5, tiny.embedding_width), (5,), (tiny.width, 5), (tiny.width,)
    meta = MetaNet(*(0.1 * torch.randn(size, generator=rng) for size in sizes))
    tpt.Context(torch.zeros(4, tiny.width), meta=meta).save("own.safetensors")
    words = ("eval", "pictures", "--model", "tiny", *HOW, "--init", "own=own.safetensors")
    both = run_tpt(*words, "--methods", "tpt,tpt+own", "--output", "both", "--jacobian")
    assert both.exit_code == 0, both.stderr
    assert "tpt+own: no Jacobian, because every picture has a start of its own" in both.stderr
    assert both.stderr.count("Jacobian: 2 of 2 classes") == 1
    dry = run_tpt(*words, "--methods", "tpt,tpt+own", "--output", "dry", "--dry-run")
    assert "for tpt+own: not possible: each picture has a start context of its own" in dry.stderr
    alone = run_tpt(*words, "--methods", "tpt+own", "--output", "alone", "--jacobian")
    assert alone.exit_code == 1
    assert "there is no Jacobian that all share" in " ".join(alone.stderr.split())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*PREDICT, "--method", "vte"), "--jacobian has no meaning with --method vte"),
        ((*PREDICT, "--method", "tent"), "--jacobian has no meaning with --method tent"),
        ((*PREDICT, "--reset", "stream"), "tune the context anew for every picture"),
        (
            (*PREDICT, "--ray", "local", "--output", "out"),
            "--jacobian has no meaning with --ray, whose actors would build one each",
        ),
        (
            ("eval", "pictures", "--methods", "zero-shot,tps", "--output", "out"),
            "--jacobian has no meaning with --method zero_shot, tps",
        ),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(
    run_tpt: Callable[..., Result], words: tuple[str, ...], text: str
) -> None:
    refused = run_tpt(*words, "--jacobian")
    assert refused.exit_code in (1, 2)
    assert text in " ".join(refused.stderr.split())
