"""One run: draw the shots, encode them, train, and measure what was learned.

A run is identified by its number of shots and its seed. This module writes no files: `coop.runs`
writes the results, and resumes what was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from coop.features import FeatureBank
from coop.linear_probe import LinearProbe, fit_linear_probe
from coop.loop import Epoch, LoopSettings, ReadEpoch, State, train
from coop.recipes import Recipe, make_learner, make_recipe
from coop.sampling import draw_shots
from coop.scoring import Score, harmonic_mean, predict_logits, score, template_logits
from coop.train_job import NO_TEST, TrainJob
from tpt.data.labelled_sets import Sample
from tpt.data.training_sets import TrainingSet
from tpt.errors import SourceError
from tpt.prompts import Context, PromptEngine


class Watch(Protocol):
    """Receives a run's progress; the command line draws bars from it."""

    def say(self, text: str) -> None: ...

    def encode(self, what: str, done: int, total: int) -> None: ...

    def epoch(self, epoch: Epoch, epochs: int) -> None: ...


@dataclass(frozen=True, eq=False)
class RunScores:
    """Pictures with known features: (n, E) and (n,)."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """A run that is ready to train: pictures drawn and readable."""

    job: TrainJob
    shots: int | None
    seed: int
    draw: TrainingSet
    recipe: Recipe
    train: tuple[Sample, ...]  # those that can be read
    failed: tuple[str, ...]
    plain: RunScores  # the training pictures' plain views


def recipe_of(job: TrainJob, shots: int | None) -> Recipe:
    """The recipe of the job's runs with so many shots."""
    on_cpu = job.clip.device.type == "cpu"
    epochs = job.dataset.preset.epochs if job.dataset.preset else None
    return make_recipe(job.settings.recipe, shots, on_cpu=on_cpu, epochs=epochs)


def prepare_run(job: TrainJob, shots: int | None, seed: int, watch: Watch) -> Run:
    """Draw the shots and find out which of them can be read.

    Raises:
        SourceError: no picture of some class can be read.
    """
    draw = draw_shots(job.dataset, shots, seed, job.settings.classes_split)
    recipe = recipe_of(job, shots)
    plain = measure(job.bank, draw.train, watch, "training pictures")
    good = tuple(item for item in draw.train if item.path not in job.bank.failed)
    failed = tuple(item.path for item in draw.train if item.path in job.bank.failed)
    present = {item.label for item in good}
    lost = next((item for item in draw.train if item.label not in present), None)
    if lost is not None:
        raise SourceError(
            f'None of the training pictures of class "{draw.classes[lost.label]}" can be read '
            f"({job.bank.failed[lost.path]}). Replace them, or take more --shots."
        )
    return Run(job, shots, seed, draw, recipe, good, failed, plain)


def train_prompt(run: Run, state: State | None, watch: Watch) -> Iterator[Epoch]:
    """Train the run's method, from a state if there is one; yields after every epoch."""
    job, recipe = run.job, run.recipe
    learner = make_learner(recipe, job.clip, run.draw.classes, job.templates, run.seed)
    settings = LoopSettings(recipe.epochs, recipe.lr, recipe.batch_size, run.seed)
    read = epoch_reader(job.bank, run.train, run.seed, recipe, watch)
    labels = run.plain.labels.to(job.clip.device)
    yield from train(learner, read, labels, settings, state)


def context_of(run: Run, state: State) -> Context:
    """The context of a state of the run, with the facts that a prompt file should hold."""
    job = run.job
    learner = make_learner(run.recipe, job.clip, run.draw.classes, job.templates, run.seed)
    with torch.no_grad():
        for name, tensor in learner.parameters.items():
            tensor.copy_(state.parameters[name])
    return learner.context().described(
        classes=run.draw.classes, dataset=job.dataset.name, shots=run.shots, seed=run.seed
    )


def works(run: Run, state: State) -> bool:
    """Whether a state's context gives numbers: finite vectors may overflow inside the model."""
    engine = PromptEngine(run.job.clip, run.draw.classes, context_of(run, state))
    return bool(predict_logits(engine, run.plain.features).isfinite().all())


def fit_probe(run: Run, watch: Watch) -> LinearProbe:
    """The linear probe on the run's pictures."""
    val = measure(run.job.bank, run.draw.val, watch, "validation pictures")
    plain = run.plain
    count = len(run.draw.classes)
    return fit_linear_probe(plain.features, plain.labels, val.features, val.labels, count)


