"""How the page writes names and numbers; names may hold any characters, and none is dropped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TypeGuard

from tpt.report.typeset import MISSING, format_p

MINUS = "\N{MINUS SIGN}"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def clean_text(value: object) -> str:
    """`value` as text that HTML can hold: stray bytes and control characters as `\\x..`."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a number that can be drawn: neither None, nor NaN, nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def write_percent(share: float | None) -> str:
    """0.6134 -> "61.3"; the column's head names the unit."""
    return write_fixed(share, 1, 100)


def write_points(share: float | None) -> str:
    """A difference of shares in percentage points, with its sign: -0.012 -> "−1.2"."""
    text = write_fixed(share, 1, 100)
    return text if text in (MISSING, "0.0") or text.startswith(MINUS) else "+" + text


def write_fixed(value: float | None, digits: int, factor: float = 1) -> str:
    """`value * factor` with `digits` places; never "-0.0"."""
    if not is_number(value):
        return MISSING
    text = f"{value * factor:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", MINUS)


def write_count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,}"


def write_p(value: float | None) -> str:
    """A p-value as in the other tables (`tpt.report.typeset.format_p`)."""
    return format_p(value) if is_number(value) else MISSING


WRITERS: dict[str, Callable[[float | None], str]] = {
    "percent": write_percent,
    "points": write_points,
    "count": write_count,
    "p": write_p,
    "two": lambda value: write_fixed(value, 2),
    "three": lambda value: write_fixed(value, 3),
}
