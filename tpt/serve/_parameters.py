"""Read the parameters of a request from form fields and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tpt.errors import suggest
from tpt.serve.errors import ParameterError
from tpt.serve.settings import Asked, Upload

FIELDS = ("images", "classes", "template", "method", "top_k", "details")


@dataclass(frozen=True)
class Parameters:
    """A request without its pictures."""

    asked: Asked
    top_k: int | None
    details: bool


def read_fields(fields: Mapping[str, Sequence[str]], max_classes: int) -> Parameters:
    """The fields of `POST /v1/predict`.

    Raises:
        ParameterError: an unknown or repeated field, or a value of another form.
    """
    for name in fields:
        if name not in FIELDS:
            raise ParameterError(
                f'Unknown field "{name:.60}".{suggest(name, FIELDS)} Expected some of '
                f"{', '.join(FIELDS)}."
            )
        if len(fields[name]) > 1 and name != "template":
            raise ParameterError(f"The field {name} came {len(fields[name])} times; send one.")
    first = {name: values[0] for name, values in fields.items()}
    details = first.get("details", "0").lower()
    if details not in ("0", "1", "false", "true"):
        raise ParameterError(f'details is "{details:.60}"; expected 1 or 0.')
    return Parameters(
        Asked(
            _read_classes(first.get("classes"), max_classes),
            tuple(fields.get("template", ())),
            first.get("method"),
        ),
        _read_top_k(first.get("top_k")),
        details in ("1", "true"),
    )


def _read_classes(text: str | None, most: int) -> tuple[str, ...] | None:
    if text is None or not text.strip():
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    return check_classes("classes", names, most, f"{text!r:.60}")


def check_classes(field: str, names: Any, most: int, came: str | None = None) -> tuple[str, ...]:
    """Check class names from JSON.

    Raises:
        ParameterError: not a list of texts, or too many.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ParameterError(
            f'{field} is a JSON list of names, for example ["cat", "dog"]; got '
            f"{came or f'{names!r:.60}'}."
        )
    if len(names) > most:
        raise ParameterError(
            f"{field} holds {len(names):,} names; expected at most {most:,} (--max-classes). Send "
            "fewer, or start the service with this list."
        )
    return tuple(names)


def _read_top_k(text: str | None) -> int | None:
    digits = (text or "").strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdecimal() and int(digits[:9]) > 0):
        raise ParameterError(f'top_k is "{digits:.60}"; expected a whole number of at least 1.')
    return int(digits[:9])


def read_task(body: Any, max_classes: int) -> tuple[Upload, Asked]:
    """The picture and parameters of Hugging Face's zero-shot-image-classification task.

    Raises:
        ParameterError: a body of another form.
    """
    if not isinstance(body, dict) or not isinstance(body.get("inputs"), str):
        raise ParameterError(
            'Expected {"inputs": "<base64 of the picture>", "parameters": {"candidate_labels": '
            "[...]}}; the body has no text called inputs."
        )
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ParameterError(f"parameters is a JSON object; got {parameters!r:.60}.")
    labels = parameters.get("candidate_labels")
    classes = None if labels is None else check_classes("candidate_labels", labels, max_classes)
    template = parameters.get("hypothesis_template")
    if template is not None and not isinstance(template, str):
        raise ParameterError(
            f'hypothesis_template is text, for example "a photo of a {{}}"; got {template!r:.60}.'
        )
    return _read_base64(body["inputs"]), Asked(classes, () if template is None else (template,))


def _read_base64(text: str) -> Upload:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload("inputs", base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ParameterError(
            f"inputs is not base64 ({error}). Encode the file's bytes in base64."
        ) from error
