"""Independent sections of the page: a title, and HTML made from results.json.

A new one is a module with a `Section` that `SECTIONS` lists; `docs/adding-a-report-section.md` has
an example.
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
    """From results.json and the page's templates to HTML; "" if there is nothing to show."""
