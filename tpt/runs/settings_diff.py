"""What is other about a run than when its output was begun, in words.

Settings are nested (a recipe's, methods with settings, sets with classes), so that a comparison key
by key would show two long texts. This finds the first place that differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tpt.text import some

Settings = Mapping[str, Any]
Wording = Mapping[str, Callable[[Any, Any], str]]
"""By the name of a setting what is said of its old and its new value."""


def describe_change(
    before: Settings, now: Settings, wording: Wording | None = None, where: str = ""
) -> str:
    """What differs between two settings, "" where nothing does.

    Both as JSON has them; a setting that is missing is null. What came or went in a list of named
    entries ([{"name": ...}, ...]) comes first, because other settings follow from it; then the
    settings beside such lists; then the first entry that changed.

    `wording` has better words for some settings than both values. `where` names the entry whose
    settings these are.
    """
    wording = wording or {}
    prefix = f"{where}: " if where else ""
    entries = {
        key: (_by_name(before.get(key)), _by_name(now.get(key)))
        for key in {**before, **now}
        if _by_name(before.get(key)) or _by_name(now.get(key))
    }
    for key, (old, new) in entries.items():
        if list(old) != list(new):
            return f"{where or key}: {compare_names(old, new)}"
    flat, flat_now = (
        _flatten({key: value for key, value in all_.items() if key not in entries})
        for all_ in (before, now)
    )
    if changed := [key for key in {**flat, **flat_now} if flat.get(key) != flat_now.get(key)]:
        first = changed[0]
        values = flat.get(first), flat_now.get(first)
        if first in wording:
            return prefix + wording[first](*values)
        was, is_now = map(_short, values)
        return f"{prefix}{', '.join(sorted(changed))}; {first} was {was}, now {is_now}"
    for key, (old, new) in entries.items():
        for name in new:
            # A set's class lists are told as the set's.
            inner = where or f"{key.removesuffix('s')} {name}"
            if told := describe_change(old[name], new[name], wording, inner):
                return told
    return ""


def compare_names(old: Collection[str], new: Collection[str]) -> str:
    """'now without a and with b' of two lists of names that differ."""
    gone, come = ([x for x in one if x not in two] for one, two in ((old, new), (new, old)))
    parts = [f"without {some(gone)}"] * bool(gone) + [f"with {some(come)}"] * bool(come)
    return f"now {' and '.join(parts) or 'in another order'}"


def _by_name(value: Any) -> dict[str, Settings]:
    """Named entries by their names; {} where the value is none."""
    if not isinstance(value, list):
        return {}
    if not all(isinstance(x, Mapping) and isinstance(x.get("name"), str) for x in value):
        return {}
    return {entry["name"]: entry for entry in value}


def _flatten(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"settings lr": 0.1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flatten(value, f"{prefix}{key} ") if inner else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
