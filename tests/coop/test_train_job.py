"""A job checks everything before a picture is opened, and says which settings decide the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import coop.train_job
import tpt
from coop.features import FeatureBank
from coop.recipes import RecipeSettings
from coop.train_job import TrainJob, TrainSettings, build_train_job, shots_text
from tpt.data.labelled_sets import Sample
from tpt.data.training_sets import TrainingSet
from tpt.errors import MethodError, SourceError, TptError

WANTED = TrainSettings("pets")


@pytest.fixture(autouse=True)
def _pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: tpt.Clip) -> None:
    """Pictures that nobody opens, and the embedded model already loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coop.train_job, "load_clip", lambda *args, **options: tiny)
    touch("pets", ("cat", "dog"), 3)


def touch(folder: str, classes: tuple[str, ...], count: int) -> None:
    for name in classes:
        Path(folder, name).mkdir(parents=True)
        for number in range(count):
            Path(folder, name, f"{number}.png").touch()


def make_job(tiny: tpt.Clip, wanted: TrainSettings = WANTED, **changes: Any) -> TrainJob:
    """A job without files."""
    items = tuple(Sample.of_file(f"{label}/{n}.png", label) for label in (0, 1) for n in range(4))
    dataset = replace(TrainingSet("pets", ("cat", "dog"), items), **changes)
    return TrainJob(wanted, tiny, dataset, FeatureBank(tiny), ("a {}.",))


def test_a_job_has_model_data_and_the_default_template(tiny: tpt.Clip) -> None:
    job = build_train_job(WANTED)
    assert job.clip is tiny
    assert (job.dataset.name, job.dataset.classes) == ("pets", ("cat", "dog"))
    assert job.templates == ("a photo of a {}.",)
    assert job.bank.augment == "crop"
    assert not job.is_curve


def test_templates_that_are_given_stand_before_the_presets() -> None:
    assert build_train_job(replace(WANTED, preset="dtd")).templates == ("{} texture.",)
    given = replace(WANTED, preset="dtd", templates=("a {}.", "the {}."))
    assert build_train_job(given).templates == ("a {}.", "the {}.")


def test_pictures_from_elsewhere_take_the_labels_of_the_data_set() -> None:
    touch("more", ("dog",), 2)
    touch("other/train", ("cat", "dog"), 1)
    touch("other/test", ("cat", "dog"), 1)
    dataset = build_train_job(replace(WANTED, val="more", test="other")).dataset
    assert [(item.path, item.label) for item in dataset.val] == [
        ("more/dog/0.png", 1),
        ("more/dog/1.png", 1),
    ]
    assert len(dataset.test) == 4  # all of them, whatever they were meant for there
    assert len(dataset.train) == 6


def test_pictures_from_elsewhere_go_by_the_names_that_were_given() -> None:
    touch("more", ("cat", "dog"), 1)
    wanted = replace(WANTED, classes=("dog=hound", "cat=tabby"), test="more")
    dataset = build_train_job(wanted).dataset
    assert dataset.classes == ("hound", "tabby")
    assert [(item.path, item.label) for item in dataset.test] == [
        ("more/cat/0.png", 1),
        ("more/dog/0.png", 0),
    ]


def test_pictures_from_elsewhere_go_by_the_preset() -> None:
    touch("flowers", ("Faces", "cup"), 2)
    touch("more", ("Faces", "Faces_easy"), 1)
    dataset = build_train_job(
        replace(WANTED, data="flowers", preset="caltech101", test="more")
    ).dataset
    assert dataset.classes == ("face", "cup")
    assert [item.path for item in dataset.test] == ["more/Faces/0.png"]


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"shots": ()}, MethodError, "--shots takes different numbers .* got none."),
        ({"seeds": ()}, MethodError, "--seeds takes different numbers .* got none."),
        ({"shots": (1, None, 1)}, MethodError, "got 1,all,1."),
        ({"shots": (4, 0)}, MethodError, "numbers from 1 on, or all."),
        ({"seeds": (1, -1)}, MethodError, r"numbers from 0 to 2\^64 - 1."),
        ({"classes_split": "old"}, MethodError, 'split of the classes "old": expected all, base'),
        ({"classes_split": "new"}, SourceError, "at least two classes each, but there are 2"),
        ({"recipe": RecipeSettings("coup")}, MethodError, 'Did you mean "coop"'),
        ({"preset": "cars"}, MethodError, 'Unknown preset "cars"'),
        ({"data": "nowhere"}, SourceError, 'There is no "nowhere"'),
        ({"test": "nowhere"}, SourceError, 'There is no "nowhere"'),
        ({"templates": ("no place",)}, TptError, "no place"),
    ],
)
def test_what_would_fail_later_fails_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: type[TptError], text: str
) -> None:
    monkeypatch.setattr(coop.train_job, "load_clip", None)
    with pytest.raises(kind, match=text):
        build_train_job(replace(WANTED, **changes))


def test_what_does_not_decide_the_result_is_not_described(tiny: tpt.Clip) -> None:
    one = make_job(tiny, replace(WANTED, device="cpu", num_workers=0, model="tiny"))
    two = make_job(tiny, replace(WANTED, device="auto", num_workers=9, model="local-dir:t"))
    assert one.describe() == two.describe()
    assert one.describe()["model"] == "tiny"  # as the model calls itself


@pytest.mark.parametrize(
    "changes",
    [
        {"shots": (1,)},
        {"seeds": (2,)},
        {"shots": (None,)},
        {"classes_split": "base"},
        {"val": "more"},
        {"test": "none"},
        {"precision": "bf16"},
        {"recipe": RecipeSettings(lr=0.1)},
        {"recipe": RecipeSettings("kgcoop")},
        {"recipe": RecipeSettings(cache_views=0)},
    ],
)
def test_every_setting_that_decides_the_result_is_described(
    tiny: tpt.Clip, changes: dict[str, Any]
) -> None:
    one, two = make_job(tiny).describe(), make_job(tiny, replace(WANTED, **changes)).describe()
    assert [key for key in one if one[key] != two[key]] == [*changes]


def test_the_description_can_be_written_down(tiny: tpt.Clip) -> None:
    described = make_job(tiny, replace(WANTED, shots=(4, None))).describe()
    back = json.loads(json.dumps(described))
    assert back["shots"] == ["4", "all"]
    assert back["templates"] == ["a {}."]
    assert back["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_other_pictures_are_another_job(tiny: tpt.Clip, split: str) -> None:
    more = {split: (*make_job(tiny).dataset.train, Sample.of_file("1/new.png", 1))}
    one, two = make_job(tiny).describe(), make_job(tiny, **more).describe()
    assert [key for key in one if one[key] != two[key]] == ["pictures"]
    assert one["pictures"].startswith("8, sha256 ")


def test_pictures_that_change_their_split_are_another_job(tiny: tpt.Clip) -> None:
    items = make_job(tiny).dataset.train
    one = make_job(tiny, train=items[:6], test=items[6:])
    two = make_job(tiny, train=items[:6], val=items[6:])
    assert one.describe()["pictures"] != two.describe()["pictures"]


def test_only_several_numbers_of_shots_make_a_curve(tiny: tpt.Clip) -> None:
    assert not make_job(tiny, replace(WANTED, seeds=(1, 2, 3))).is_curve
    assert make_job(tiny, replace(WANTED, shots=(1, None))).is_curve


def test_all_shots_have_a_word() -> None:
    assert [shots_text(shots) for shots in (1, 16, None)] == ["1", "16", "all"]
