"""An evaluation: from settings to walks, methods and a folder of results.

`build_evaluation` checks everything that can be checked before the first picture; `Evaluation.run`
makes the lines of predictions.jsonl, walk by walk; `tpt.evaluate.measure` measures them. Nothing
here prints or writes: the front end does that and shows progress.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tpt.errors import MethodError, TptError
from tpt.evaluate.method_pool import MethodPool, Starts
from tpt.evaluate.method_specs import MethodSpec
from tpt.evaluate.runner import Line, Methods, run_walk
from tpt.evaluate.walks import Walk, list_result_sets
from tpt.images.views import Views
from tpt.methods import Method
from tpt.methods.registry import find_method, make_settings
from tpt.model.clip import Clip
from tpt.prompts import Context, PromptEngine
from tpt.streaming.predict_job import describe_environment, load_models
from tpt.streaming.predict_settings import (
    DEFAULT_VIEWS,
    ComputeSettings,
    check_gate_views,
    check_jacobian_used,
)
from tpt.streaming.screen import Screen, check_screened


@dataclass(frozen=True)
class EvalSettings(ComputeSettings):
    """What a user asks for, beside the sets; None: not given."""

    specs: tuple[MethodSpec, ...]
    starts: Starts
    model: str | None = None  # None: the prompt files' own model, else the embedded one
    pretrained: str | None = None
    views: int | None = None
    augment: str | None = None
    gate: float | None = None
    gate_views: int | None = None
    reject: str | None = None  # a threshold, "off", or None: the prompts' own
    batch_size: int | None = None  # for methods whose images of a batch decide together


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything a run needs, and the settings to keep beside its predictions."""

    clip: Clip
    pool: MethodPool
    views: Views
    walks: tuple[Walk, ...]
    settings: dict[str, Any]  # decides what the predictions say
    environment: dict[str, Any]  # device and versions
    screen: Screen | None = None

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def shared_settings(self) -> dict[str, Any]:
        """The settings that all methods and sets share: what results.json says of them."""
        return {k: v for k, v in self.settings.items() if k not in ("methods", "sets")}

    def methods(self, walk: Walk) -> dict[str, Methods]:
        """The methods for each result set of a walk; those with state have one stream each."""
        return {
            result_set.name: self.pool.methods(result_set.classes, walk.set)
            for _, result_set in walk.result_sets()
        }

    def tuned_engines(self, walk: Walk) -> dict[PromptEngine, list[str]]:
        """The engines that a Jacobian may speed up, and the methods that use them."""
        found: dict[PromptEngine, list[str]] = {}
        for methods in self.methods(walk).values():
            for spec in self.pool.specs:
                if find_method(spec.method).shares_gradient(_settings(spec)):
                    names = found.setdefault(methods[spec.name].engine, [])
                    if spec.name not in names:
                        names.append(spec.name)
        return found

    def prepare(self, walk: Walk, show: Callable[[PromptEngine, int], None] | None = None) -> None:
        """Drop what only earlier walks needed, and build this walk's Jacobians, if it has some.

        A Jacobian takes long to build, so with Jacobians nothing that a walk needs is dropped.

        Args:
            show: called while one is built, with its engine and how many classes are done.
        """
        jacobian = self.settings.get("jacobian", False)
        needed = self.walks if jacobian else (walk,)
        self.pool.forget(keep={found.classes for *_, found in list_result_sets(needed)})
        for engine in self.tuned_engines(walk) if jacobian else ():
            if not engine.conditional:
                engine.build_jacobian(None if show is None else partial(show, engine))

    def run(
        self, walk: Walk, *, batch_size: int, num_workers: int, done: int = 0
    ) -> Generator[Line, None, None]:
        """The lines of a walk, without the first `done`; drops what only earlier walks needed."""
        self.prepare(walk)
        return run_walk(
            walk,
            self.methods(walk),
            self.views,
            seed=self.seed,
            batch_size=batch_size,
            num_workers=num_workers,
            done=done,
            screen=self.screen,
        )

    def count_sentences(self) -> int:
        """How many sentences the template ensembles of all class lists hold, encoded once each."""
        every = {
            (result_set.classes, self.pool.templates(spec, walk.set))
            for walk, _, result_set in list_result_sets(self.walks)
            for spec in self.pool.specs
            if spec.ensemble
        }
        return sum(len(classes) * len(templates) for classes, templates in every)

    def keeps_state(self) -> bool:
        """Whether a method's answers depend on the pictures before."""
        return any(method.keeps_state for method in self._some_methods())

    @property
    def batch_size(self) -> int:
        """How many pictures are judged at once by default."""
        return max(method.batch_size for method in self._some_methods())

    def _some_methods(self) -> Iterable[Method]:
        """The methods of the first result set."""
        return next(iter(self.methods(self.walks[0]).values())).values()


