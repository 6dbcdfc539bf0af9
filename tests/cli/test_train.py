"""`tpt train`: what it leaves behind, the data it takes, and what it refuses and why."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from refusals import error_of

import coop.features
import coop.recipes
import coop.schedule
import coop.train_job
import tpt

PETS = ("cat", "dog", "owl")
METHODS = ("coop", "cocoop", "kgcoop", "e2mim")
QUICK = ("--epochs", 2, "--cache-views", 2, "--num-workers", 0)
FAST = ("--shots", 2, *QUICK)

Train = Callable[..., Result]
Run = Callable[..., Result]


def paint(folder: str, classes: Sequence[str] = PETS, count: int = 6, seed: int = 0) -> None:
    """Small pictures, one colour of noise a class."""
    random = np.random.RandomState(seed)
    for place, name in enumerate(classes):
        Path(folder, name).mkdir(parents=True)
        for number in range(count):
            pixels = random.randint(0, 100, (24, 32, 3), dtype=np.uint8)
            pixels[..., place % 3] += 120 + 30 * (place // 3)
            Image.fromarray(pixels).save(f"{folder}/{name}/{number}.png")


def break_pictures(*names: str) -> None:
    for name in names:
        Path(name).write_text("no picture")


@pytest.fixture(autouse=True)
def _pets() -> None:
    paint("pets")


def events(log: str, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def pictures(listing: str, split: str) -> list[tuple[str, str]]:
    with open(listing, newline="") as file:
        return [(r["path"], r["label"]) for r in csv.DictReader(file) if r["split"] == split]


def made() -> set[str]:
    return {name for name in os.listdir() if os.path.isfile(name)}


# --- what is made ---


def test_a_training_leaves_a_prompt_its_log_its_pictures_and_its_card(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", *FAST)
    assert result.exit_code == 0
    assert made() == {"p.safetensors", "p.jsonl", "p.files.csv", "p.md"}
    head, row = result.stdout.splitlines()
    assert head.split() == ["shots", "seed", "pictures", "val", "hand", "test", "hand", "file"]
    assert row.split()[:3] == ["2", "1", "6"]
    assert row.split()[-1] == "p.safetensors"
    assert result.stderr.startswith("pets: 18 pictures of 3 classes to draw from (folder).\n")
    assert "Epoch 2 of 2: loss " in result.stderr
    assert result.stderr.endswith("Beside it: p.md, p.files.csv, p.jsonl.\n")


def test_files_without_an_extension_are_looked_into_where_that_is_asked_for(train: Train) -> None:
    Path("pets/cat/0.png").rename("pets/cat/0")
    Path("pets/cat/notes.txt").write_text("no picture")
    plain = train("pets", "--output", "plain.safetensors", *FAST)
    assert plain.stderr.startswith("pets: 17 pictures of 3 classes to draw from (folder).\n")
    assert "2 files skipped (not an image's extension): pets/cat/0, pets/cat/notes" in plain.stderr
    whole = train("pets", "--all-files", "--output", "whole.safetensors", *FAST)
    assert whole.stderr.startswith("pets: 18 pictures of 3 classes to draw from (folder).\n")
    assert "1 file skipped (no picture inside): pets/cat/notes.txt." in whole.stderr


def test_the_table_and_the_card_tell_the_accuracies_of_the_log(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", *FAST)
    (run,) = events("p.jsonl", "run")
    wanted = [
        f"{100 * run[kind][name]:.1f}"
        for name in ("val", "test")
        for kind in ("accuracy", "template_accuracy")
    ]
    assert result.stdout.splitlines()[1].split()[3:-1] == wanted
    assert f"| 2 | 1 | 6 | {' | '.join(wanted)} |" in Path("p.md").read_text()
    assert run["measured_on"] == {"val": 6, "test": 6}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_prompt_says_what_it_was_made_from(train: Train, suffix: str) -> None:
    assert train("pets", "--output", f"p{suffix}", "--seeds", 7, *FAST).exit_code == 0
    context = tpt.Context.load(f"p{suffix}")
    assert tuple(context.vectors.shape) == (16, tpt.load_clip("tiny").width)
    info = context.info
    assert (info.model, info.classes, info.dataset) == ("tiny", PETS, "pets")
    assert (info.shots, info.seed) == (2, 7)


def test_the_log_holds_settings_every_epoch_and_the_result(train: Train) -> None:
    train("pets", "--output", "p.safetensors", *FAST, "--epochs", 3, "--lr", 0.1)
    kinds = [json.loads(line)["event"] for line in Path("p.jsonl").read_text().splitlines()]
    assert kinds == ["start", "epoch", "epoch", "epoch", "run"]
    (start,), steps = events("p.jsonl", "start"), events("p.jsonl", "epoch")
    assert start["settings"]["recipe"]["lr"] == 0.1
    assert start["settings"]["classes"] == list(PETS)
    assert [step["epoch"] for step in steps] == [1, 2, 3]
    assert [step["lr"] for step in steps][:2] == [1e-5, 0.1]
    assert all(step["loss"] > 0 and 0 <= step["accuracy"] <= 1 for step in steps)
    assert events("p.jsonl", "run")[0]["loss"] == pytest.approx(steps[-1]["loss"], abs=1e-6)


def test_the_list_names_exactly_the_pictures_that_were_read(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    ahead = coop.features.decode_ahead

    def watch(paths: list[str], *rest: Any, **settings: Any) -> Any:
        read.update(paths)
        return ahead(paths, *rest, **settings)

    monkeypatch.setattr(coop.features, "decode_ahead", watch)
    train("pets", "--output", "p.safetensors", "--test", "none", *FAST)
    drawn, val = pictures("p.files.csv", "train"), pictures("p.files.csv", "val")
    assert {path for path, _ in drawn + val} == read
    assert len(drawn) == len(val) == 6
    assert not set(drawn) & set(val)
    assert all(f"pets/{label}/" in path for path, label in drawn + val)


def test_a_prompt_that_was_trained_beats_the_hand_crafted_one(train: Train) -> None:
    words = ("--shots", 2, "--epochs", 150, "--lr", 0.02, "--augment", "none", "--test", "none")
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    (run,) = events("p.jsonl", "run")
    assert run["accuracy"]["val"] > run["template_accuracy"]["val"] + 0.4
    losses = [step["loss"] for step in events("p.jsonl", "epoch")]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_prompt_is_what_predict_starts_from(
    train: Train, run_tpt: Run, method: str
) -> None:
    assert train("pets", "--output", "p.safetensors", "--method", method, *FAST).exit_code == 0
    result = run_tpt("predict", "pets/cat/0.png", "--init", "p.safetensors", "--views", 2)
    assert result.exit_code == 0, result.stderr
    predictions = json.loads(result.stdout)["predictions"]
    assert {p["label"] for p in predictions} == set(PETS)
    context = tpt.Context.load("p.safetensors")
    assert context.conditional == (method == "cocoop")
    assert (context.blend is not None) == (method == "e2mim")
    assert context.info.words == (None if method == "coop" else "a photo of a")


def test_every_methods_prompt_scores_in_predict_what_the_log_says(
    train: Train, run_tpt: Run
) -> None:
    paint("more", count=4, seed=1)
    for method in METHODS:
        words = ("--method", method, "--test", "more", *FAST, "--lr", 0.1)
        train("pets", "--output", f"{method}.safetensors", *words)
        zero_shot = ("--method", "zero_shot", "--recursive")
        result = run_tpt("predict", "more", "--init", f"{method}.safetensors", *zero_shot)
        records = [json.loads(line) for line in result.stdout.splitlines()]
        right = [r["predictions"][0]["label"] == r["path"].split("/")[1] for r in records]
        (run,) = events(f"{method}.jsonl", "run")
        assert run["accuracy"]["test"] == pytest.approx(sum(right) / len(right), abs=1e-6), method


def test_a_linear_probe_is_no_prompt_and_predict_says_so(train: Train, run_tpt: Run) -> None:
    words = ("--method", "linear-probe", "--shots", 2)
    result = train("pets", "--output", "p.safetensors", *words)
    assert result.exit_code == 0
    assert events("p.jsonl", "run")[0]["accuracy"]["test"] == 1.0  # colours are easy
    assert "`tpt predict` does not take it" in Path("p.md").read_text()
    refused = run_tpt("predict", "pets/cat/0.png", "--init", "p.safetensors")
    assert '"p.safetensors" is not a prompt file' in error_of(refused, 1)


HEADS = ("tip-adapter", "tip-adapter-f", "gda", "lpp")


@pytest.mark.parametrize("method", HEADS)
def test_a_head_is_a_prompt_file_that_predict_and_eval_take(
    train: Train, run_tpt: Run, method: str
) -> None:
    views = () if method == "lpp" else ("--cache-views", 2)
    words = ("--method", method, "--shots", 2, "--num-workers", 0, *views)
    result = train("pets", "--output", "p.safetensors", *words)
    assert result.exit_code == 0, result.stderr
    assert made() == {"p.safetensors", "p.jsonl", "p.files.csv", "p.md"}
    assert "beside a few-shot head on image features" in Path("p.md").read_text()
    (run,) = events("p.jsonl", "run")
    plain = ("--method", "zero_shot", "--recursive")
    told = run_tpt("predict", "pets", "--init", "p.safetensors", *plain, "--output", "out.jsonl")
    assert told.exit_code == 0, told.stderr
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    drawn = {path for split in ("train", "val") for path, _ in pictures("p.files.csv", split)}
    tested = [record for record in records if record["path"] not in drawn]
    right = [r["predictions"][0]["label"] == r["path"].split("/")[1] for r in tested]
    assert run["accuracy"]["test"] == pytest.approx(sum(right) / len(right), abs=1e-6)
    settings = json.loads(Path("out.jsonl.settings.json").read_text())["settings"]
    assert settings["context"]["head"]["method"] == method
    vote = ("--method", "zero", "--views", 4, "--gate", 0.9)
    assert run_tpt("predict", "pets/cat/0.png", "--init", "p.safetensors", *vote).exit_code == 0
    tuned = run_tpt("predict", "pets/cat/0.png", "--init", "p.safetensors", "--method", "tpt")
    assert "A few-shot head answers by image features, so TPT has nothing to tune" in error_of(
        tuned, 2
    )
    shown = run_tpt("prompt", "show", "p.safetensors", "--words", 0)
    assert f"{method}, a few-shot head" in shown.stdout


def test_a_head_is_for_its_own_classes(train: Train, run_tpt: Run) -> None:
    train("pets", "--output", "p.safetensors", "--method", "lpp", "--shots", 2)
    result = run_tpt("predict", "pets/cat/0.png", "--init", "p.safetensors", "--classes", "a,b")
    assert "The head was fitted for 3 classes, but 2 class names were given" in error_of(result, 1)


def test_a_head_is_evaluated_beside_zero_shot(
    train: Train, run_tpt: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("pets", "--output", "p.safetensors", "--method", "lpp", "--shots", 2)
    words = ("--init", "p.safetensors", "--methods", "zero-shot,zero", "--views", 2)
    result = run_tpt("eval", "pets", *words, "--output", "out")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert set(lines[-1]["methods"]) == {"zero-shot", "zero-shot+init", "zero+init"}


def test_what_stands_beside_a_prompt_is_no_prompt(
    train: Train, run_tpt: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # else the state goes when the prompt is there
        patch.setattr(Path, "unlink", lambda *args, **options: None)
        train("pets", "--output", "p.safetensors", *FAST)
    for name in ("p.state.safetensors", "p.jsonl", "p.md", "p.files.csv"):
        result = run_tpt("predict", "pets/cat/0.png", "--init", name, "--classes", "a,b")
        assert f'"{name}"' in error_of(result, 1)


def test_a_class_specific_prompt_needs_the_classes_it_was_trained_with(
    train: Train, run_tpt: Run
) -> None:
    train("pets", "--output", "p.safetensors", "--class-specific", *FAST)
    assert tpt.Context.load("p.safetensors").class_specific
    words = ("predict", "pets/cat/0.png", "--init", "p.safetensors", "--views", 2)
    assert run_tpt(*words).exit_code == 0
    message = error_of(run_tpt(*words, "--classes", "cat,dog"), 1)
    assert "class-specific for 3 classes, but 2 class names were given" in message


# --- several runs ---


def test_every_run_has_a_prompt_of_its_own_and_the_curve_has_all_methods(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", "--shots", "1,2", "--seeds", "1,2", *QUICK)
    assert result.exit_code == 0
    prompts = {f"p-{shots}shot-seed{seed}.safetensors" for shots in (1, 2) for seed in (1, 2)}
    assert made() == prompts | {"p.jsonl", "p.files.csv", "p.md", "p.curve.csv", "p.curve.png"}
    assert {line.split()[-1] for line in result.stdout.splitlines()[1:]} == prompts
    assert "p.curve.csv, p.curve.png." in result.stderr
    for name in prompts:
        info = tpt.Context.load(name).info
        assert name == f"p-{info.shots}shot-seed{info.seed}.safetensors"
    runs = events("p.jsonl", "run")
    assert [(r["kind"], r["shots"], r["seed"]) for r in runs] == [
        (kind, shots, seed)
        for shots in (1, 2)
        for seed in (1, 2)
        for kind in ("coop", "linear-probe")
    ]
    with open("p.curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(r["kind"], str(r["shots"]), str(r["seed"])): r["accuracy"]["test"] for r in runs}
    for row in rows[:-1]:
        key = (row["method"].replace(" ", "-"), row["shots"], row["seed"])
        assert float(row["accuracy"]) == measured.pop(key)
    assert measured == {}
    hand = [r["template_accuracy"]["test"] for r in runs if r["kind"] == "coop"]
    assert rows[-1]["method"] == 'zero-shot, "a photo of a {}."'
    assert float(rows[-1]["accuracy"]) == pytest.approx(sum(hand) / 4, abs=1e-6)
    with Image.open("p.curve.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (960, 750))


def test_several_seeds_alone_make_no_curve_but_a_mean(train: Train) -> None:
    result = train("pets", "--output", "p.pt", "--seeds", "1,2,3", "--shots", 1, *QUICK)
    assert made() >= {"p-1shot-seed3.pt", "p.md"}
    assert not any("curve" in name for name in made())
    assert "curve" not in result.stderr
    assert "Mean over seeds: " in Path("p.md").read_text()


def test_all_shots_are_a_point_of_the_curve(train: Train) -> None:
    paint("rest", seed=1)
    words = ("--shots", "2,all", "--test", "rest", *QUICK)
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    assert Path("p-allshot-seed1.safetensors").exists()
    assert tpt.Context.load("p-allshot-seed1.safetensors").info.shots is None
    assert len(pictures("p.files.csv", "train")) == 6 + 18
    rows = Path("p.curve.csv").read_text()
    assert "coop,all,1," in rows
    assert "linear probe,all,1," in rows


def test_a_curve_of_the_linear_probe_holds_it_once(train: Train) -> None:
    words = ("--method", "linear-probe", "--shots", "1,2")
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    methods = [line.split(",")[0] for line in Path("p.curve.csv").read_text().splitlines()[1:]]
    assert methods == ["linear-probe", "linear-probe", '"zero-shot']


def test_without_matplotlib_the_numbers_are_there_and_the_person_is_told(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = train("pets", "--output", "p.safetensors", "--shots", "1,2", *QUICK)
    assert result.exit_code == 0
    assert "The curve needs matplotlib to be drawn. Install it: pip install" in result.stderr
    assert Path("p.curve.csv").read_text().count("\n") == 6
    assert not Path("p.curve.png").exists()
    assert "p.curve.png" not in result.stderr


def test_without_scikit_learn_the_curve_lacks_the_linear_probe(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    result = train("pets", "--output", "p.safetensors", "--shots", "1,2", *QUICK)
    assert result.exit_code == 0
    assert "The curve has no linear probe for 1 shots. The linear probe needs" in result.stderr
    assert "probe" not in Path("p.curve.csv").read_text()
    refused = train("pets", "--output", "q.safetensors", "--method", "linear-probe")
    assert "The linear probe needs scikit-learn. Install it: " in error_of(refused, 2)


# --- what is measured, and on what ---


def test_base_classes_are_trained_and_both_halves_measured(train: Train) -> None:
    paint("zoo", ("ant", "bee", "cat", "dog", "eel"))
    words = ("--classes-split", "base", *FAST)
    result = train("zoo", "--output", "p.safetensors", *words)
    assert result.exit_code == 0
    assert tpt.Context.load("p.safetensors").info.classes == ("ant", "bee", "cat")
    assert {label for _, label in pictures("p.files.csv", "train")} == {"ant", "bee", "cat"}
    (run,) = events("p.jsonl", "run")
    assert run["measured_on"] == {"val": 6, "test": 6, "new": 4}
    base, new = run["accuracy"]["test"], run["accuracy"]["new"]
    assert run["harmonic_mean"] == pytest.approx(2 * base * new / (base + new or 1), abs=1e-5)
    assert "harmonic mean" in Path("p.md").read_text()
    assert "new" in result.stdout.splitlines()[0].split()


def test_a_class_specific_context_says_nothing_of_new_classes(train: Train) -> None:
    paint("zoo", ("ant", "bee", "cat", "dog"))
    words = ("--classes-split", "base", "--class-specific", *FAST)
    assert train("zoo", "--output", "p.safetensors", *words).exit_code == 0
    (run,) = events("p.jsonl", "run")
    assert set(run["accuracy"]) == {"val", "test"}
    assert run["harmonic_mean"] is None


def test_new_classes_alone_can_be_trained_on(train: Train) -> None:
    paint("zoo", ("ant", "bee", "cat", "dog", "eel"))
    train("zoo", "--output", "p.safetensors", "--classes-split", "new", *FAST)
    assert tpt.Context.load("p.safetensors").info.classes == ("dog", "eel")


def test_with_test_none_nothing_is_tested(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", "--test", "none", *FAST)
    assert set(events("p.jsonl", "run")[0]["accuracy"]) == {"val"}
    assert "test" not in result.stdout


def test_a_curve_needs_tests(train: Train) -> None:
    words = ("--shots", "1,2", "--test", "none", *QUICK)
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    assert not any("curve" in name for name in made())


def test_test_and_validation_pictures_may_lie_elsewhere(train: Train) -> None:
    paint("more", PETS[:2], count=5)
    paint("other", count=3)
    words = ("--test", "more", "--val", "other", *FAST)
    result = train("pets", "--output", "p.safetensors", *words)
    assert result.exit_code == 0
    assert events("p.jsonl", "run")[0]["measured_on"] == {"val": 6, "test": 10}
    assert {path.split("/")[0] for path, _ in pictures("p.files.csv", "val")} == {"other"}
    assert "18 pictures of 3 classes to draw from, 10 to test on" in result.stderr


def test_other_pictures_with_a_class_of_their_own_are_refused(train: Train) -> None:
    paint("more", ("cat", "cow"))
    message = error_of(train("pets", "--output", "p.safetensors", "--test", "more", *FAST), 2)
    assert '1 of the 2 labels of "more" fits none of the 3 classes given: cow' in message


def test_a_csv_file_says_which_pictures_are_for_what(train: Train) -> None:
    lines = ["path,label,split"]
    for name in PETS:
        splits = ["train"] * 3 + ["val"] * 2 + ["test"]
        lines += [f"pets/{name}/{n}.png,{name},{split}" for n, split in enumerate(splits)]
    Path("list.csv").write_text("\n".join(lines))
    assert train("list.csv", "--output", "p.safetensors", *FAST).exit_code == 0
    assert events("p.jsonl", "run")[0]["measured_on"] == {"val": 6, "test": 3}
    assert {path[-5] for path, _ in pictures("p.files.csv", "train")} <= set("012")
    assert {path[-5] for path, _ in pictures("p.files.csv", "val")} == set("34")


def test_a_split_file_of_coop_brings_its_presets_names_and_template(train: Train) -> None:
    os.mkdir("caltech")
    paint("caltech/101_ObjectCategories", ("Faces", "cup"))
    rows = [[f"{name}/{n}.png", k, name] for k, name in enumerate(("Faces", "cup")) for n in "0123"]
    split = {"train": rows, "val": rows[:1], "test": rows[-2:]}
    Path("caltech/split_zhou_Caltech101.json").write_text(json.dumps(split))
    words = ("caltech/split_zhou_Caltech101.json", "--output", "p.safetensors", *FAST)
    assert train(*words).exit_code == 0
    info = tpt.Context.load("p.safetensors").info
    assert (info.dataset, info.classes) == ("Caltech101", ("face", "cup"))


def test_a_preset_brings_names_and_template(train: Train) -> None:
    paint("pictures", ("Abyssinian", "Bengal"))
    words = ("--preset", "oxford_pets", *FAST)
    assert train("pictures", "--output", "p.safetensors", *words).exit_code == 0
    info = tpt.Context.load("p.safetensors").info
    assert (info.dataset, info.classes) == ("OxfordPets", ("abyssinian", "bengal"))
    assert '"a photo of a {}, a type of pet."' in Path("p.md").read_text()


def test_a_label_gets_its_class_name(train: Train) -> None:
    words = ("--classes", "owl=barn owl,cat=tabby,dog", *FAST)
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    assert tpt.Context.load("p.safetensors").info.classes == ("barn owl", "tabby", "dog")
    labels = {path.split("/")[1]: label for path, label in pictures("p.files.csv", "train")}
    assert labels == {"owl": "barn owl", "cat": "tabby", "dog": "dog"}


@pytest.mark.parametrize(
    ("words", "shape", "place"),
    [
        (("--context-length", 4), (4,), "end"),
        (("--context-words", "a drawing of a"), (4,), "end"),
        (("--context-words", "a {} in the snow"), (4,), "middle"),
        (("--context-length", 2, "--position", "front"), (2,), "front"),
        (("--context-length", 3, "--class-specific"), (3, 3), "end"),
    ],
)
def test_the_start_of_the_context_can_be_chosen(
    train: Train, words: tuple[Any, ...], shape: tuple[int, ...], place: str
) -> None:
    assert train("pets", "--output", "p.safetensors", *words, *FAST).exit_code == 0
    context = tpt.Context.load("p.safetensors")
    assert (tuple(context.vectors.shape[:-1]), context.position) == (shape, place)


@pytest.mark.parametrize(
    ("words", "passes"), [(("--cache-views", "off"), 3), ((), 1), (("--augment", "none"), 0)]
)
def test_views_are_encoded_once_or_every_epoch_or_not_at_all(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], passes: int
) -> None:
    seen: list[str] = []
    crop = coop.features.FeatureBank._crop
    monkeypatch.setattr(
        coop.features.FeatureBank, "_crop", lambda *args: (seen.append(args[1]), crop(*args))[1]
    )
    words = ("--shots", 1, "--epochs", 3, "--test", "none", *words)
    assert train("pets", "--output", "p.safetensors", *words).exit_code == 0
    assert len(seen) == passes * 3


def test_quiet_leaves_the_table_and_the_warnings(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", "--quiet", *FAST)
    assert result.stderr == ""
    assert "p.safetensors" in result.stdout
    result = train("pets", "--output", "q.safetensors", "--quiet", "--shots", 16, *QUICK)
    assert result.stderr.startswith("Warning: 3 of 3 classes have fewer than 16 pictures")
    assert result.stderr.count("\n") == 1


# --- pictures that cannot be read ---


def test_broken_training_pictures_are_skipped_named_and_counted(train: Train) -> None:
    train("pets", "--output", "p.safetensors", *FAST)
    bad = [pictures("p.files.csv", "train")[place][0] for place in (0, 3)]
    break_pictures(*bad)
    result = train("pets", "--output", "p.safetensors", "--overwrite", *FAST)
    assert result.exit_code == 3
    for name in bad:
        assert result.stderr.count(f"Warning: skipped one of the training pictures. '{name}'") == 1
    assert result.stdout.splitlines()[1].split()[:3] == ["2", "1", "4"]
    assert events("p.jsonl", "run")[0]["failed"] == bad
    assert "could not be read and were skipped: 2." in Path("p.md").read_text()
    assert train("pets", "--output", "p.safetensors", "--resume", *FAST).exit_code == 3


def test_broken_test_and_validation_pictures_are_named_and_not_measured(train: Train) -> None:
    paint("more", count=3)
    paint("other", count=3)
    break_pictures("more/cat/1.png", "other/dog/0.png", "other/dog/1.png")
    words = ("--test", "more", "--val", "other", *FAST, "--shots", 4)
    result = train("pets", "--output", "p.safetensors", *words)
    assert result.exit_code == 3
    assert "Warning: skipped one of the test pictures. 'more/cat/1.png'" in result.stderr
    assert result.stderr.count("Warning: skipped one of the validation pictures. 'other/dog/") == 2
    (run,) = events("p.jsonl", "run")
    assert run["measured_on"] == {"val": 7, "test": 8}
    assert sorted(run["unread"]) == ["more/cat/1.png", "other/dog/0.png", "other/dog/1.png"]
    assert run["failed"] == []
    assert "Pictures to measure on that could not be read: 3." in Path("p.md").read_text()


def test_a_broken_picture_is_told_once_however_many_runs_meet_it(train: Train) -> None:
    break_pictures("pets/cat/0.png")
    words = ("--shots", "5,all", "--seeds", "1,2", *QUICK)
    result = train("pets", "--output", "p.safetensors", *words)
    assert result.exit_code == 3
    assert result.stderr.count("Warning: skipped") == 1
    runs = [r for r in events("p.jsonl", "run") if r["shots"] == "all"]
    assert [run["failed"] for run in runs] == [["pets/cat/0.png"]] * len(runs)


def test_a_class_without_a_readable_picture_is_named_with_its_own_reason(train: Train) -> None:
    break_pictures("pets/cat/0.png", *(f"pets/owl/{n}.png" for n in range(6)))
    message = error_of(train("pets", "--output", "p.safetensors", "--shots", "all", *QUICK), 2)
    assert 'None of the training pictures of class "owl" can be read (\'pets/owl/' in message
    assert not Path("p.safetensors").exists()


def test_a_picture_that_goes_away_during_training_is_a_sentence_and_nothing_is_lost(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shots", 2, "--epochs", 4, "--cache-views", "off")
    train("pets", "--output", "whole.safetensors", *words)
    gone = pictures("whole.files.csv", "train")[0][0]

    def vanish(self: object, epoch: Any, epochs: int) -> None:
        if epoch.number == 1:
            os.rename(gone, "kept.png")

    with monkeypatch.context() as patch:
        patch.setattr("cli.train_progress.Plain.epoch", vanish)
        message = error_of(train("pets", "--output", "p.safetensors", *words), 2)
    assert "1 of the 6 training pictures could be read before, but not any more." in message
    assert gone in message
    os.rename("kept.png", gone)
    result = train("pets", "--output", "p.safetensors", "--resume", *words)
    assert "Going on after epoch 2 of 4." in result.stderr
    vectors = [tpt.Context.load(f"{name}.safetensors").vectors for name in ("p", "whole")]
    assert torch.equal(*vectors)


def test_a_class_with_too_few_pictures_gives_all_it_has(train: Train) -> None:
    result = train("pets", "--output", "p.safetensors", "--shots", 16, *QUICK)
    assert result.exit_code == 0
    assert "Warning: 3 of 3 classes have fewer than 16 pictures and give all" in result.stderr
    assert len(pictures("p.files.csv", "train")) == 18


# --- a training that diverges ---

WILD = ("--lr", 1e30, "--epochs", 3, "--shots", 2)


@pytest.fixture
def _any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rate pass with which every method diverges in the first epoch that has it."""
    monkeypatch.setattr(coop.recipes, "LARGEST_LR", 1e38)


