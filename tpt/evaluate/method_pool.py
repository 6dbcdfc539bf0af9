"""The methods of a run, made for the class list of each result set.

Prompt files are read once. All result sets with the same classes share the methods that keep no
state, so that class features (and the graph for tuning) are made once a class list. Methods with
state are made anew for every stream.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tpt.data.imagenet import imagenet_templates, simple_templates
from tpt.data.labelled_sets import LabelledSet
from tpt.data.presets import DEFAULT_TEMPLATE
from tpt.errors import MethodError
from tpt.evaluate.method_specs import BASELINE, ENSEMBLE, MethodSpec
from tpt.methods import Gate, Method
from tpt.methods.reading import Reading, parse_reject
from tpt.methods.registry import find_method, make_settings
from tpt.model.clip import Clip
from tpt.prompts import Context, PromptEngine
from tpt.streaming.predict_job import describe_context
from tpt.streaming.readings import read_by
from tpt.text import as_text


@dataclass(frozen=True)
class Starts:
    """Where the methods of a run start."""

    prompts: Mapping[str, str]  # prompt files by the names that methods use
    templates: tuple[str, ...] = ()  # one: the words of all; several: the ensemble
    force: bool = False  # use prompt files of other models

    @property
    def words(self) -> str:
        """The template that methods start from without a prompt or an ensemble."""
        return self.templates[0] if len(self.templates) == 1 else DEFAULT_TEMPLATE


@dataclass(eq=False)
class MethodPool:
    """Makes the methods of a run.

    Raises:
        MethodError: several templates without a method that uses an ensemble.
        PromptError: a prompt file that cannot be read.
    """

    clip: Clip
    specs: Sequence[MethodSpec]
    starts: Starts
    gate: tuple[float, int] | None = None  # (threshold, views), before all that read views
    batch_size: int | None = None  # where a batch decides together; None: the methods' defaults
    views: int = 1  # how many are made; a prompt's calibration must be for as many
    reject: str | None = None  # a threshold for all with probabilities, "off"; None: the prompts'

    def __post_init__(self) -> None:
        templates = self.starts.templates
        if len(templates) > 1 and not any(spec.ensemble for spec in self.specs):
            raise MethodError(
                f"{len(templates)} templates were given, but no method uses an ensemble of "
                f"them. Name one, for example --methods {BASELINE},{BASELINE}+{ENSEMBLE}, or give "
                "one template."
            )
        self._threshold = None if self.reject is None else parse_reject(self.reject)
        self._contexts = {name: Context.load(path) for name, path in self.starts.prompts.items()}
        self._made: dict[tuple[Any, ...], Method] = {}
        self._engines: dict[tuple[Any, ...], PromptEngine] = {}

    def methods(self, classes: tuple[str, ...], part_of: LabelledSet) -> dict[str, Method]:
        """Every method of the run, by name, for these classes of a set.

        Raises:
            PromptError: a prompt that does not fit the model or the classes; a name too long.
        """
        found = {}
        for spec in self.specs:
            key = (spec.name, classes, self.templates(spec, part_of))
            method = self._made.get(key)
            if method is None:
                method = self._make(spec, classes, part_of)
                if not method.keeps_state:
                    self._made[key] = method
            found[spec.name] = method
        return found

    def forget(self, keep: Collection[tuple[str, ...]] = ()) -> None:
        """Drop engines and methods of other class lists; one for 1,000 classes is large."""
        self._made = {key: made for key, made in self._made.items() if key[1] in keep}
        self._engines = {key: made for key, made in self._engines.items() if key[0] in keep}

    def templates(self, spec: MethodSpec, part_of: LabelledSet) -> tuple[str, ...]:
        """The templates that a method uses on a set; () for a context."""
        given = self.starts.templates
        if spec.ensemble:
            if len(given) > 1:
                return given
            if part_of.templates:
                return part_of.templates
            return imagenet_templates() if part_of.family == "imagenet" else simple_templates()
        return given if spec.start is None and len(given) == 1 else ()

    def describe(self, spec: MethodSpec) -> dict[str, Any]:
        """The method's entry in results.json."""
        context: dict[str, Any] = {}
        if spec.start is not None:
            loaded = self._contexts[spec.start]
            trained = loaded.info
            context = {
                "file": as_text(os.path.basename(self.starts.prompts[spec.start])),
                **describe_context(loaded),
                "dataset": trained.dataset,
                "shots": trained.shots,
            }
        elif not spec.ensemble:
            context = {"words": self.starts.words}
        settings = asdict(make_settings(spec.method, spec.options))
        together = find_method(spec.method).together
        if together is not None:
            settings["batch_size"] = self.batch_size or together
        if spec.temperature is not None:
            settings["temperature"] = spec.temperature
        given = self.starts.templates
        templates = list(given) if len(given) > 1 else ["each set's own, else open_clip's"]
        return {
            "name": spec.name,
            "method": spec.method,
            "settings": settings,
            "context": context,
            "templates": templates if spec.ensemble else [],
        }

    def _make(self, spec: MethodSpec, classes: tuple[str, ...], part_of: LabelledSet) -> Method:
        info = find_method(spec.method)
        words, templates = info.split_start(self.templates(spec, part_of))
        engine = self._engine(classes, spec.start, words)
        method = info.make(engine, make_settings(spec.method, spec.options), templates)
        if method.together is not None:
            method.together = self.batch_size or method.together
        if self.gate is not None and method.reads_views:
            method = Gate(method, *self.gate)
        method.reading = self._read(spec, method)
        return method

    def _read(self, spec: MethodSpec, method: Method) -> Reading:
        """How the method's scores are read: as its spec says, else by its prompt's calibration."""
        if not method.gives_probabilities:
            return Reading()
        if spec.temperature is not None:
            reading = Reading(float(spec.temperature))
        else:
            calibration = None if spec.start is None else self._contexts[spec.start].calibration
            reading = read_by(calibration, method, spec.method, self.views)
        if self.reject is not None:
            rule, threshold = self._threshold or (reading.rule, None)
            reading = replace(reading, rule=rule, threshold=threshold)
        return reading

    def _engine(
        self, classes: tuple[str, ...], start: str | None, words: str | None
    ) -> PromptEngine:
        key = (classes, start, words)
        if key not in self._engines:
            context = None if start is None else self._contexts[start]
            if words is not None:
                context = Context.from_words(self.clip, words)
            self._engines[key] = PromptEngine(self.clip, classes, context, force=self.starts.force)
        return self._engines[key]
