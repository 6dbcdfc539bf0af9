"""Read the JSON files of `transformers` that describe a model, as data of a bounded size.

Callers pick settings by name (`tpt.model._hf_config`, `_hf_preprocess`); a file that names Python
code is refused.
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
"""Settings that name Python code in the folder."""


def read_settings(path: Path, name: str) -> dict[str, Any]:
    """The settings of a config, without code.

    Raises:
        ModelError: the file cannot be read, or names Python code.
    """
    found = read_table(path, name, LARGEST)
    refuse_code(found, name)
    return found


def read_table(path: Path, name: str, largest: int) -> dict[str, Any]:
    """The settings of a file of at most `largest` bytes, whether they name code or not."""
    try:
        found = read_json(path, largest)
        if not isinstance(found, dict):
            raise ValueError("it is not a table of settings")
    except (OSError, ValueError) as error:
        raise ModelError(
            f'"{path.name}" of "{name}" cannot be read ({why(error)}). Copy it again.'
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
        f'The config of "{name}" sets "{key}" to {show(value)}, which is not supported. '
        "Choose another model, or correct the config if it is yours."
    )


def show(value: object) -> str:
    """An untrusted value, short and on one line."""
    return f"{value!r:.60}".encode("unicode_escape").decode()


def table(found: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    """The settings under a key, {} if there are none."""
    value = found.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(name, key, value)
    refuse_code(value, name, f"{key}.")
    return value
