"""Write large JSON files entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tpt.text import as_text


def join_entries(head: str, entries: Iterable[str], tail: str) -> Iterator[str]:
    """The text of a JSON file in parts: `head`, one entry a line, `tail`."""
    yield head
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + entry
    yield tail


def name_of(record: dict[str, Any]) -> str:
    """The name of a record's picture, in characters that UTF-8 can hold."""
    return as_text(record["path"]) if record["path"] is not None else f"#{record['index']}"
