"""A training job: from plain settings to a model, a data set and a bank of image features.

A front end describes what it wants as `TrainSettings`; `build_train_job` checks everything that can
be checked before a picture is opened.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from coop.features import FeatureBank
from coop.recipes import RecipeSettings, check_recipe
from coop.sampling import draw_shots
from tpt.data.labelled_sets import Sample
from tpt.data.presets import DEFAULT_TEMPLATE, PRESETS
from tpt.data.training_sets import TrainingSet, check_training_set, read_training_set
from tpt.errors import MethodError
from tpt.model.clip import Clip
from tpt.model.load import load_clip
from tpt.prompts.checks import check_templates

NO_TEST = "none"


@dataclass(frozen=True)
class TrainSettings:
    """What a user asks for."""

    data: str
    recipe: RecipeSettings = field(default_factory=RecipeSettings)
    shots: tuple[int | None, ...] = (16,)  # None: all
    seeds: tuple[int, ...] = (1,)
    classes: tuple[str, ...] | None = None
    classes_split: str = "all"
    preset: str | None = None
    templates: tuple[str, ...] = ()  # hand-crafted prompts; default the preset's
    val: str | None = None  # pictures to validate on, in any layout; default drawn from the data
    test: str | None = None  # pictures to test on; default those of the data, or what is left of it
    all_files: bool = False  # look inside files of class folders without an image's extension
    model: str = "lite"
    pretrained: str | None = None
    device: str = "auto"
    precision: str = "auto"
    micro_batch: int | None = None
    num_workers: int = 2

    @property
    def runs(self) -> list[tuple[int | None, int]]:
        """(shots, seed) of every run, in order."""
        return list(itertools.product(self.shots, self.seeds))


@dataclass(frozen=True, eq=False)
class TrainJob:
    """Everything that the runs of a job share."""

    settings: TrainSettings
    clip: Clip
    dataset: TrainingSet
    bank: FeatureBank
    templates: tuple[str, ...]

    @property
    def is_curve(self) -> bool:
        return len(self.settings.shots) > 1

    def describe(self) -> dict[str, Any]:
        """Every setting that decides the result; not the device or the number of threads."""
        wanted = asdict(self.settings)
        for name in ("device", "num_workers", "micro_batch", "model", "pretrained"):
            del wanted[name]
        return {
            **wanted,
            "shots": [shots_text(shots) for shots in self.settings.shots],
            "model": self.clip.name,
            "pretrained": self.clip.pretrained,
            "weights": self.clip.digest,
            "templates": list(self.templates),
            "classes": list(self.dataset.classes),
            "pictures": self.pictures,
        }

    @cached_property
    def pictures(self) -> str:
        """The number and a digest of the pictures: a draw from others would be another draw."""
        data = self.dataset
        splits = (data.train, data.val, data.test)
        listed = [[(i.path, data.classes[i.label]) for i in items] for items in splits]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        return f"{sum(map(len, splits))}, sha256 {digest[:16]}"


def shots_text(shots: int | None) -> str:
    return "all" if shots is None else str(shots)


def build_train_job(wanted: TrainSettings) -> TrainJob:
    """Check the settings, list the pictures, load the model.

    Raises:
        TptError: anything that would fail later.
    """
    check_recipe(wanted.recipe)
    _check_runs(wanted)
    dataset = read_training_set(
        wanted.data, preset=wanted.preset, classes=wanted.classes, all_files=wanted.all_files
    )
    check_training_set(dataset)
    dataset = _add_pictures(dataset, wanted)
    draw_shots(dataset, wanted.shots[0], wanted.seeds[0], wanted.classes_split)  # refuses early
    preset = dataset.preset.template if dataset.preset else DEFAULT_TEMPLATE
    templates = wanted.templates or (preset,)
    check_templates(templates)
    clip = load_clip(
        wanted.model,
        wanted.pretrained,
        device=wanted.device,
        precision=wanted.precision,
        micro_batch=wanted.micro_batch,
    )
    wanted = replace(wanted, precision=clip.precision)  # what "auto" was is compared by --resume
    bank = FeatureBank(clip, wanted.recipe.augment or "crop", wanted.num_workers)
    return TrainJob(wanted, clip, dataset, bank, templates)


def _check_runs(wanted: TrainSettings) -> None:
    for name, values in (("--shots", wanted.shots), ("--seeds", wanted.seeds)):
        if not values or len(set(values)) < len(values):
            raise MethodError(
                f"{name} takes different numbers separated by commas; got "
                f"{','.join(map(shots_text, values)) or 'none'}."
            )
    if any(shots is not None and shots < 1 for shots in wanted.shots):
        raise MethodError("--shots are pictures a class: numbers from 1 on, or all.")
    if any(not 0 <= seed < 2**64 for seed in wanted.seeds):
        raise MethodError("--seeds are numbers from 0 to 2^64 - 1.")


def _add_pictures(dataset: TrainingSet, wanted: TrainSettings) -> TrainingSet:
    """The data set with the validation and test pictures that were named apart from it."""
    if wanted.val is not None:
        dataset = replace(dataset, val=_read_more(wanted.val, dataset, wanted))
    if wanted.test is not None and wanted.test != NO_TEST:
        dataset = replace(dataset, test=_read_more(wanted.test, dataset, wanted))
    return dataset


def _read_more(path: str, dataset: TrainingSet, wanted: TrainSettings) -> tuple[Sample, ...]:
    """All pictures of another folder or list, labelled by the classes of the data set."""
    preset = next((key for key, value in PRESETS.items() if value is dataset.preset), None)
    more = read_training_set(
        path,
        preset=preset,
        classes=wanted.classes or dataset.classes,
        all_files=wanted.all_files,
    )
    return (*more.train, *more.val, *more.test)