@pytest.mark.usefixtures("_any_rate")
@pytest.mark.parametrize(
    ("method", "suffix"), [("coop", ".pt"), *((method, ".safetensors") for method in METHODS)]
)
def test_a_training_that_diverges_keeps_the_last_vectors_that_work(
    train: Train, run_tpt: Run, method: str, suffix: str
) -> None:
    result = train("pets", "--output", f"p{suffix}", "--method", method, *WILD)
    message = error_of(result, 1)
    assert "The loss became nan in epoch " in message
    assert "Try a smaller --lr than 1e+30" in message
    assert f'The vectors after epoch 1 are in "p.last-good{suffix}".' in message
    assert made() == {f"p.last-good{suffix}", "p.jsonl", "p.files.csv"}
    assert len(events("p.jsonl", "diverged")) == 1
    words = ("--init", f"p.last-good{suffix}", "--method", "zero_shot")
    record = json.loads(run_tpt("predict", "pets/cat/0.png", *words).stdout)
    assert sum(p["score"] for p in record["predictions"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("_any_rate")
def test_where_nothing_was_learned_before_there_is_nothing_to_keep(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coop.schedule, "WARMUP_LR", 1e38)
    message = error_of(train("pets", "--output", "p.safetensors", *FAST, "--lr", 1e38), 1)
    assert message.endswith("Nothing was learned before.")
    assert made() == {"p.jsonl", "p.files.csv"}


@pytest.mark.usefixtures("_any_rate")
def test_a_divergence_leaves_an_older_prompt_as_it_was(train: Train) -> None:
    train("pets", "--output", "p.safetensors", *FAST)
    before = Path("p.safetensors").read_bytes()
    assert train("pets", "--output", "p.safetensors", "--overwrite", *WILD).exit_code == 1
    assert Path("p.safetensors").read_bytes() == before


@pytest.mark.usefixtures("_any_rate")
def test_a_divergence_is_met_again_by_resume(train: Train) -> None:
    train("pets", "--output", "p.safetensors", *WILD)
    again = train("pets", "--output", "p.safetensors", "--resume", *WILD)
    assert "The loss became nan in epoch " in error_of(again, 1)


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("missing",), 2, 'There is no "missing". Expected a folder with one sub-folder a class'),
        (("hollow",), 2, '1 class folder of "hollow" holds no pictures: dog.'),
        (("bare",), 2, 'The folder "bare" has no sub-folders'),
        (("alone",), 2, '"alone" holds 1 class (cat); expected at least two.'),
        (("pets/cat/0.png",), 2, "is neither a folder nor a .csv nor a .json file"),
        (("list.csv", "--classes", "cat,dog"), 2, "fits none of the 2 classes given: owl"),
        (("pets", "--classes", "cat,dog"), 2, "fits none of the 2 classes given: owl"),
        (("pets", "--classes", "cat,dog,owl,elk"), 2, "have no training picture: elk"),
        (("pets", "--preset", "food"), 2, 'Unknown preset "food". Did you mean "food101"?'),
        (("pets", "--classes-split", "base"), 2, "at least two classes each, but there are 3"),
        (("pets", "--val", "missing"), 2, 'There is no "missing"'),
        (("pets", "--test", "missing"), 2, 'There is no "missing"'),
        (("pets", "--template", "a photo"), 1, 'The template "a photo" holds 0 places'),
        (("pets", "--model", "ViT-B-99"), 1, "ViT-B-99"),
        (("pets", "--context-words", "very " * 90), 1, "77"),
        (("pets", "--context-length", "90"), 1, "77"),
        (("pets", "--shots", "0"), 2, "--shots are pictures a class: numbers from 1 on, or all."),
        (("pets", "--shots", "1,1"), 2, "--shots takes different numbers separated by commas"),
        (("pets", "--shots", "all,all"), 2, "got all,all."),
        (("pets", "--seeds", "2,2"), 2, "--seeds takes different numbers separated by commas"),
        (("pets", "--seeds", str(2**64)), 2, "--seeds are numbers from 0 to 2^64 - 1."),
        (("pets", "--shots", "few"), 2, '"few" is not a whole number or all.'),
        (("pets", "--shots", "1,,2"), 2, '"" is not a whole number or all.'),
        (("pets", "--shots", "-1"), 2, '"-1" is not a whole number or all.'),
        (("pets", "--seeds", "all"), 2, '"all" is not a whole number. Expected for example 1,2,4.'),
        (("pets", "--cache-views", "0"), 2, '"0" is neither a number of views from 1 on nor off.'),
        (("pets", "--cache-views", "x"), 2, '"x" is neither a number of views from 1 on nor off.'),
        (("pets", "--lr", "nan"), 2, "--lr must be a positive number up to 1e+06; got nan."),
        (("pets", "--kg-weight", "8"), 2, "--kg-weight has no meaning with --method coop"),
        (("pets", "--alpha", "1"), 2, "it belongs to e2mim. Leave it out."),
        (("pets", "--no-critic"), 2, "--critic has no meaning with --method coop"),
        (("pets", "--method", "e2mim", "--alpha", "2"), 2, "in (0, 1]; got 2.0"),
        (("pets", "--method", "linear-probe", "--epochs", "2"), 2, "--epochs has no meaning"),
        (("pets", "--method", "cocoop", "--class-specific"), 2, "--class-specific does not go"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_leaves_nothing(
    train: Train, words: tuple[str, ...], code: int, text: str
) -> None:
    Path("bare").mkdir()
    paint("alone", ("cat",))
    paint("hollow", ("cat",))
    Path("hollow/dog").mkdir()
    Path("list.csv").write_text("path,label\n" + "".join(f"pets/{p}/0.png,{p}\n" for p in PETS))
    before = made()
    result = train(*words, "--output", "p.safetensors")
    assert text in error_of(result, code)
    assert made() - before <= {"p.jsonl", "p.files.csv"}
    if code == 2:
        assert made() == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--output", "p.txt"), '--output ends in .safetensors or .pt, but "p.txt" does not.'),
        (("--output", ".pt"), '--output ends in .safetensors or .pt, but ".pt" does not.'),
        (("--output", "a/p.pt"), 'The folder "a" of --output does not exist. Make it, or'),
        (("--output", "p.pt", "--method", "linear-probe"), "--output ends in .safetensors, but"),
        (("--output", "d.pt", "--overwrite"), '"d.pt" is a folder, not a file.'),
        (("--output", "p.pt", "--log", "d.pt", "--resume"), '"d.pt" is a folder, not a file.'),
        (("--output", "p.pt", "--log", "p.pt"), '--log "p.pt" is where another file of this'),
        (("--output", "p.pt", "--log", "p.md"), '--log "p.md" is where another file of this'),
        (("--output", "p.pt", "--log", "a/log"), 'The log "a/log" could not be written: No such'),
        (("--output", "p.pt", "--resume", "--overwrite"), "starts it again. Give one of them."),
    ],
)
def test_an_output_that_cannot_be_is_refused(
    train: Train, words: tuple[str, ...], text: str
) -> None:
    Path("d.pt").mkdir()
    assert text in error_of(train("pets", *words), 1)
    assert made() == set()


