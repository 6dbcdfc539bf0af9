"""Sections of the page that stand alone: a title, and HTML made from results.json.

A new one is a module with a `Section`, named in `SECTIONS`; `docs/adding-a-report-section.md` shows
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment


@dataclass(frozen=True)
class Section:
    """One part of the page between the diagrams and the changed answers."""

    id: str  # of the HTML element
    menu: str  # its link in the page's menu
    title: str
    make: Callable[[Mapping[str, Any], Environment], str]
    """From results.json and the page's templates to HTML; "" where there is nothing to show."""
