"""`tpt transfer`: from folders to a matrix, what is learned and tested, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from refusals import error_of

import coop.transfer_prompts
from cli import evaluating
from tpt import Context
from tpt.streaming import predict_job as job

Run = Callable[..., Result]
PETS, CARS = ("cat", "dog", "owl"), ("bus", "van")
QUICK = ("--shots", 2, "--epochs", 2, "--num-workers", 0)


@pytest.fixture
def transfer(run_tpt: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tpt transfer ARGS` with the model that `run_tpt` keeps loaded."""
    monkeypatch.setattr(coop.transfer_prompts, "load_clip", job.load_clip)
    return lambda *args: run_tpt("transfer", *args)


@pytest.fixture(autouse=True)
def _sets() -> None:
    """Two sets: pets without splits, cars with train and test."""
    paint("pets", PETS)
    paint("cars/train", CARS)
    paint("cars/test", CARS)


def paint(folder: str, classes: Sequence[str], count: int = 4) -> None:
    random = np.random.RandomState(len(folder))
    for place, name in enumerate(classes):
        os.makedirs(f"{folder}/{name}")
        for number in range(count):
            pixels = random.randint(0, 100, (24, 32, 3), dtype=np.uint8)
            pixels[..., place] += 120
            Image.fromarray(pixels).save(f"{folder}/{name}/{number}.png")


def make_prompt(path: str, *, classes: tuple[str, ...] = PETS, specific: bool = False) -> str:
    """A prompt file for the embedded model."""
    vectors = 0.1 * torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    context = Context(vectors.expand(len(classes), -1, -1) if specific else vectors)
    context.described(model="tiny", classes=classes).save(path)
    return path


def read_matrix(folder: str = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "transfer.json").read_text())


