"""The JSON files of `transformers` that say what a model is: read as data, within bounds.

What is found in them is looked at by name alone (`tpt.model._hf_config`, `_hf_preprocess`); a file
that names Python code is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import ModelError, why
from tpt.model._config import LARGEST
from tpt.text import read_json

FAMILIES = {"clip": "CLIPModel", "siglip": "SiglipModel", "chinese_clip": "ChineseCLIPModel"}
CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Settings that name Python code of the folder's own."""


def read_settings(path: Path, name: str) -> dict[str, Any]:
    advice = "Expected the file that transformers writes; copy it again."
    found = read_table(path, name, LARGEST, advice)
    refuse_code(found, name)
    return found


def read_table(path: Path, name: str, largest: int, advice: str) -> dict[str, Any]:
    """The settings of a file of at most `largest` bytes, code or not."""
    try:
        found = read_json(path, largest)
        if not isinstance(found, dict):
            raise ValueError("it is no table of settings")
    except (OSError, ValueError) as error:
        raise ModelError(
            f'"{path.name}" of "{name}" cannot be read ({why(error)}). {advice}'
        ) from error
    return found


def refuse_code(found: Mapping[str, Any], name: str, where: str = "") -> None:
    for key in CODE:
        if found.get(key):
            raise ModelError(
                f'The config of "{name}" names Python code of its own ({where}{key}), which is '
                "never run. Choose a model that works without it."
            )


def refused(name: str, key: str, value: object) -> ModelError:
    return ModelError(
        f'The config of "{name}" sets "{key}" to {show(value)}, which is no value that is read. '
        "Choose another model, or correct the config if it is yours."
    )


def show(value: object) -> str:
    return f"{value!r:.60}".encode("unicode_escape").decode()


def table(found: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    value = found.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(name, key, value)
    refuse_code(value, name, f"{key}.")
    return value
