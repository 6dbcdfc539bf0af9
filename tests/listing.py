"""What sources stand for and what folders hold, as lists."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO

from tpt.streaming.folders import Search, scan_folder, sort_naturally
from tpt.streaming.sources import find_sources


def expand_sources(
    names: Sequence[str],
    *,
    recursive: bool = False,
    stdin: TextIO | None = None,
    search: Search | None = None,
) -> list[Any]:
    return list(find_sources(names, search or Search(recursive), stdin))


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """The images and the sub-folders directly in a folder, joined to it."""
    here = scan_folder(folder)
    images, folders = map(sort_naturally, (here.images, here.folders))
    return [os.path.join(folder, n) for n in images], [os.path.join(folder, n) for n in folders]
