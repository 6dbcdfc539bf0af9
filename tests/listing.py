"""What sources stand for, as a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from tpt.streaming.folders import Search
from tpt.streaming.sources import find_sources


def expand_sources(
    names: Sequence[str],
    *,
    recursive: bool = False,
    stdin: TextIO | None = None,
    search: Search | None = None,
) -> list[Any]:
    return list(find_sources(names, search or Search(recursive), stdin))
