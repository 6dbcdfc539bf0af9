"""The model card says what a prompt is, how it was made and how good it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tpt
from coop.card import write_card
from coop.features import FeatureBank
from coop.outputs import Outputs
from coop.recipes import RecipeSettings, make_recipe
from coop.train_job import TrainJob, TrainSettings
from tpt.data.training_sets import TrainingSet

OUTPUTS = Outputs(Path("out/pets.safetensors"), many=False)
RESULT: dict[str, Any] = {
    "file": "pets.safetensors",
    "shots": 16,
    "seed": 1,
    "images": 32,
    "failed": [],
    "unread": [],
    "accuracy": {"val": 0.75, "test": 0.8125},
    "measured_on": {"val": 8, "test": 1234},
    "harmonic_mean": None,
    "template_accuracy": {"val": 0.5, "test": 0.6},
    "template_harmonic_mean": None,
}


@pytest.fixture
def job(tiny: tpt.Clip) -> TrainJob:
    dataset = TrainingSet("pets", ("cat", "dog"), ())
    return TrainJob(
        TrainSettings("data/pets"), tiny, dataset, FeatureBank(tiny), ("a {}.", "the {}.")
    )


def card_of(job: TrainJob, *results: dict[str, Any], **wanted: Any) -> str:
    recipe = RecipeSettings(**wanted)
    job = replace(job, settings=replace(job.settings, recipe=recipe))
    recipes = [make_recipe(recipe, 16, on_cpu=True) for _ in results or (RESULT,)]
    return write_card(job, OUTPUTS, recipes, results or (RESULT,))


def fact(card: str, name: str) -> str:
    (line,) = [line for line in card.splitlines() if line.startswith(f"- **{name}**: ")]
    return line.partition(": ")[2]


def test_a_card_names_model_data_classes_and_templates(job: TrainJob) -> None:
    card = card_of(job)
    assert card.startswith("# pets.safetensors\n\n")
    assert fact(card, "Method") == "coop"
    assert fact(card, "Model") == "tiny"
    assert fact(card, "Data") == "pets (folder), classes: all"
    assert fact(card, "Classes") == "cat, dog"
    assert fact(card, "Hand-crafted prompt") == '"a {}.", "the {}."'
    assert fact(card, "Made with") == f"tpt-runtime {tpt.__version__}"


def test_many_classes_are_counted(job: TrainJob) -> None:
    names = tuple(f"class {n}" for n in range(21))
    card = card_of(replace(job, dataset=TrainingSet("many", names, ())))
    assert fact(card, "Classes").endswith("class 18, class 19, ... (21 in all)")


@pytest.mark.parametrize(
    ("wanted", "start"),
    [
        ({}, "16 random vectors, unified, class name at end"),
        (
            {"context_length": 4, "class_specific": True, "position": "middle"},
            "4 random vectors, class-specific, class name at middle",
        ),
        ({"method": "kgcoop"}, 'the words "a photo of a"'),
        ({"context_words": "a drawing of a"}, 'the words "a drawing of a"'),
        ({"method": "gda"}, "the hand-crafted prompt, beside a few-shot head on image features"),
        ({"method": "linear-probe"}, "none: logistic regression on image features"),
    ],
)
def test_a_card_tells_the_start(job: TrainJob, wanted: dict[str, Any], start: str) -> None:
    assert fact(card_of(job, **wanted), "Start") == start


@pytest.mark.parametrize(
    ("wanted", "training"),
    [
        ({}, ["200 epochs, SGD at 0.002 (", "batch 32, 16 cached views of each picture"]),
        (
            {"cache_views": 0, "lr": 0.1, "epochs": 7},
            ["7 epochs, SGD at 0.1", "new views every ep"],
        ),
        ({"augment": "none"}, ["batch 32, plain views"]),
        ({"method": "kgcoop"}, ["100 epochs", "batch 128", "kg_weight 8.0"]),
        ({"method": "e2mim", "alpha": 0.25}, ["alpha 0.25, mi_text 1.0", "critic True"]),
        ({"method": "gda", "head_weight": 2.0}, ["10 views each, no training, weight 2; what"]),
        ({"method": "tip-adapter-f"}, ["10 views each, 20 epochs of AdamW at 0.001; what is"]),
        ({"method": "lpp"}, ["plain views, 300 epochs of gradient descent, the best"]),
        ({"method": "linear-probe"}, ["L-BFGS, C chosen on the validation pictures"]),
    ],
)
def test_a_card_tells_the_training(
    job: TrainJob, wanted: dict[str, Any], training: list[str]
) -> None:
    told = fact(card_of(job, **wanted), "Training")
    assert all(text in told for text in training), told


def test_accuracies_stand_beside_those_of_the_hand_crafted_prompt(job: TrainJob) -> None:
    lines = card_of(job).splitlines()
    place = lines.index("## How good")
    measured = "val (8) | val, hand-crafted | test (1,234) | test, hand-crafted"
    assert lines[place + 2 : place + 5] == [
        f"| shots | seed | pictures | {measured} |",
        "|---|---|---|---|---|---|---|",
        "| 16 | 1 | 32 | 75.0 | 50.0 | 81.2 | 60.0 |",
    ]


def test_what_was_not_measured_is_empty(job: TrainJob) -> None:
    bare = {**RESULT, "accuracy": {}, "measured_on": {}, "template_accuracy": {}}
    assert "| 16 | 1 | 32 |\n" in card_of(job, bare)
    assert "| 16 | 1 | 32 |  |  |  |  |\n" in card_of(job, RESULT, bare)


def test_base_and_new_classes_have_their_mean(job: TrainJob) -> None:
    result = {
        **RESULT,
        "accuracy": {"test": 0.8, "new": 0.6},
        "measured_on": {"test": 10, "new": 5},
        "template_accuracy": {"test": 0.5, "new": 0.5},
        "harmonic_mean": 2 * 0.8 * 0.6 / 1.4,
    }
    card = card_of(job, result)
    assert "| new (5) | new, hand-crafted | harmonic mean |" in card
    assert "| 80.0 | 50.0 | 60.0 | 50.0 | 68.6 |" in card


def test_where_each_run_has_its_own_rest_the_range_of_its_size_is_told(job: TrainJob) -> None:
    few = {**RESULT, "shots": 1, "measured_on": {"val": 2, "test": 1264}}
    assert "| val (2 to 8) |" in card_of(job, few, RESULT)
    assert "| test (1,234 to 1,264) |" in card_of(job, few, RESULT)


def test_seeds_of_one_number_of_shots_have_a_mean_and_a_deviation(job: TrainJob) -> None:
    runs = [
        {**RESULT, "seed": seed, "accuracy": {"test": accuracy}}
        for seed, accuracy in enumerate((0.7, 0.8, 0.9), start=1)
    ]
    assert "Mean over seeds: 80.0, standard deviation 8.2." in card_of(job, *runs)
    assert "Mean over seeds" not in card_of(job, *runs, {**RESULT, "shots": 1})
    assert "Mean over seeds" not in card_of(job, runs[0])


def test_pictures_that_could_not_be_read_are_counted_once(job: TrainJob) -> None:
    runs = [
        {**RESULT, "failed": ["a.png", "b.png"], "unread": ["v.png"]},
        {**RESULT, "failed": ["b.png", "c.png"], "unread": ["v.png", "t.png"]},
    ]
    card = card_of(job, *runs)
    assert "Training pictures that could not be read and were skipped: 3.\n" in card
    assert "Pictures to measure on that could not be read: 2.\n" in card
    assert "could not be read" not in card_of(job)


def test_a_prompt_says_how_it_is_used_and_a_linear_probe_that_it_is_none(job: TrainJob) -> None:
    last = {**RESULT, "file": "pets-16shot-seed3.safetensors"}
    card = card_of(job, RESULT, last)
    assert "\n    tpt predict images/ --init pets-16shot-seed3.safetensors\n" in card
    assert card.endswith("\n")
    probe = card_of(job, method="linear-probe")
    assert "`tpt predict` does not take it" in probe
    assert "--init" not in probe
