"""The shelf: every method by name, what it costs, which settings it has, how it is made.

Nothing here imports torch before a method is made or its settings are looked at, so a command
line can list the shelf at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tpt.errors import MethodError, suggest

if TYPE_CHECKING:
    from tpt.methods.base import Method
    from tpt.prompts import PromptEngine


@dataclass(frozen=True)
class MethodInfo:
    """One method of the shelf."""

    name: str  # as on the command line
    title: str  # as in its paper
    summary: str
    cost: str  # an image, beside encoding its views
    paper: str  # arXiv id
    home: str  # module and class
    needs_views: bool  # whether it looks, by default, at more than the plain view
    keeps_state: bool  # whether results depend, by default, on the images before
    gradient: bool  # whether it takes optimiser steps
    takes_templates: bool  # else the context is tuned, and templates have no place

    @property
    def settings(self) -> type:
        """The frozen dataclass of its settings; the defaults are the published ones."""
        module, _, name = self.home.partition(":")
        return getattr(importlib.import_module(module), f"{name}Settings")

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its settings."""
        return tuple(field.name for field in fields(self.settings))

    def reads_views(self, settings: Any) -> bool:
        """Whether it looks at more than the plain view with these settings."""
        return self.needs_views or getattr(settings, "keep", None) is not None

    def make(self, engine: PromptEngine, settings: Any, templates: Sequence[str] = ()) -> Method:
        """The method on an engine, with its settings and, where it takes them, templates.

        Raises:
            MethodError: templates for a method that tunes the context.
            PromptError: a template without exactly one `{}`.
        """
        module, _, name = self.home.partition(":")
        chosen = asdict(settings)
        if self.takes_templates:
            chosen["templates"] = templates
        elif templates:
            raise MethodError(
                f"{self.title} tunes the engine's context, and templates would replace it. Start "
                "the context from the words of one template instead, or use another method."
            )
        return getattr(importlib.import_module(module), name)(engine, **chosen)


def _shelf(*infos: MethodInfo) -> Mapping[str, MethodInfo]:
    return MappingProxyType({info.name: info for info in infos})


METHODS: Mapping[str, MethodInfo] = _shelf(
    MethodInfo(
        name="zero_shot",
        title="Zero-shot CLIP",
        summary="predict the plain view; no adaptation",
        cost="nothing; one view is encoded",
        paper="2103.00020",
        home="tpt.methods.zero_shot:ZeroShot",
        needs_views=False,
        keeps_state=False,
        gradient=False,
        takes_templates=True,
    ),
    MethodInfo(
        name="tpt",
        title="TPT",
        summary="tune the context until the confident views agree sharply",
        cost="a text backward pass and a text forward pass",
        paper="2209.07511",
        home="tpt.methods.tpt:TPT",
        needs_views=True,
        keeps_state=False,
        gradient=True,
        takes_templates=False,
    ),
    MethodInfo(
        name="vte",
        title="VTE",
        summary="average the features of the confident views",
        cost="next to nothing",
        paper="2405.14977",
        home="tpt.methods.vte:VTE",
        needs_views=True,
        keeps_state=False,
        gradient=False,
        takes_templates=True,
    ),
    MethodInfo(
        name="zero",
        title="ZERO",
        summary="let the confident views vote; gives votes, no probabilities",
        cost="next to nothing",
        paper="2405.18330",
        home="tpt.methods.zero:ZERO",
        needs_views=True,
        keeps_state=False,
        gradient=False,
        takes_templates=True,
    ),
    MethodInfo(
        name="mta",
        title="MTA",
        summary="find the mode of the views' features, outliers weighted down",
        cost="next to nothing",
        paper="2405.02266",
        home="tpt.methods.mta:MTA",
        needs_views=True,
        keeps_state=False,
        gradient=False,
        takes_templates=True,
    ),
    MethodInfo(
        name="tps",
        title="TPS",
        summary="shift the class features until the confident views agree sharply",
        cost="a gradient through one matrix product",
        paper="2403.12952",
        home="tpt.methods.tps:TPS",
        needs_views=True,
        keeps_state=False,
        gradient=True,
        takes_templates=True,
    ),
    MethodInfo(
        name="ctpt",
        title="C-TPT",
        summary="TPT that keeps the class features apart, for calibrated scores",
        cost="a text backward pass and a text forward pass",
        paper="2403.14119",
        home="tpt.methods.ctpt:CTPT",
        needs_views=True,
        keeps_state=False,
        gradient=True,
        takes_templates=False,
    ),
    MethodInfo(
        name="tda",
        title="TDA",
        summary="correct zero-shot by caches of the stream's own images",
        cost="next to nothing; one view is encoded, the caches stay in memory",
        paper="2403.18293",
        home="tpt.methods.tda:TDA",
        needs_views=False,
        keeps_state=True,
        gradient=False,
        takes_templates=True,
    ),
)


def find_method(name: str) -> MethodInfo:
    """The method of this name; capitals and `-` for `_` are accepted.

    Raises:
        MethodError: no such method; the nearest names are told.
    """
    key = name.strip().lower().replace("-", "_")
    key = {"zeroshot": "zero_shot", "c_tpt": "ctpt"}.get(key, key)
    if key not in METHODS:
        raise MethodError(
            f'Unknown method "{name}".{suggest(key, METHODS)} Expected one of {", ".join(METHODS)}.'
        )
    return METHODS[key]


def make_settings(name: str, options: Mapping[str, Any]) -> Any:
    """The settings of a method, its defaults where an option is missing or None.

    Raises:
        MethodError: an option of another method, or out of its range.
    """
    info = find_method(name)
    said = {key: value for key, value in options.items() if value is not None}
    for option in said:
        if option not in info.options:
            raise _foreign(option, info)
    return info.settings(**said)


def make_method(
    name: str,
    engine: PromptEngine,
    options: Mapping[str, Any] = MappingProxyType({}),
    templates: Sequence[str] = (),
) -> Method:
    """A method of the shelf on an engine.

    Args:
        name: of the method.
        engine: the prompt engine.
        options: values for its settings; None stands for the default.
        templates: an ensemble of hand-crafted sentences in place of the engine's context.

    Raises:
        MethodError: unknown method, an option of another method or out of its range, templates
            for a method that tunes the context.
        PromptError: a template without exactly one `{}`.
    """
    return find_method(name).make(engine, make_settings(name, options), templates)


def _foreign(option: str, info: MethodInfo) -> MethodError:
    """The error for an option that this method does not have."""
    flag = "--" + option.replace("_", "-")
    owners = [other.name for other in METHODS.values() if option in other.options]
    if owners:
        return MethodError(
            f"{flag} has no meaning with --method {info.name}; it belongs to {', '.join(owners)}. "
            "Leave it out, or use another method."
        )
    options = sorted({known for other in METHODS.values() for known in other.options})
    return MethodError(f'No method has the option "{option}".{suggest(option, options)}')
