"""Say in words how a run's settings differ from those that its output was begun with.

Settings are nested (a recipe's, methods with settings, sets with classes), so comparing top-level
keys would show two long texts. This finds the first difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tpt.text import some

Settings = Mapping[str, Any]
Wording = Mapping[str, Callable[[Any, Any], str]]
"""For some settings: a function of the old and new value that describes the change."""


def describe_change(
    before: Settings, now: Settings, wording: Wording | None = None, where: str = ""
) -> str:
    """The first difference between two settings, "" if there is none.

    Both as JSON has them; a missing setting is null. Entries that were added to or removed from a
    list of named entries ([{"name": ...}, ...]) come first, because other settings follow from
    them; then the settings beside such lists; then the first entry that changed.

    Args:
        wording: describes the change of some settings; default: both values.
        where: names the entry that has these settings.
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
        _flatten({key: value for key, value in settings.items() if key not in entries})
        for settings in (before, now)
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
            # A change in a set's class lists is named by the set.
            inner = where or f"{key.removesuffix('s')} {name}"
            if change := describe_change(old[name], new[name], wording, inner):
                return change
    return ""


def compare_names(old: Collection[str], new: Collection[str]) -> str:
    """'now without a and with b', for two lists of names that differ."""
    gone, added = [x for x in old if x not in new], [x for x in new if x not in old]
    parts = [f"without {some(gone)}"] * bool(gone) + [f"with {some(added)}"] * bool(added)
    return f"now {' and '.join(parts) or 'in another order'}"


def _by_name(value: Any) -> dict[str, Settings]:
    """The entries of a list by name; {} if the value is not a list of named entries."""
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
