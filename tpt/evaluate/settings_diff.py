"""What is other about an evaluation than when its folder was begun, in words.

The settings of an evaluation are nested (methods with settings, sets with classes and pictures), so
that a comparison key by key would show two long lists. This finds the first place that differs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tpt.streaming.output import name_change
from tpt.text import some

Settings = Mapping[str, Any]
_LISTS = ("methods", "sets")


def find_change(before: Settings, now: Settings) -> str:
    """What differs between two `Evaluation.settings`, "" where nothing does.

    Both as JSON has them. Methods and sets that came or went are told first, because other settings
    follow from them; then the run's own settings; then the first method or set that changed.
    """
    named = [(key, _by_name(before[key]), _by_name(now[key])) for key in _LISTS]
    for key, old, new in named:
        if list(old) != list(new):
            return f"{key}: {_compare_names(old, new)}"
    plain = [{k: v for k, v in all_.items() if k not in _LISTS} for all_ in (before, now)]
    if told := name_change(*plain):
        return told
    for key, old, new in named:
        for name in new:
            if old[name] != new[name]:
                describe = _describe_method if key == "methods" else _describe_set
                return describe(old[name], new[name])
    return ""


def _describe_method(old: Settings, new: Settings) -> str:
    return f"method {new['name']}: {name_change(_flatten(old), _flatten(new))}"


def _describe_set(old: Settings, new: Settings) -> str:
    where = f"set {new['name']}"
    if old["pictures"] != new["pictures"]:
        return f"{where}: {old['pictures']:,} pictures then, {new['pictures']:,} now"
    if old["sha256"] != new["sha256"]:
        return f"{where}: its pictures have other names or other classes"
    heads, new_heads = _by_name(old["heads"]), _by_name(new["heads"])
    if list(heads) != list(new_heads):
        return f"{where}: {_compare_names(heads, new_heads)}"
    for name, head in new_heads.items():
        if heads[name]["classes"] != head["classes"]:
            return f"{where}: classes {_compare_names(heads[name]['classes'], head['classes'])}"
    return f"{where}: {name_change(_flatten(old), _flatten(new))}"


def _compare_names(old: Collection[str], new: Collection[str]) -> str:
    gone, come = ([x for x in one if x not in two] for one, two in ((old, new), (new, old)))
    told = [f"without {some(gone)}"] * bool(gone) + [f"with {some(come)}"] * bool(come)
    return f"now {' and '.join(told) or 'in another order'}"


def _by_name(entries: Sequence[Settings]) -> dict[str, Settings]:
    return {entry["name"]: entry for entry in entries}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"settings lr": 0.1}."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [(str(item["name"]), item) for item in value]
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= _flatten(item, f"{prefix} {key}".strip())
    return found