def read_lines(folder: str = "out") -> list[dict[str, Any]]:
    lines = Path(folder, "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- learning and testing ---


def test_a_prompt_of_each_set_is_tested_on_all_sets(transfer: Run) -> None:
    result = transfer("pets", "cars", "--output", "out", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert {"prompts", "transfer.json", "tables.md", "tables.tex", "heatmap.png"} < set(
        os.listdir("out")
    )
    found = read_matrix()
    assert [source["name"] for source in found["sources"]] == ["pets", "cars"]
    assert [target["name"] for target in found["targets"]] == ["pets", "cars"]
    assert [target["images"] for target in found["targets"]] == [12 - 6, 8]
    (matrix,) = found["matrices"]
    lines = read_lines()
    for column, target in enumerate(("pets", "cars")):
        mine = [line["methods"] for line in lines if line["set"] == target]
        for row, source in enumerate(("pets", "cars")):
            right = sum(methods[f"zero-shot+{source}"]["rank"] == 0 for methods in mine)
            assert matrix["accuracy"][row][column] == pytest.approx(right / len(mine), abs=1e-6)
    assert [row.split()[0] for row in result.stdout.splitlines()] == [
        "Learned",
        "-" * len(result.stdout.splitlines()[1]),
        '"a',
        "pets",
        "cars",
    ]
    with Image.open("out/heatmap.png") as drawn:
        assert drawn.size[0] > 300


def test_no_picture_is_both_learned_from_and_tested_and_that_is_told(transfer: Run) -> None:
    result = transfer("pets", "cars", "--output", "out", *QUICK)
    tested = {f"{line['set']}/{line['key']}" for line in read_lines()}
    for name in ("pets", "cars"):
        for line in Path(f"out/prompts/{name}.files.csv").read_text().splitlines()[1:]:
            _, _, split, path, _ = line.split(",")
            if split == "train":
                assert os.path.relpath(path) not in tested
    assert "pets: learns from 6 of its pictures (12).\n" in result.stderr
    assert "cars: learns from 4 of its training pictures (8).\n" in result.stderr
    told = "pets: 6 of the 12 pictures are left out, because a prompt is learned on them."
    assert f"{told}\n" in result.stderr
    assert f"- {told}\n" in Path("out/tables.md").read_text()
    assert "cars: 4 of" not in result.stderr


def test_what_was_learned_and_predicted_before_is_not_done_again(
    transfer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transfer("pets", "cars", "--output", "whole", *QUICK)

    with monkeypatch.context() as patch:  # after the first of two trainings
        patch.setattr("coop.transfer_prompts.run_job", stop_at(2, coop.transfer_prompts.run_job))
        broken = transfer("pets", "cars", "--output", "out", *QUICK)
    assert broken.exit_code == 130
    assert "Interrupted. Go on with --resume." in broken.stderr
    with monkeypatch.context() as patch:  # in the middle of the pictures
        patch.setattr(evaluating, "progress", stop_progress_at(9))
        broken = transfer("pets", "cars", "--output", "out", "--resume", *QUICK)
    assert broken.exit_code == 130
    assert "pets.safetensors is there already." in broken.stderr
    assert len(read_lines()) == 9
    result = transfer("pets", "cars", "--output", "out", "--resume", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "Epoch" not in result.stderr
    assert "9 were done before." in result.stderr
    assert result.stdout == whole.stdout
    assert read_matrix() == read_matrix("whole")


def stop_at(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, interrupted at its call number `count`."""
    calls = 0

    def run(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise KeyboardInterrupt
        return function(*args, **options)

    return run


def stop_progress_at(count: int) -> Callable[[bool], Any]:
    """A progress that is interrupted after so many pictures."""
    from contextlib import nullcontext

    return lambda quiet: nullcontext(stop_at(count, lambda tally: None))


def test_every_method_has_a_matrix_against_its_own_words(transfer: Run) -> None:
    prompt = make_prompt("p.safetensors")
    done = transfer(
        *("pets", "cars", "--prompt", f"pets={prompt}", "--output", "out"),
        *("--methods", "zero-shot,tpt", "--views", 4, "--num-workers", 0, "--limit", 3),
    )
    assert done.exit_code == 0, done.stderr
    names = ["zero-shot", "zero-shot+pets", "tpt", "tpt+pets"]
    assert list(read_lines()[0]["methods"]) == names
    assert [matrix["method"] for matrix in read_matrix()["matrices"]] == ["zero-shot", "tpt"]
    assert done.stdout.count("Learned on") == 2
    assert [target["images"] for target in read_matrix()["targets"]] == [3, 3]


# --- prompts that exist ---


def test_prompts_that_exist_are_tested_and_none_is_learned(transfer: Run) -> None:
    prompt = make_prompt("p.safetensors")
    given = ("--prompt", f"other={prompt}", "--prompt", f"cars={prompt}")
    result = transfer("pets", "cars", *given, "--output", "out", "--num-workers", 0)
    assert result.exit_code == 0, result.stderr
    assert not os.path.exists("out/prompts")
    found = read_matrix()
    assert [s["name"] for s in found["sources"]] == ["cars", "other"]  # sets first, in their order
    assert [target["images"] for target in found["targets"]] == [12, 8]
    assert found["matrices"][0]["accuracy"][0] == found["matrices"][0]["accuracy"][1]
    unknown = "which pictures it was learned on is not known, because its .files.csv is missing"
    assert result.stderr.count(unknown) == 1
    assert unknown in Path("out/tables.md").read_text()


def test_pictures_that_a_given_prompt_was_learned_on_are_left_out(transfer: Run) -> None:
    assert transfer("pets", "cars", "--output", "out", *QUICK).exit_code == 0
    shutil.copytree("out/prompts", "kept")
    given = ("--prompt", "pets=kept/pets.safetensors")
    result = transfer("pets", "cars", *given, "--output", "again", "--num-workers", 0)
    assert "not known" not in result.stderr
    keys = [
        {line["key"] for line in read_lines(f) if line["set"] == "pets"} for f in ("out", "again")
    ]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 6


def test_some_sets_can_be_learned_on_beside_a_prompt_that_exists(transfer: Run) -> None:
    prompt = make_prompt("p.safetensors")
    mixed = ("--prompt", f"pets={prompt}", "--sources", "cars")
    assert transfer("pets", "cars", *mixed, "--output", "out", *QUICK).exit_code == 0
    assert os.path.exists("out/prompts/cars.safetensors")
    assert not os.path.exists("out/prompts/pets.safetensors")
    assert [source["name"] for source in read_matrix()["sources"]] == ["pets", "cars"]


def test_arrays_can_be_targets_where_the_prompts_are_of_other_sets(transfer: Run) -> None:
    make_arrays("arrays")
    few = ("--sources", "pets", "--limit", 3)
    result = transfer("pets", "arrays", "--output", "out", *few, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert [target["name"] for target in read_matrix()["targets"]][1].startswith("arrays")


def make_arrays(folder: str) -> None:
    """CIFAR-10-C's form, one corruption, ten pictures a severity."""
    os.mkdir(folder)
    np.save(f"{folder}/fog.npy", np.zeros((50_000, 32, 32, 3), dtype=np.uint8))
    np.save(f"{folder}/labels.npy", np.tile(np.arange(10_000) % 10, 5))


# --- bad pictures ---


def test_a_broken_picture_is_told_and_the_exit_code_is_3(transfer: Run) -> None:
    Path("cars/test/bus/9.png").write_text("no picture")
    prompt = make_prompt("p.safetensors")
    result = transfer("pets", "cars", "--prompt", f"x={prompt}", "--output", "out")
    assert result.exit_code == 3
    assert [target["failed"] for target in read_matrix()["targets"]] == [0, 1]


# --- what is refused ---


def test_one_set_has_nothing_to_transfer_to(transfer: Run) -> None:
    message = error_of(transfer("pets", "--output", "out"), 2)
    assert 'There is one set only, "pets", and nothing to transfer to' in message


def test_two_sets_of_one_name_are_refused(transfer: Run) -> None:
    os.mkdir("more")
    shutil.copytree("pets", "more/pets")
    message = error_of(transfer("pets", "more/pets", "--output", "out"), 2)
    assert 'Two sets are called "pets": "pets" and "more/pets".' in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", "a=p.pt", "--prompt", "a=q.pt"), 'Two prompts are called "a"'),
        (("--prompt", "p.pt"), '"p.pt" is not NAME=FILE'),
        (("--prompt", "=p.pt"), '"=p.pt" is not NAME=FILE'),
        (("--sources", "pest"), 'There is no set "pest" to learn on. Did you mean "pets"?'),
        (("--sources", ","), "It names no set and there is no --prompt"),
        (("--prompt", "pets=p.pt", "--sources", "pets"), 'The prompt of "pets" is given with'),
        (("--methods", "tpt+pets"), "every method starts from the words and from every prompt"),
        (("--views", "4"), "--views has no meaning with these methods (zero-shot), which look at"),
        (("--methods", "tpt", "--gate-views", "2"), "give --gate too"),
    ],
)
def test_what_does_not_go_together_is_refused(
    transfer: Run, options: tuple[str, ...], message: str
) -> None:
    assert message in error_of(transfer("pets", "cars", "--output", "out", *options), 2)
    assert not os.path.exists("out")


def test_a_prompt_file_that_is_missing_is_named(transfer: Run) -> None:
    result = transfer("pets", "cars", "--prompt", "pets=gone.safetensors", "--output", "out")
    assert '"gone.safetensors"' in error_of(result, 1)


def test_a_class_specific_prompt_is_refused(transfer: Run) -> None:
    prompt = make_prompt("p.safetensors", specific=True)
    message = error_of(transfer("pets", "cars", "--prompt", f"x={prompt}", "--output", "out"), 1)
    assert "has a context of its own for each of its classes (cat, dog, owl)" in message


def test_no_prompt_can_be_learned_on_arrays(transfer: Run) -> None:
    make_arrays("arrays")
    message = error_of(transfer("pets", "arrays", "--output", "out", *QUICK), 2)
    assert "expected pictures that are files, in class folders or a CSV file." in message
    assert not os.path.exists("out")


def test_a_set_of_which_all_pictures_are_learned_from_is_refused(transfer: Run) -> None:
    message = error_of(transfer("pets", "cars", "--output", "out"), 2)  # 16 shots
    assert 'learns from all 12 pictures of "pets", so none is left to test on' in message


def test_an_output_inside_a_set_is_refused_before_anything_is_learned(transfer: Run) -> None:
    message = error_of(transfer("pets", "cars", "--output", "pets/out", *QUICK), 1)
    assert 'The output "pets/out" lies in the set "pets"' in message
    assert not os.path.exists("pets/out")


@pytest.mark.parametrize("how", [(), ("--resume",), ("--overwrite",)])
def test_a_folder_with_an_evaluation_is_refused(transfer: Run, how: tuple[str, ...]) -> None:
    os.mkdir("out")
    Path("out/predictions.jsonl").write_text("{}\n")
    Path("out/predictions.jsonl.settings.json").write_text('{"settings": {"seed": 0}, "run": {}}')
    message = error_of(transfer("pets", "cars", "--output", "out", *how), 1)
    assert '"out" holds a run of `tpt eval`' in message
    assert Path("out/predictions.jsonl").read_text() == "{}\n"


def test_a_folder_with_another_transfer_is_refused(transfer: Run) -> None:
    prompt = make_prompt("p.safetensors")
    given = ("--prompt", f"x={prompt}", "--output", "out", "--num-workers", 0)
    assert transfer("pets", "cars", *given).exit_code == 0
    before = Path("out/predictions.jsonl").read_bytes()
    assert "exists already. Use --resume" in error_of(transfer("pets", "cars", *given), 1)
    shutil.copytree("cars", "vans")
    message = error_of(transfer("pets", "vans", *given, "--resume"), 1)
    assert "was made with other settings" in message
    assert Path("out/predictions.jsonl").read_bytes() == before
    assert transfer("pets", "vans", *given, "--overwrite").exit_code == 0


def test_libraries_that_are_missing_are_told_first(
    transfer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = evaluating.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "matplotlib" else real(name)
    )
    message = error_of(transfer("pets", "cars", "--output", "out"), 1)
    assert message == (
        "`tpt transfer` needs matplotlib for what it measures and draws. Install it: pip "
        "install 'tpt-runtime[eval]'."
    )


def test_quiet_leaves_the_table_alone(transfer: Run) -> None:
    result = transfer("pets", "cars", "--output", "out", "--quiet", *QUICK)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("Learned on")
