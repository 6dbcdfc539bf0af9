"""Which methods a run compares, from the words people write: `zero-shot,tpt+init:lr=0.02`.

A method is written as its name, then `+SOMETHING` for where it starts, then `:name=value` for its
settings:

- `tpt`: from the words of the run, by default "a photo of a";
- `tpt+init`: from the prompt file of `--init FILE` (`tpt+coop` for `--init coop=FILE`);
- `zero-shot+ensemble`: with an ensemble of templates;
- `tpt:lr=0.02:steps=2`: with other settings than the published ones;
- `tpt+init:temperature=1`: with scores at this temperature, not at the prompt's calibrated one.

Plain CLIP, `zero-shot`, is always included: the others are compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tpt.errors import MethodError, suggest
from tpt.methods.checks import check_number
from tpt.methods.registry import find_method, make_settings
from tpt.text import read_value

BASELINE = "zero-shot"
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class MethodSpec:
    """One method of a run."""

    name: str  # as the tables show it
    method: str  # its name in the registry
    start: str | None = None  # the name of a prompt file of the run; None: the run's words
    ensemble: bool = False  # uses an ensemble of templates instead of a context
    options: Mapping[str, Any] = field(default_factory=dict)  # its settings
    temperature: float | None = None  # of its scores; None: the prompt's calibration


def parse_methods(
    texts: Sequence[str],
    prompts: Sequence[str] = (),
    shared: Mapping[str, Any] | None = None,
) -> tuple[MethodSpec, ...]:
    """The methods of a run, the baseline first.

    If no method names a prompt, every method that starts from a context starts from each of the
    prompts; the baseline still starts from the words.

    Args:
        texts: as written, each with one or more methods, separated by commas.
        prompts: the names of the run's prompt files; `--init FILE` without a name is "init".
        shared: settings for all methods that have them; None: the method's default.

    Raises:
        MethodError: text of another form; an unknown method, setting or prompt; a setting that no
            method of the run has; one method twice; a prompt from which no method starts.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    specs = [_parse_one(word, prompts) for word in words if word]
    if not specs:
        raise MethodError("No method was named: expected at least one, such as --methods tpt.")
    if prompts and not any(spec.start for spec in specs):
        # An ensemble of templates starts from no prompt.
        each = ([s] if s.ensemble else [start_from(s, name) for name in prompts] for s in specs)
        specs = [made for some in each for made in some]
    used = {spec.start for spec in specs}
    for name in prompts:
        if name not in used:
            raise MethodError(
                f'No method starts from the prompt "{name}". Name one that does, for example '
                f"--methods tpt+{name}, or leave that --init out."
            )
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MethodError(f'The method "{twice}" is named twice. Name it once.')
    others = [spec for spec in specs if spec.name != BASELINE]
    return _share([MethodSpec(BASELINE, "zero_shot"), *others], shared or {})


def _parse_one(word: str, prompts: Sequence[str]) -> MethodSpec:
    head, *assignments = word.split(":")
    name, *starts = (part.strip() for part in head.split("+"))
    info = find_method(name)
    if len(starts) > 1:
        raise MethodError(
            f'"{word}" says twice where it starts ({", ".join(starts)}). Give one of them.'
        )
    start = starts[0] if starts else None
    if start == "":
        raise MethodError(
            f'"{word}" does not say where it starts. Write a name after "+", such as {name}+init, '
            "or leave it out."
        )
    if start is not None and start != ENSEMBLE and start not in prompts:
        there = f" There are: {', '.join(prompts)}." if prompts else ""
        raise MethodError(
            f'"{word}" starts from "{start}", which is neither {ENSEMBLE} nor a prompt of this '
            f"run.{suggest(start, [*prompts, ENSEMBLE])}{there} Give --init "
            f"{'' if start == 'init' else start + '='}FILE."
        )
    if start == ENSEMBLE and not info.takes_templates:
        raise MethodError(
            f"{info.title} tunes a context, so it cannot start from an ensemble of templates. "
            "Leave +ensemble out, or use zero-shot, vte, zero, mta, tps or tda."
        )
    options = dict(_parse_assignment(text, word) for text in assignments)
    tail = "".join(f":{key}={value}" for key, value in options.items())
    temperature = options.pop("temperature", None)
    if temperature is not None:
        check_number("temperature", temperature, "what logits are divided by", above=True)
    make_settings(info.name, options)  # refuses what the method does not have
    shown = info.name.replace("_", "-")
    return MethodSpec(
        name=shown + (f"+{start}" if start else "") + tail,
        method=info.name,
        start=None if start == ENSEMBLE else start,
        ensemble=start == ENSEMBLE,
        options=options,
        temperature=temperature,
    )


def _parse_assignment(text: str, word: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise MethodError(
            f'"{text}" in "{word}" is no setting: expected NAME=VALUE after the colon, for example '
            "tpt:lr=0.02."
        )
    return key.strip().replace("-", "_"), read_value(value.strip())


def start_from(spec: MethodSpec, prompt: str) -> MethodSpec:
    """The same method from a prompt: "tpt:lr=0.02" becomes "tpt+PROMPT:lr=0.02"."""
    head, colon, tail = spec.name.partition(":")
    return replace(spec, name=f"{head}+{prompt}{colon}{tail}", start=prompt)


def _share(specs: list[MethodSpec], shared: Mapping[str, Any]) -> tuple[MethodSpec, ...]:
    """Give the run's settings to the methods that have them and do not set them themselves."""
    given = {key: value for key, value in shared.items() if value is not None}
    for key in given:
        if not any(key in find_method(spec.method).options for spec in specs):
            # The registry's message says whose setting it is, or which name is near.
            make_settings(specs[-1].method, {key: given[key]})
    made = []
    for spec in specs:
        mine = {k: v for k, v in given.items() if k in find_method(spec.method).options}
        options = {**mine, **spec.options}
        make_settings(spec.method, options)
        made.append(replace(spec, options=options))
    return tuple(made)
