"""Prompts for a transfer between data sets: one learned on each source, as `tpt train` learns it.

A source is a set as the evaluation reads it, so its class names are the same in training and
testing, whatever its folders are called. If it has training pictures beside those that are tested,
the prompt learns from them. Otherwise the shots are drawn from the tested pictures, and the test
has to leave them out (`Source.taken`).

Start and recipe are CoOp's (2109.01134) from the words "a photo of a", the initialisation that its
transfer experiments and CoCoOp's comparison (2203.05557) use.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coop.features import FeatureBank
from coop.outputs import Outputs, check_outputs
from coop.recipes import WORDS, RecipeSettings, check_recipe
from coop.run import Watch
from coop.runs import Result, run_job
from coop.sampling import draw_shots
from coop.train_job import NO_TEST, TrainJob, TrainSettings, shots_text
from tpt.data.labelled_sets import SPLITS, LabelledSet, Sample
from tpt.data.layouts import read_sets
from tpt.data.presets import DEFAULT_TEMPLATE
from tpt.data.training_sets import TrainingSet, check_training_set, read_training_set
from tpt.errors import SourceError, TptError
from tpt.evaluate.transfer import name_keys
from tpt.model.load import load_clip
from tpt.prompts import Context
from tpt.runs.lock import writing
from tpt.text import some

FOLDER = "prompts"  # inside the run's folder


def set_learning(
    shots: int = 16, seed: int = 0, epochs: int | None = None, **machine: Any
) -> TrainSettings:
    """The settings of `tpt train --context-words "a photo of a"`, without `data`.

    Args:
        shots: pictures a class.
        seed: of the draw and the order.
        epochs: default by shots, as published.
        machine: further fields: the model, its weights, and what it is computed on.
    """
    recipe = RecipeSettings(context_words=WORDS, epochs=epochs)
    return TrainSettings("", recipe, (shots,), (seed,), test=NO_TEST, **machine)


@dataclass(frozen=True, eq=False)
class Source:
    """A set to learn a prompt on."""

    name: str
    path: str  # as the user gave it
    dataset: TrainingSet
    apart: bool  # its training pictures are not among those that the set is tested on
    shots: int | None
    seed: int

    @property
    def drawn(self) -> tuple[Sample, ...]:
        """The pictures that the prompt learns from."""
        return draw_shots(self.dataset, self.shots, self.seed).train

    @property
    def taken(self) -> frozenset[str]:
        """Their real paths."""
        return frozenset(os.path.realpath(item.path) for item in self.drawn)


# --- sources ---


def find_source(read: LabelledSet, learning: TrainSettings) -> Source:
    """What a prompt for a set is learned from.

    Args:
        read: the set, with all its pictures.
        learning: with shots and seed, as `set_learning` has them.

    Raises:
        SourceError: its pictures are no files, or too few to learn from.
    """
    if not all(isinstance(sample.source, str) for sample in read.samples):
        raise SourceError(
            f'No prompt can be learned on "{read.name}" ({read.layout}): expected pictures that '
            "are files, in class folders or a CSV file. Give a prompt for it "
            f"(--prompt {read.name}=FILE), or name the sets to learn on with --sources; it can be "
            "a target in any case."
        )
    dataset = _read_training(read)
    apart = dataset is not None
    if dataset is None:
        dataset = TrainingSet(read.name, read.classes, read.samples)
    dataset = _drop_empty(replace(dataset, name=read.name))
    (shots,), (seed,) = learning.shots, learning.seeds
    source = Source(read.name, read.path, dataset, apart, shots, seed)
    try:
        check_training_set(dataset)
        draw_shots(dataset, shots, seed)
    except TptError as error:
        raise type(error)(f'No prompt can be learned on "{read.name}". {error}') from error
    return source


def _read_training(read: LabelledSet) -> TrainingSet | None:
    """The training pictures of a set that are not tested, if it has some."""
    if os.path.isdir(read.path):
        folder = find_training_folder(read)
        if folder is None:
            return None
        found, *more = read_sets(folder, name=read.name)
        if more:  # of another form than what is tested
            return None
        return TrainingSet(read.name, found.classes, found.samples, notes=found.notes)
    if read.domain is not None:
        return None  # the list of a domain is not divided by split
    names = [f"{key}={name}" for key, name in zip(read.ids, read.classes, strict=True)]
    listed = read_training_set(read.path, classes=names)
    return replace(listed, val=(), test=()) if listed.val or listed.test else None


def find_training_folder(read: LabelledSet) -> str | None:
    """The train folder beside the test or val folder that a set was read from, or None.

    It is looked for only below the given path: who names the test folder itself means that folder.
    For a domain inside the test folder it is the same domain inside the train folder.
    """
    sample = read.samples[0]
    root = str(sample.source)[: -len(sample.key) - 1]
    parts = Path(os.path.relpath(root, read.path)).parts
    for place, part in enumerate(parts):
        if SPLITS.get(part.lower(), "train") == "train":
            continue
        above = os.path.join(read.path, *parts[:place])
        for name in sorted(os.listdir(above)):
            folder = os.path.join(above, name, *parts[place + 1 :])
            if SPLITS.get(name.lower()) == "train" and os.path.isdir(folder):
                return folder
    return None


def _drop_empty(dataset: TrainingSet) -> TrainingSet:
    """The set without the classes that have no picture; a class list may name such classes."""
    present = sorted({item.label for item in dataset.train})
    if len(present) == len(dataset.classes):
        return dataset
    place = {label: number for number, label in enumerate(present)}
    absent = [name for label, name in enumerate(dataset.classes) if label not in place]
    note = f"Not learned, because there are no training pictures: {some(absent)}."
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in present),
        train=tuple(replace(item, label=place[item.label]) for item in dataset.train),
        notes=(*dataset.notes, note),
    )


def read_taken(prompt: str, context: Context) -> frozenset[str] | None:
    """Real paths of the pictures that a prompt was learned on, from the list beside it.

    None where there is no such list. Its paths are read relative to the current folder, as the
    training wrote them relative to its own.
    """
    path = Path(prompt)
    shots, seed = shots_text(context.info.shots), str(context.info.seed)
    run = f"-{shots}shot-seed{seed}"  # which a prompt of several runs has behind its name
    for stem in (path.stem, path.stem.removesuffix(run)):
        try:
            with open(path.with_name(f"{stem}.files.csv"), encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            return frozenset(
                os.path.realpath(row["path"])
                for row in rows
                if (row["split"], row["shots"], row["seed"]) == ("train", shots, seed)
            )
        except (OSError, UnicodeDecodeError, csv.Error, KeyError):
            continue
    return None


# --- learning ---


def list_outputs(folder: str, sources: Sequence[Source]) -> dict[str, Outputs]:
    """Where the prompt of each source goes, by its name."""
    outputs: dict[str, Outputs] = {}
    taken: set[str] = set()
    for name, key in name_keys(source.name for source in sources).items():
        base = key.replace("/", "-").replace(os.sep, "-").lstrip(".") or "prompt"
        while base.lower() in taken:  # some disks do not tell upper from lower case
            base += "-"
        taken.add(base.lower())
        outputs[name] = Outputs(Path(folder, FOLDER, f"{base}.safetensors"), False)
    return outputs


def check_sources(
    folder: str,
    sources: Sequence[Source],
    learning: TrainSettings,
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Outputs]:
    """Refuse, before a model is loaded, what could not be written; make the prompts' folder.

    Raises:
        OutputError: prompts of an earlier run, without `resume` or `overwrite`.
        MethodError: settings that do not go together.
    """
    check_recipe(learning.recipe)
    outputs = list_outputs(folder, sources)
    if sources:
        with writing(os.path.join(folder, FOLDER)):
            Path(folder, FOLDER).mkdir(parents=True, exist_ok=True)
    for place in outputs.values():
        check_outputs(place, learning.runs, probe=False, resume=resume, overwrite=overwrite)
    return outputs


def learn_prompts(
    sources: Sequence[Source],
    outputs: Mapping[str, Outputs],
    learning: TrainSettings,
    watch: Watch,
    *,
    resume: bool = False,
) -> dict[str, Result]:
    """Learn a prompt on every source; with `resume`, those that an earlier start has not learned.

    Returns:
        Each run's result, as `coop.runs.run_job` has it, by the name of its source.

    Raises:
        TptError: as `run_job`; what was learned before is kept.
        KeyboardInterrupt: passed on, after the state was kept.
    """
    clip = load_clip(
        learning.model,
        learning.pretrained,
        device=learning.device,
        precision=learning.precision,
        seed=learning.seeds[0],
        micro_batch=learning.micro_batch,
    )
    results = {}
    for source in sources:
        wanted = replace(learning, data=source.path, precision=clip.precision)
        bank = FeatureBank(clip, wanted.recipe.augment or "crop", wanted.num_workers)
        job = TrainJob(wanted, clip, source.dataset, bank, (DEFAULT_TEMPLATE,))
        watch.say(f"{source.name}: learning a prompt from {len(source.drawn):,} pictures.")
        (results[source.name],) = run_job(job, outputs[source.name], watch, resume=resume)
    return results
