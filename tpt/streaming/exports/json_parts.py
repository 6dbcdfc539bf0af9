"""Large JSON files written entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tpt.text import as_text


def dump_list(entries: Iterable[Any]) -> Iterator[str]:
    """The text of a JSON list, in parts."""
    yield "["
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + json.dumps(entry)
    yield "\n]\n"


def name_of(record: dict[str, Any]) -> str:
    """What a record's picture is called, as UTF-8 can hold it."""
    return as_text(record["path"]) if record["path"] is not None else f"#{record['index']}"
