"""Values of options that several commands read: class lists, templates, `name=value` settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import fill
from tpt.errors import OutputError, SourceError, why
from tpt.text import read_value

if TYPE_CHECKING:
    from tpt.streaming.predict_settings import PredictSettings


def read_classes(value: str | None) -> tuple[str, ...] | None:
    """The entries of a list of classes, names or "id=name"; None if nothing was given."""
    from tpt.data.class_files import read_class_list

    try:
        return None if value is None else read_class_list(value)
    except SourceError as error:
        raise click.BadParameter(str(error), param_hint="--classes") from error


def read_names(value: str | None) -> tuple[str, ...] | None:
    """The class names of a list of classes; None if nothing was given."""
    from tpt.data.class_lists import list_names

    entries = read_classes(value)
    return None if entries is None else list_names(entries)


def read_text(path: str, option: str) -> str:
    """The text of a file that an option names."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(
            f'"{path}" cannot be read as UTF-8 text: {why(error)}.', param_hint=option
        ) from error


def check_prompt_output(path: str, overwrite: bool) -> None:
    """Refuse, before the work, a prompt file that could not be written or would be lost."""
    if Path(path).suffix not in (".safetensors", ".pt") or not Path(path).parent.is_dir():
        raise OutputError(
            f'--output "{path}" cannot be a prompt file: expected a name that ends in .safetensors '
            "(preferred) or .pt, in a folder that exists. Choose such a name."
        )
    if os.path.isdir(path):
        raise OutputError(f'--output "{path}" is a folder. Choose the name of a file.')
    if os.path.lexists(path) and not overwrite:
        raise OutputError(
            f'"{path}" exists already. Use --overwrite to replace it, or another --output.'
        )


def read_templates(values: tuple[str, ...]) -> tuple[str, ...]:
    """Templates as given, or the lines of a file."""
    if len(values) != 1 or not os.path.isfile(values[0]):
        return values
    lines = read_text(values[0], "--template").splitlines()
    templates = tuple(line.strip() for line in lines if line.strip())
    if not templates:
        raise click.BadParameter(
            f'The template file "{values[0]}" is empty. Give it one template a line.',
            param_hint="--template",
        )
    return templates


def read_assignments(values: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` settings; numbers become numbers, anything else stays text."""
    found: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise click.BadParameter(
                f'"{value}" is not of the form NAME=VALUE, for example weight=50.',
                param_hint="--set",
            )
        if name in found or name in ("keep", "steps", "lr", "reset"):
            where = f"--{name} is an option of its own" if name not in found else "it came before"
            raise click.BadParameter(f'"{name}" cannot be set here: {where}.', param_hint="--set")
        found[name] = read_value(text.strip())
    return found


def read_shared(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that go to every method that has them."""
    shared = {name: options[name] for name in ("keep", "steps", "lr", "reset")}
    return shared | read_assignments(options["assignments"])


def read_prediction(options: dict[str, Any], **given: Any) -> PredictSettings:
    """The settings of a prediction; `given` takes the place of options."""
    from tpt.streaming.predict_settings import PredictSettings

    given["templates"] = read_templates(options["templates"])
    given["options"] = read_assignments(options["assignments"])
    return fill(PredictSettings, options, **given)
