"""`tpt advise`: the draw, the table, the sentence, and a command that runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from refusals import error_of

Run = Callable[..., Result]
QUICK = ("--views", 4, "--num-workers", 0)
FEW = (*QUICK, "--methods", "vte,tda,zero,tpt:lr=0.02")


@pytest.fixture(autouse=True)
def _pictures(make_images: Callable[..., list[str]]) -> None:
    make_images(*(f"pets/{name}/{n}.png" for name in ("cat", "dog", "owl") for n in range(4)))


def test_a_labelled_folder_gives_intervals_a_sentence_and_a_command(run_tpt: Run) -> None:
    result = run_tpt("advise", "pets", *FEW)
    assert result.exit_code == 0, result.stderr
    head, *rows, empty, sentence, command = result.stdout.splitlines()
    assert head.split()[:5] == ["method", "ms", "agrees", "sure", "entropy"]
    assert "against zero-shot, points" in head
    assert [line.split()[0] for line in rows] == ["zero-shot", "vte", "tda", "zero", "tpt:lr=0.02"]
    assert empty == ""
    assert sentence.startswith(("Use ", "Not decided: on 12", "Do not adapt: on 12"))
    assert command.startswith(
        "tpt predict pets --classes cat,dog,owl --recursive --model tiny --method "
    )
    views = () if "zero_shot" in command else ("--views", "4")
    done = run_tpt(*shlex.split(command)[1:], *views, "--num-workers", 0)
    assert done.exit_code == 0, done.stderr


def test_labels_may_come_in_a_file(run_tpt: Run) -> None:
    rows = [f"pets/{name}/{n}.png,{name}" for name in ("cat", "dog") for n in range(3)]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    words = ("--classes", "cat,dog,owl", "--labels", "labels.csv")
    result = run_tpt("advise", "pets", *words, *FEW)
    assert result.exit_code == 0, result.stderr
    assert "6 pictures, with labels" in result.stderr
    assert "on 6 of your pictures" in result.stdout


def test_without_labels_it_says_what_to_label(run_tpt: Run) -> None:
    result = run_tpt("advise", "pets", "--classes", "cat,dog,owl", *FEW)
    assert result.exit_code == 0, result.stderr
    assert "12 pictures, without labels" in result.stderr
    assert "top-1" not in result.stdout
    assert result.stdout.splitlines()[-2].startswith("Do not adapt")
    command = "tpt predict pets --classes cat,dog,owl --model tiny --method zero_shot"
    assert result.stdout.splitlines()[-1] == command


def test_the_whole_shelf_runs_on_a_small_draw(run_tpt: Run) -> None:
    result = run_tpt("advise", "pets", "--limit", 10, *QUICK)
    assert result.exit_code == 0, result.stderr
    names = [line.split()[0] for line in result.stdout.splitlines()[1:-3]]
    assert {"zero-shot", "vte", "mta", "tpt", "rtpt", "oga", "stata"} <= set(names)
    assert "The model's logit scale is" in result.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pets", "--labels", "l.csv"), "--labels says what pictures show; give the --classes too"),
        (("pets/cat",), "holds 4 pictures and no class folders"),
        (("pets", "--methods", "nothing"), 'Unknown method "nothing"'),
    ],
)
def test_what_cannot_be_advised_is_told(run_tpt: Run, words: tuple[str, ...], text: str) -> None:
    assert text in error_of(run_tpt("advise", *words, *QUICK))


def test_labels_of_other_pictures_are_told(
    run_tpt: Run, make_images: Callable[..., list[str]]
) -> None:
    make_images("other.png")
    Path("labels.csv").write_text("path,label\nother.png,cat\n")
    words = ("--classes", "cat,dog", "--labels", "labels.csv")
    assert "labels none of the 12 pictures" in error_of(run_tpt("advise", "pets", *words))
