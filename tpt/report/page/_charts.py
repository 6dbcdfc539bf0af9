"""Charts as inline SVG: intervals by set, lines by severity, reliability diagrams, small bars.

Horizontal positions are percentages and vertical ones pixels, so that a chart fills its column and
its text keeps its size. Colours are CSS classes (`m1`: the second method's). Every chart has
`role="img"` and a label with its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from tpt.report.page._facts import VERDICTS
from tpt.report.page._text import clean_text, is_number, write_fixed, write_points

ROW = 15  # pixels a method takes in a chart of intervals
_SHAPES = (
    "M0-4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0-4.5Z",  # circle
    "M-4-4H4V4H-4Z",  # square
    "M0-5.5L5.2 4H-5.2Z",  # triangle
    "M0-5.6L5.6 0L0 5.6L-5.6 0Z",  # diamond
    "M0 5.5L5.2-4H-5.2Z",  # triangle upside down
    "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",  # cross
    "M0-5.4L5.1-1.7L3.2 4.4H-3.2L-5.1-1.7Z",  # pentagon
)
_COLOURS = 6  # beside the baseline's grey


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` in the data's own unit, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """`value` as a fraction of the axis's length."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Dot:
    """A value with its interval, for one row of a chart of intervals."""

    place: int  # of the method in the run: its colour and shape
    text: str  # shown when the pointer is on the mark
    value: float
    interval: Sequence[float] | None
    method: str


@dataclass(frozen=True)
class Curve:
    """The accuracies of one method in a line chart."""

    method: str
    place: int  # of the method in the run
    values: tuple[float | None, ...]  # in [0, 1], one for each x; None: not measured


