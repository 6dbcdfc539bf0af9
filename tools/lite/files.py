"""What every stage needs on disk: files that are whole or absent, and a line on stderr."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from tpt.runs.whole_files import write_whole

T = TypeVar("T")


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a stage's tensors, so that a broken run leaves the old file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue(), "stage")


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote."""
    return torch.load(path, map_location="cpu", weights_only=True)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def progress(items: Sequence[T], title: str, every: int = 10) -> Iterator[T]:
    """The items, with a line on stderr now and then."""
    for number, item in enumerate(items):
        if number % every == 0:
            say(f"{title}: {number} of {len(items)}")
        yield item