def build_evaluation(wanted: EvalSettings, walks: Sequence[Walk]) -> Evaluation:
    """Load the model and the prompts, and make every method for every class list once.

    Warns:
        UserWarning: the notes of the plan (`Walk.notes`).

    Raises:
        TptError: something that would make the run fail later.
    """
    check_options(wanted)
    first = next(iter(wanted.starts.prompts.values()), None)
    clip, screen = load_models(wanted, None if first is None else Context.load(first), first)
    gate = None if wanted.gate is None else (wanted.gate, wanted.gate_views or 1)
    reads = any(_reads_views(spec) for spec in wanted.specs)
    count = (wanted.views or DEFAULT_VIEWS) if reads else 1
    pool = MethodPool(
        clip, wanted.specs, wanted.starts, gate, wanted.batch_size, count, wanted.reject
    )
    views = Views(clip, count, wanted.augment or "crop", wanted.seed)
    settings = {
        "model": clip.name,
        "pretrained": clip.pretrained,
        "weights": clip.digest,
        "precision": clip.precision,
        "seed": wanted.seed,
        **({"views": count, "augment": views.kind} if reads else {}),
        **({"reject": wanted.reject} if wanted.reject is not None else {}),
        **({"screen": True} if screen else {}),
        **({"jacobian": True} if wanted.jacobian else {}),
        **({"gate": wanted.gate, "gate_views": wanted.gate_views or 1} if gate else {}),
        "methods": [pool.describe(spec) for spec in wanted.specs],
        "sets": [_describe_walk(walk) for walk in walks],
    }
    evaluation = Evaluation(
        clip, pool, views, tuple(walks), settings, describe_environment(clip), screen
    )
    for walk in walks:
        for note in walk.notes:
            warnings.warn(f"{walk.set.name}: {note}", UserWarning, stacklevel=2)
        try:
            evaluation.methods(walk)
            if wanted.jacobian:
                _check_jacobian(evaluation.tuned_engines(walk))
        except TptError as error:
            raise type(error)(f'On the set "{walk.set.name}": {error}') from error
    return evaluation


def check_options(wanted: EvalSettings) -> None:
    """Refuse options that no method of the run would use.

    Raises:
        MethodError: which, and why.
    """
    reads = any(_reads_views(spec) for spec in wanted.specs)
    for option in ("views", "augment", "gate"):
        if getattr(wanted, option) is not None and not reads:
            names = ", ".join(spec.name for spec in wanted.specs)
            raise MethodError(
                f"--{option} has no meaning with these methods ({names}), which look at the plain "
                "picture alone. Leave it out, or add another method, such as tpt."
            )
    check_gate_views(wanted.gate_views, wanted.gate, wanted.views)
    if wanted.jacobian:
        check_jacobian_used([(find_method(spec.method), _settings(spec)) for spec in wanted.specs])
    for spec in wanted.specs if wanted.screen else ():
        if _reads_views(spec) or not reads:
            check_screened(spec.method, wanted.precision)


def _reads_views(spec: MethodSpec) -> bool:
    return find_method(spec.method).reads_views(_settings(spec))


def _settings(spec: MethodSpec) -> Any:
    return make_settings(spec.method, spec.options)


def _check_jacobian(engines: Mapping[PromptEngine, Sequence[str]]) -> None:
    """Refuse Jacobians if no engine can have one; warn of the methods that go without."""
    if all(engine.conditional for engine in engines):
        next(iter(engines)).check_jacobian()
    for engine, names in engines.items():
        if engine.conditional:
            warnings.warn(
                f"{', '.join(names)}: no Jacobian, because every picture has a start of its own.",
                UserWarning,
                stacklevel=3,
            )


def _describe_walk(walk: Walk) -> dict[str, Any]:
    """A set's part of the settings: enough to notice that its pictures or labels changed."""
    digest = hashlib.sha256()
    for sample in walk.set.samples:
        digest.update(f"{sample.key}\0{sample.label}\0".encode("utf-8", "surrogateescape"))
    return {
        "name": walk.set.name,
        "pictures": len(walk.set.samples),
        "sha256": digest.hexdigest()[:16],
        "templates": list(walk.set.templates),
        "heads": [
            {
                "name": result_set.name,
                "classes": list(result_set.classes),
                "corruption": variant.corruption,
                "severity": variant.severity,
            }
            for variant, result_set in walk.result_sets()
        ],
    }


def total_lines(walks: Sequence[Walk]) -> int:
    """How many lines a whole run makes: every picture once for each of its result sets."""
    return sum(walk.lines(sample) for walk in walks for sample in walk.set.samples)