def make_axis(values: Iterable[float | None], bounds: tuple[float, float] | None = None) -> Axis:
    """Round ends around `values`, within `bounds`, and at most five steps of 1, 2, 5."""
    known = [value for value in values if is_number(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 0.01:
        low, high = low - 0.005, high + 0.005
    raw = (high - low) / 5
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * size for size in (1, 2, 5, 10) if scale * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if bounds is not None:
        first = max(first, math.ceil(bounds[0] / step - 1e-9))
        last = min(last, math.floor(bounds[1] / step + 1e-9))
    ticks = tuple(step * number for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def colour_of(place: int) -> int:
    """The colour class of the method at `place`: 0 is the baseline's."""
    return 0 if place == 0 else 1 + (place - 1) % _COLOURS


def draw_shapes() -> Markup:
    """The marks that all charts use, once a page."""
    shapes = "".join(f'<path id="mark-{i}" d="{d}"/>' for i, d in enumerate(_SHAPES))
    return Markup(
        f'<svg class="defs" width="0" height="0" aria-hidden="true"><defs>{shapes}</defs></svg>'
    )


def draw_mark(place: int) -> Markup:
    """A method's mark, for legends and tables."""
    return Markup(
        f'<svg class="mark" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">'
        f"{_use(place, '0', '0')}</svg>"
    )


def draw_dots(axis: Axis, dots: Sequence[Dot], count: int, label: str, zero: bool) -> Markup:
    """A row of a chart of intervals: every method of the run has its own line.

    Args:
        count: methods of the run.
        zero: draw a line at no difference, else at the baseline's value.
    """
    height = ROW * count + 10
    parts = [_grid(axis, height)]
    base = 0.0 if zero else next((dot.value for dot in dots if dot.place == 0), None)
    if base is not None and axis.low <= base <= axis.high:
        x = _percent(axis.place(base))
        parts.append(f'<line class="base" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
    for dot in dots:
        y = 5 + ROW // 2 + ROW * dot.place
        whisker = ""
        if dot.interval is not None:
            left, right = (_percent(axis.place(bound)) for bound in dot.interval)
            whisker = f'<line class="whisker" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        parts.append(
            f'<g class="m{colour_of(dot.place)}" data-method="{_text(dot.method)}">'
            f"<title>{_text(dot.text)}</title>{whisker}"
            f"{_use(dot.place, _percent(axis.place(dot.value)), str(y), coloured=False)}</g>"
        )
    return _svg("dots", height, label, parts)


def draw_ticks(axis: Axis, signed: bool) -> Markup:
    """The numbers below a chart of intervals, in percent or points."""
    digits = _digits(axis)
    parts = []
    for tick in axis.ticks:
        text = write_fixed(tick, digits, 100)
        text = f"+{text}" if signed and tick > 1e-12 else text
        parts.append(f'<text x="{_percent(axis.place(tick))}" y="13">{text}</text>')
    return Markup(
        f'<svg class="ticks" width="100%" height="18" aria-hidden="true">{"".join(parts)}</svg>'
    )


def draw_lines(
    curves: Sequence[Curve], across: Sequence[float], axis: Axis, label: str, height: int
) -> Markup:
    """Curves over `across` (severities), values on `axis`; the plot's left edge is the first x."""
    width = (across[-1] - across[0]) or 1
    digits = _digits(axis)
    parts = []
    for tick in axis.ticks:
        y = _pixel(axis, tick, height)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        text = write_fixed(tick, digits, 100)
        parts.append(f'<text class="left" x="0" dx="-8" y="{y}" dy="4">{text}</text>')
    places = [_percent((x - across[0]) / width) for x in across]
    for x, place in zip(across, places, strict=True):
        text = "clean" if x == 0 else f"{x:g}"
        parts.append(f'<text x="{place}" y="{height + 18}">{text}</text>')
    for curve in curves:
        pairs = zip(places, curve.values, strict=True)
        spots = [(place, _pixel(axis, y, height)) for place, y in pairs if y is not None]
        strokes = "".join(
            f'<line class="stroke s{curve.place % 4}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
            for (x1, y1), (x2, y2) in pairwise(spots)
        )
        marks = "".join(_use(curve.place, x, y, coloured=False) for x, y in spots)
        parts.append(
            f'<g class="m{colour_of(curve.place)}" data-method="{_text(curve.method)}">'
            f"<title>{_text(curve.method)}</title>{strokes}{marks}</g>"
        )
    return _svg("lines", height + 24, label, parts)


def draw_reliability(bins: dict[str, Any], label: str) -> Markup:
    """Accuracy against confidence in bins of equal width, and how many pictures each holds.

    Args:
        bins: `count`, `confidence` and `accuracy` of one entry of "reliability" (None: empty).
    """
    side, left, floor = 176.0, 50.0, 232.0
    counts = bins["count"]
    width = side / len(counts)
    most = max([*counts, 1])
    total = sum(counts)
    parts = []
    for tick in (0.0, 0.5, 1.0):
        y = 8 + side * (1 - tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="left" x="{left - 6}" y="{y + 4}">{tick:.0%}</text>')
        parts.append(f'<text x="{left + side * tick}" y="{floor + 14}">{tick:.0%}</text>')
    for i, count in enumerate(counts):
        if not count:
            continue
        accuracy, confidence = bins["accuracy"][i], bins["confidence"][i]
        low, high = sorted((accuracy, confidence))
        kind = "over" if confidence > accuracy else "under"
        tall = max(24 * count / most, 0.7)
        said = (
            f"confidence {i / len(counts):.0%} to {(i + 1) / len(counts):.0%}: accuracy "
            f"{accuracy:.1%}, mean confidence {confidence:.1%}, {count:,} of {total:,} images"
        )
        x, wide = f"{left + i * width + 0.5:.1f}", f"{width - 1:.1f}"

        def bar(kind: str, top: float, height: float, x: str = x, wide: str = wide) -> str:
            size = f'width="{wide}" height="{height:.1f}"'
            return f'<rect class="{kind}" x="{x}" y="{top:.1f}" {size}/>'

        parts.append(
            f"<g><title>{said}</title>"
            + bar("bar", 8 + side * (1 - accuracy), side * accuracy)
            + bar(kind, 8 + side * (1 - high), side * (high - low))
            + bar("count", floor - tall, tall)
            + "</g>"
        )
    parts.append(
        f'<line class="ideal" x1="{left}" y1="{8 + side}" x2="{left + side}" y2="8"/>'
        f'<text class="axis" x="{left + side / 2}" y="{floor + 29}">confidence</text>'
        f'<text class="axis" x="{-(8 + side / 2)}" y="9" transform="rotate(-90)">accuracy</text>'
    )
    return Markup(
        f'<svg class="reliability" viewBox="0 0 234 264" role="img" aria-label="{_text(label)}">'
        f"{''.join(parts)}</svg>"
    )


def draw_difference(difference: float, interval: Sequence[float] | None, reach: float) -> Markup:
    """A card's small line: the difference to the baseline on a scale of -reach to +reach."""
    axis = Axis(-reach, reach, ())
    bounds = interval or (difference, difference)
    tone = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "same"
    left, right = (_percent(axis.place(bound)) for bound in bounds)
    label = f"Difference {write_points(difference)} points"
    if interval:
        label += f", 95 % interval {write_points(bounds[0])} to {write_points(bounds[1])}"
    parts = [
        '<line class="rule" x1="0" x2="100%" y1="9" y2="9"/>',
        '<line class="zero" x1="50%" x2="50%" y1="1" y2="17"/>',
        f'<g class="tone-{tone if interval else "mean"}">'
        f'<line class="whisker" x1="{left}" x2="{right}" y1="9" y2="9"/>'
        f'<circle cx="{_percent(axis.place(difference))}" cy="9" r="4.5"/></g>',
    ]
    return _svg("difference", 18, label, parts)


def draw_verdicts(counts: dict[str, int], total: int) -> Markup:
    """A bar of a method's sets by verdict: better, same, worse, from the left."""
    parts, start = [], 0.0
    for verdict in ("better", "same", "worse", "unknown"):
        share = counts.get(verdict, 0) / max(total, 1)
        if share:
            parts.append(
                f'<rect class="tone-{verdict}" x="{_percent(start)}" y="0" '
                f'width="{_percent(share)}" height="12"/>'
            )
        start += share
    said = ", ".join(f"{VERDICTS[name]} on {count}" for name, count in counts.items() if count)
    return _svg("verdicts", 12, f"Of {total} sets: {said}", parts)


def draw_score(score: float) -> Markup:
    """A gallery answer's probability as a small bar."""
    width = _percent(min(max(score, 0.0), 1.0))
    return Markup(
        '<svg class="score" width="100%" height="4" aria-hidden="true">'
        f'<rect class="rail" width="100%" height="4"/><rect width="{width}" height="4"/></svg>'
    )


def _grid(axis: Axis, height: int) -> str:
    places = (_percent(axis.place(tick)) for tick in axis.ticks)
    return "".join(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/>' for x in places)


def _svg(kind: str, height: int, label: str, parts: Iterable[str]) -> Markup:
    return Markup(
        f'<svg class="{kind}" width="100%" height="{height}" role="img" '
        f'aria-label="{_text(label)}">{"".join(parts)}</svg>'
    )


def _use(place: int, x: str, y: str, coloured: bool = True) -> str:
    colour = f' class="m{colour_of(place)}"' if coloured else ""
    return f'<use{colour} href="#mark-{place % len(_SHAPES)}" x="{x}" y="{y}"/>'


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.2f}%"


def _pixel(axis: Axis, value: float, height: int) -> str:
    return f"{height * (1 - axis.place(value)):.1f}"


def _digits(axis: Axis) -> int:
    """The decimal places that tell ticks in percent apart."""
    if len(axis.ticks) < 2:
        return 1
    step = (axis.ticks[1] - axis.ticks[0]) * 100
    return 0 if step > 0.99 else 1 if step > 0.099 else 2


def _text(value: object) -> str:
    return str(escape(clean_text(value)))
