"""Class names and option combinations that `tpt predict` accepts, and those it refuses and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

import tpt

Run = Callable[..., Result]
ZERO_SHOT = ("--method", "zero_shot", "--top-k", "99")


@pytest.fixture(autouse=True)
def _image(make_images: Callable[..., list[str]]) -> None:
    make_images("a.png")


@pytest.fixture
def prompt_file() -> str:
    """A prompt that was trained for the embedded model and three classes."""
    clip = tpt.load_clip("tiny", device="cpu")
    context = tpt.Context.from_words(clip, "a sketch of a")
    context.described(classes=("red fox", "owl", "elk")).save("prompt.safetensors")
    return "prompt.safetensors"


def classes_of(result: Result) -> list[str]:
    """The labels of the only record, in the order of the classes."""
    assert result.exit_code == 0, result.stderr
    predictions = json.loads(result.stdout)["predictions"]
    return [p["label"] for p in sorted(predictions, key=lambda p: p["index"])]


# --- class names ---


@pytest.mark.parametrize("value", ["cat,dog,polar bear", " cat , dog,polar bear "])
def test_classes_are_a_comma_list(run_tpt: Run, value: str) -> None:
    result = run_tpt("predict", "a.png", "--classes", value, *ZERO_SHOT)
    assert classes_of(result) == ["cat", "dog", "polar bear"]


@pytest.mark.parametrize(
    "data",
    [
        b"cat\ndog, wild\npolar_bear",
        b"cat\ndog, wild\npolar_bear\n\n \n",
        b"\xef\xbb\xbfcat\r\ndog, wild\r\npolar_bear\r\n",
        b" cat \n\tdog, wild\npolar_bear\n",
    ],
)
@pytest.mark.parametrize("name", ["names.txt", "names"])
def test_classes_are_the_lines_of_a_file(run_tpt: Run, data: bytes, name: str) -> None:
    Path(name).write_bytes(data)
    result = run_tpt("predict", "a.png", "--classes", name, *ZERO_SHOT)
    assert classes_of(result) == ["cat", "dog, wild", "polar_bear"]


def test_class_names_may_be_in_any_script(run_tpt: Run) -> None:
    result = run_tpt("predict", "a.png", "--classes", "猫,Łódź", *ZERO_SHOT)
    assert classes_of(result) == ["猫", "Łódź"]
    assert "猫" in result.stdout


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "Class name 1 is empty"),
        ("cat,,dog", "Class name 2 is empty"),
        ("cat,dog,", "Class name 3 is empty"),
        ("cat,_,dog", "Class name 2 is empty"),
        ("cat,dog,cat", 'Class "cat" (name 3) is the same prompt as name 1'),
        ("polar bear,Polar_Bear", 'Class "Polar_Bear" (name 2) is the same prompt as name 1'),
        ("missing.txt", 'There is no class file "missing.txt"'),
        ("folder/missing", 'There is no class file "folder/missing"'),
    ],
)
def test_wrong_class_names_are_told_by_their_place(run_tpt: Run, value: str, words: str) -> None:
    result = run_tpt("predict", "a.png", "--classes", value)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "--classes" in result.stderr


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", 'The class file "names.txt" is empty'),
        (b"\n \n", 'The class file "names.txt" is empty'),
        (b"cat\n\ndog\n", 'Class line 2 of "names.txt" is empty'),
        (b"cat\ndog\nDog\n", 'Class "Dog" (line 3 of "names.txt") is the same prompt as line 2'),
        (b"cat\n\xff\xfe\n", '"names.txt" cannot be read as UTF-8 text'),
    ],
)
def test_a_wrong_class_file_is_told_by_its_line(run_tpt: Run, data: bytes, words: str) -> None:
    Path("names.txt").write_bytes(data)
    result = run_tpt("predict", "a.png", "--classes", "names.txt")
    assert result.exit_code == 2
    assert words in result.stderr


def test_no_classes_at_all_is_wrong_usage(run_tpt: Run) -> None:
    result = run_tpt("predict", "a.png")
    assert result.exit_code == 2
    assert "No class names were given. Use --classes cat,dog" in result.stderr


def test_a_class_name_too_long_for_the_model_is_named(run_tpt: Run) -> None:
    result = run_tpt("predict", "a.png", "--classes", "cat," + "very " * 100 + "long dog")
    assert result.exit_code == 1
    assert "model reads at most 77" in result.stderr


# --- prompt files ---


def test_a_prompt_file_brings_classes_and_model(run_tpt: Run, prompt_file: str) -> None:
    result = run_tpt("predict", "a.png", "--init", prompt_file, *ZERO_SHOT)
    assert classes_of(result) == ["red fox", "owl", "elk"]
    assert "embedded" not in result.stderr


def test_classes_that_are_given_replace_those_of_the_file(run_tpt: Run, prompt_file: str) -> None:
    result = run_tpt("predict", "a.png", "--init", prompt_file, "--classes", "a,b", *ZERO_SHOT)
    assert classes_of(result) == ["a", "b"]


def test_a_prompt_of_another_model_needs_force_and_warns(run_tpt: Run) -> None:
    context = tpt.Context(torch.zeros(4, 128), info=tpt.Context.load(other_prompt()).info)
    context.save("other.pt")
    words = ("predict", "a.png", "--init", "other.pt", "--classes", "a,b", "--model", "tiny")
    refused = run_tpt(*words)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    forced = run_tpt(*words, "--force", "--views", 2)
    assert forced.exit_code == 0
    assert "Warning: " in forced.stderr
    quiet = run_tpt(*words, "--force", "--views", 2, "--quiet")
    assert quiet.stderr == ""


def other_prompt() -> str:
    clip = tpt.load_clip("tiny", device="cpu")
    context = tpt.Context.from_words(clip, "a").described(model="ViT-B-32", pretrained="openai")
    context.save("made-for-another.pt")
    return "made-for-another.pt"


# --- templates ---


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", 'The template file "t.txt" is empty'), (b"\xff", "cannot be read as UTF-8")],
)
def test_a_wrong_template_file_is_refused(run_tpt: Run, data: bytes, words: str) -> None:
    Path("t.txt").write_bytes(data)
    result = run_tpt("predict", "a.png", "--classes", "a,b", "--template", "t.txt", *ZERO_SHOT)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("method", ["tpt", "zero_shot"])
@pytest.mark.parametrize("template", ["a {} and a {}", "{}"])
def test_a_template_names_the_class_once_among_words(
    run_tpt: Run, method: str, template: str
) -> None:
    result = run_tpt(
        *("predict", "a.png", "--classes", "a,b", "--method", method, "--template", template),
        "--dry-run",
    )
    fine = method == "zero_shot" and template == "{}"  # no words to tune, but words to compare
    assert result.exit_code == (0 if fine else 1)
    assert ("The template" in result.stderr) != fine


# --- options that do not go together ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "zero_shot", "--keep", "0.1"], "--keep has no meaning with --method zero_sh"),
        (["--method", "zero-shot", "--views", "64"], "--views has no meaning"),
        (["--template", "a {}", "--template", "the {}"], "one template, but 2 were given"),
        (["--template", "a {}", "--init", "prompt.pt"], "--init and --template"),
        (["--pretrained", "openai"], "give --model too"),
        (["--resume"], "the output is standard output"),
        (["--resume", "--output", "/dev/null"], 'the output is "/dev/null"'),
        (["--resume", "--output", "out.txt", "--format", "table"], "A table cannot be continued"),
        (["--resume", "--output", "out.jsonl", "--reset", "stream"], "keeps state between images"),
        (["--resume", "--overwrite", "--output", "out.jsonl"], "Give one of them"),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_options_that_do_not_go_together_are_wrong_usage(
    run_tpt: Run, options: list[str], words: str, dry_run: list[str]
) -> None:
    result = run_tpt("predict", "a.png", "--classes", "a,b", *options, *dry_run)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_an_existing_output_is_never_written_over_unasked(
    run_tpt: Run, dry_run: list[str], no_forward_pass: None
) -> None:
    Path("out.jsonl").write_text("mine")
    result = run_tpt("predict", "a.png", "--classes", "a,b", "--output", "out.jsonl", *dry_run)
    assert result.exit_code == 1
    assert '"out.jsonl" exists already. Use --resume' in result.stderr
    assert Path("out.jsonl").read_text() == "mine"
    assert not Path("out.jsonl.settings.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--seed", "1"], "(seed; seed was 0, now 1)"),
        (["--keep", "0.5"], "(keep, views_kept; keep was 0.1, now 0.5)"),
        (["--classes", "b,a"], '(classes; classes was ["a", "b"], now ["b", "a"])'),
        (["--top-k", "1"], "(top_k; top_k was 5, now 1)"),
        (["--format", "csv"], '(format; format was "jsonl", now "csv")'),
        (["--method", "zero_shot"], "method was"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(
    run_tpt: Run, change: list[str], words: str
) -> None:
    first = ("predict", "a.png", "--classes", "a,b", "--output", "out.jsonl")
    assert run_tpt(*first).exit_code == 0
    before = Path("out.jsonl").read_bytes()
    result = run_tpt(*first, "--resume", *change)
    assert result.exit_code == 1
    assert '"out.jsonl" was made with other settings ' in result.stderr
    assert words in result.stderr
    assert Path("out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "change", [["--num-workers", "0"], ["--batch-size", "3"], ["--quiet"], ["--strict"]]
)
def test_what_does_not_change_the_records_may_change_on_resume(
    run_tpt: Run, change: list[str]
) -> None:
    first = ("predict", "a.png", "--classes", "a,b", "--views", "2", "--output", "out.jsonl")
    assert run_tpt(*first).exit_code == 0
    shutil.copy("a.png", "b.png")
    assert run_tpt(*first, "b.png", "--resume", *change).exit_code == 0
    assert len(Path("out.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("damage", [None, b"", b'{"settings": {"model": "ti'])
def test_without_its_settings_file_a_run_is_not_continued(
    run_tpt: Run, damage: bytes | None
) -> None:
    first = ("predict", "a.png", "--classes", "a,b", "--output", "out.jsonl")
    run_tpt(*first)
    sidecar = Path("out.jsonl.settings.json")
    sidecar.unlink() if damage is None else sidecar.write_bytes(damage)
    result = run_tpt(*first, "--resume")
    assert result.exit_code == 1
    assert "is missing or damaged" in result.stderr


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_file_that_is_not_records_is_not_continued(run_tpt: Run, name: str) -> None:
    first = ("predict", "a.png", "--classes", "a,b", "--output", name)
    run_tpt(*first)
    Path(name).write_text("shopping list\n")
    result = run_tpt(*first, "--resume")
    assert result.exit_code == 1
    assert f'Line 1 of "{name}" is not a record' in result.stderr
    assert Path(name).read_text() == "shopping list\n"
