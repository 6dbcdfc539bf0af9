"""Class lists in JSON, in the forms of other programs, read into (id, name) pairs."""

from __future__ import annotations

import json
from typing import Any

from tpt.data.imagenet import is_wnid
from tpt.errors import SourceError
from tpt.text import fold

NAME_WORDS = (
    *("class name", "classname", "label name", "display name", "name", "names"),
    *("category", "class", "classes", "label", "labels"),
)
"""Titles of columns and fields that hold class names, the surest first."""

ID_WORDS = (
    *("id", "idx", "index", "number", "wnid", "synset", "class id", "label id", "category id"),
    *("class index", "unnamed: 0", "", "label", "class"),
)
"""Titles of columns and fields that hold their ids."""

_LISTS = ("id2label", "names", "class names", "classes", "categories", "labels")

Pair = tuple[str, str]  # (id or "", name)


def read_json(text: str, where: str) -> list[Pair]:
    """The classes of a list, of an object by number or id, or of one inside an object.

    Raises:
        SourceError: no JSON, or another form.
    """
    try:
        content = json.loads(text, object_pairs_hook=_take_once)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{where} begins like JSON but is none ({error}). Expected a list of class names, "
            '["cat", "dog"], or one name a line without brackets.'
        ) from error
    pairs = _find_pairs(content)
    if pairs is None:
        raise SourceError(
            f'{where} is JSON, but no list of class names: expected ["cat", "dog"], or names by '
            'number or id, {"0": "cat", "1": "dog"}.'
        )
    return [(label, name.strip()) for label, name in pairs]


def _take_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _find_pairs(content: Any) -> list[Pair] | None:
    if isinstance(content, list):
        found = [_read_one(item) for item in content]
        return [pair for pair in found if pair] if all(found) else None
    if not isinstance(content, dict):
        return None
    inner = next((content[key] for word in _LISTS for key in content if fold(key) == word), None)
    if isinstance(inner, (list, dict)):
        return _find_pairs(inner)
    values = list(content.values())
    if values and all(type(value) is int for value in values):  # {"cat": 0, "dog": 1}
        return [(str(content[name]), name) for name in sorted(content, key=lambda x: content[x])]
    if all(isinstance(v, list) and len(v) == 2 and is_wnid(str(v[0])) for v in values):
        content = {key: value[1] for key, value in content.items()}  # {"0": ["n01440764", "tench"]}
    if not all(isinstance(name, str) for name in content.values()):
        return None
    counted = all(key.isdecimal() and len(key) < 10 for key in content)
    return [(key, content[key]) for key in (sorted(content, key=int) if counted else content)]


def _read_one(item: Any) -> Pair | None:
    if isinstance(item, dict):
        known = {fold(key): value for key, value in item.items()}
        word = next((w for w in NAME_WORDS if isinstance(known.get(w), str)), None)
        label = next((known[w] for w in ID_WORDS if w in known and w != word), "")
        return None if word is None else (str(label), known[word])
    if isinstance(item, list) and len(item) == 2 and isinstance(item[1], str):
        return str(item[0]), item[1]
    return ("", item) if isinstance(item, str) else None
