"""What changed between two runs is named in words, wherever it stands in the settings."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tpt.runs.settings_diff import describe_change

SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "seed": 0,
    "methods": [
        {"name": "zero-shot", "settings": {}, "context": {"words": "a {}"}},
        {"name": "tpt", "settings": {"lr": 0.005, "keep": 0.1}, "context": {"words": "a {}"}},
    ],
    "sets": [
        {
            "name": "set",
            "pictures": 1200,
            "sha256": "a",
            "templates": [],
            "heads": [{"name": "set", "classes": ["cat", "dog"], "corruption": None}],
        }
    ],
}


def change(*path: Any, to: Any) -> dict[str, Any]:
    """The settings with one value replaced."""
    settings = copy.deepcopy(SETTINGS)
    place: Any = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return settings


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (SETTINGS, ""),
        (change("model", to="x"), 'model; model was "tiny", now "x"'),
        (change("views", to=8), "views; views was null, now 8"),
        (change("methods", 1, "name", to="vte"), "methods: now without tpt and with vte"),
        (change("methods", to=SETTINGS["methods"][::-1]), "methods: now in another order"),
        (
            change("methods", 1, "settings", "lr", to=0.1),
            "method tpt: settings lr; settings lr was 0.005, now 0.1",
        ),
        (change("sets", to=[]), "sets: now without set"),
        (change("sets", 0, "pictures", to=3), "set set: pictures; pictures was 1200, now 3"),
        (change("sets", 0, "templates", to=["a {}"]), 'templates was [], now ["a {}"]'),
        (
            change("sets", 0, "heads", 0, "classes", to=["cat", "cup"]),
            'set set: classes; classes was ["cat", "dog"], now ["cat", "cup"]',
        ),
        (change("sets", 0, "heads", 0, "name", to="x"), "set set: now without set and with x"),
        (change("sets", 0, "heads", 0, "corruption", to="fog"), 'was null, now "fog"'),
    ],
)
def test_the_first_difference_is_found(now: dict[str, Any], told: str) -> None:
    found = describe_change(SETTINGS, json.loads(json.dumps(now)))
    assert told in found
    assert bool(found) == bool(told)


def test_of_many_that_came_three_are_named() -> None:
    heads = [{"name": f"set/fog/{n}", "classes": [], "corruption": "fog"} for n in range(5)]
    found = describe_change(
        SETTINGS, change("sets", 0, "heads", to=SETTINGS["sets"][0]["heads"] + heads)
    )
    assert found == "set set: now with set/fog/0, set/fog/1, set/fog/2 and 2 more"


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"lr": 1}, {"lr": 2}, "lr; lr was 1, now 2"),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, "a, b; b was 1, now 2"),
        (
            {"recipe": {"epochs": 4}},
            {"recipe": {"epochs": 5}},
            "recipe epochs; recipe epochs was 4",
        ),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a b c; a b c was 1, now 2"),
        ({"a": {}}, {"a": None}, "a; a was {}, now null"),
        ({"a": {"b": 1}}, {"a": 7}, "a, a b; a b was 1, now null"),
        ({"a": [1]}, {"a": [{"b": 1}]}, 'a; a was [1], now [{"b": 1}]'),
        ({"a": None}, {}, ""),
        ({}, {"methods": [{"name": "x"}]}, "methods: now with x"),
        ({"methods": 3}, {"methods": [{"name": "x"}]}, "methods: now with x"),
        ({"methods": [{"name": 1}]}, {"methods": [{"name": "x"}]}, "methods: now with x"),
    ],
)
def test_settings_of_any_form_are_compared(
    before: dict[str, Any], now: dict[str, Any], told: str
) -> None:
    found = describe_change(before, now)
    assert told in found
    assert bool(found) == bool(told)


def test_long_values_are_shortened() -> None:
    found = describe_change({"classes": []}, {"classes": [str(n) for n in range(99)]})
    assert found.endswith("...")
    assert len(found) < 100


def test_a_setting_may_have_words_of_its_own() -> None:
    wording = {"pictures": lambda old, new: f"{old} pictures then, {new} now"}
    assert describe_change({"pictures": 3}, {"pictures": 4}, wording) == "3 pictures then, 4 now"
    before, now = ({"sets": [{"name": "a", "pictures": count}]} for count in (3, 4))
    assert describe_change(before, now, wording) == "set a: 3 pictures then, 4 now"
