"""Files of labelled sets, and what was read of them."""

from __future__ import annotations

from pathlib import Path

from tpt.data.labelled_sets import LabelledSet


def touch(*paths: str) -> None:
    """Make empty files, for tests that open no picture."""
    for path in paths:
        write(path, b"")


def write(path: str, content: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(one: LabelledSet) -> list[tuple[str, str]]:
    """(key, class name) of every picture of a set."""
    return [(sample.key, one.classes[sample.label]) for sample in one.samples]


def truth(one: LabelledSet) -> dict[str, str]:
    """The key of every picture of a set -> its class name."""
    return dict(rows(one))