@pytest.mark.parametrize("name", ["p.safetensors", "p.jsonl", "p.md", "p.files.csv"])
def test_nobodys_file_is_written_over_unasked(train: Train, name: str) -> None:
    Path(name).write_text("mine")
    message = error_of(train("pets", "--output", "p.safetensors", *FAST), 1)
    assert f'"{name}" exists already. Use --resume to go on with that training' in message
    assert Path(name).read_text() == "mine"
    train("pets", "--output", "p.safetensors", *FAST, "--overwrite")
    assert Path(name).read_bytes() != b"mine"


def test_a_curve_that_is_there_is_not_written_over_unasked(train: Train) -> None:
    Path("p.curve.csv").write_text("mine")
    assert train("pets", "--output", "p.safetensors", *FAST).exit_code == 0  # makes no curve
    shutil.copy("p.curve.csv", "q.curve.csv")
    message = error_of(train("pets", "--output", "q.safetensors", "--shots", "1,2", *QUICK), 1)
    assert '"q.curve.csv" exists already.' in message


def test_a_folder_with_a_name_of_other_bytes_than_utf8_can_be_trained_on(train: Train) -> None:
    name = os.fsdecode(b"p\xffts")
    shutil.copytree("pets", name)
    assert train(name, "--output", "p.safetensors", *FAST).exit_code == 0
    assert tpt.Context.load("p.safetensors").info.dataset == r"p\udcffts"


def test_wrong_usage_shows_the_usage(train: Train) -> None:
    assert "Missing option '--output'" in train("pets").stderr
    assert train("pets").exit_code == 2
    assert train("--help").exit_code == 0