def epoch_reader(
    bank: FeatureBank, items: Sequence[Sample], seed: int, recipe: Recipe, watch: Watch
) -> ReadEpoch:
    """A function from an epoch to its pictures' features (n, E), of R kept views or new ones."""
    device = bank.clip.device
    if recipe.augment == "none" or recipe.cache_views:
        kept = epoch_views(bank, items, seed, recipe, watch).to(device)
        return lambda epoch: kept[epoch % len(kept)]

    def anew(epoch: int) -> Tensor:
        tell = partial(watch.encode, f"epoch {epoch + 1}'s training pictures")
        return _encode_views(bank, items, seed, [epoch], False, tell)[0].to(device)

    return anew


def epoch_views(
    bank: FeatureBank, items: Sequence[Sample], seed: int, recipe: Recipe, watch: Watch
) -> Tensor:
    """Features (R, n, E) of the kept views of training pictures, on the CPU.

    Without augmentation R is 1: the plain view.
    """
    count = 1 if recipe.augment == "none" else recipe.cache_views
    tell = partial(watch.encode, f"{count} views of each training picture")
    return _encode_views(bank, items, seed, range(count), True, tell)


def _encode_views(
    bank: FeatureBank,
    items: Sequence[Sample],
    seed: int,
    views: Sequence[int],
    keep: bool,
    tell: Callable[[int, int], None],
) -> Tensor:
    """Features (R, n, E) of numbered views of training pictures.

    Raises:
        SourceError: a picture can no longer be read.
    """
    paths = [item.path for item in items]
    made = bank.augmented(paths, seed, views, keep=keep, tell=tell)
    lost = [path for path in paths if path not in made]
    if lost:
        raise SourceError(
            f"{len(lost)} of the {len(paths)} training pictures could be read before, but not "
            f"any more. {bank.failed[lost[0]]} Put right what is wrong with them, then go on "
            "with --resume."
        )
    return torch.stack([made[path] for path in paths], dim=1)


def measure_run(run: Run, learned: Context | LinearProbe, watch: Watch) -> dict[str, Any]:
    """How good is what was learned, and the hand-crafted prompt on the same pictures, for JSON.

    Accuracies are in [0, 1], by "val", "test" and "new".
    """
    job = run.job
    scores: dict[str, Score] = {}
    template: dict[str, Score] = {}
    items: list[Sample] = []

    def look(kind: str, draw: TrainingSet, pictures: Sequence[Sample], what: str) -> None:
        items.extend(pictures)
        found = measure(job.bank, pictures, watch, what)
        if len(found.labels):
            engine = PromptEngine(job.clip, draw.classes)
            by_hand = template_logits(engine, found.features, job.templates)
            template[kind] = score(by_hand, found.labels)
            scores[kind] = score(_answer(learned, draw.classes, found, job), found.labels)

    look("val", run.draw, run.draw.val, "validation pictures")
    if job.settings.test != NO_TEST:
        look("test", run.draw, run.draw.test, "test pictures")
        transfers = isinstance(learned, Context) and not learned.fixed_classes
        if job.settings.classes_split == "base" and transfers:
            new = draw_shots(job.dataset, run.shots, run.seed, "new")
            look("new", new, new.test, "test pictures of new classes")
    return {
        "shots": "all" if run.shots is None else run.shots,
        "seed": run.seed,
        "images": len(run.train),
        "failed": list(run.failed),
        "unread": [item.path for item in items if item.path in job.bank.failed],
        "accuracy": {kind: round(found.accuracy, 6) for kind, found in scores.items()},
        "measured_on": {kind: found.images for kind, found in scores.items()},
        "harmonic_mean": harmonic_mean(scores.get("test"), scores.get("new")),
        "template_accuracy": {kind: round(found.accuracy, 6) for kind, found in template.items()},
        "template_harmonic_mean": harmonic_mean(template.get("test"), template.get("new")),
    }


def _answer(
    learned: Context | LinearProbe, classes: tuple[str, ...], pictures: RunScores, job: TrainJob
) -> Tensor:
    """Logits (n, K) of what was learned."""
    if isinstance(learned, LinearProbe):
        return learned.logits(pictures.features)
    return predict_logits(PromptEngine(job.clip, classes, learned), pictures.features)


def measure(bank: FeatureBank, items: Sequence[Sample], watch: Watch, what: str) -> RunScores:
    """Plain features of those pictures that can be read; each is encoded once a job."""
    known = set(bank.failed)
    made = bank.plain([item.path for item in items], partial(watch.encode, what))
    for path, why in bank.failed.items():
        if path not in known:
            watch.say(f"Warning: skipped one of the {what}. {why}")
    good = [item for item in items if item.path in made]
    width = bank.clip.embedding_width
    features = torch.stack([made[i.path] for i in good]) if good else torch.zeros(0, width)
    return RunScores(features, torch.tensor([item.label for item in good], dtype=torch.long))
