"""Reliability diagrams: one a set, or pooled over a tree's sets if there are many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tpt.report.page._charts import draw_reliability
from tpt.report.page._facts import Facts, group_sets
from tpt.report.page._text import write_percent
from tpt.report.typeset import MISSING

MOST_SETS = 24  # with more, diagrams are pooled: six methods each would be hundreds
BINS = ("15", "20")


@dataclass(frozen=True)
class Diagram:
    method: str
    place: int
    svg: Mapping[str, str]  # by number of bins; empty where the method votes
    error: dict[str, str]  # ECE in percent, by number of bins
    bins: dict[str, dict[str, Any]]  # count, confidence, accuracy


@dataclass(frozen=True)
class Panel:
    """The diagrams of one set, or of a tree's sets together."""

    name: str
    sets: int  # how many are pooled
    diagrams: tuple[Diagram, ...]


def make_panels(facts: Facts) -> list[Panel]:
    """A panel a set, or a tree of sets if there are more than MOST_SETS sets."""
    if len(facts.sets) <= MOST_SETS:
        parts = {entry["name"]: [entry["name"]] for entry in facts.sets}
    else:
        groups = group_sets(facts).items()
        parts = {tree: [entry["name"] for entry in entries] for tree, entries in groups}
    panels = []
    for name, members in parts.items():
        made = [
            _make_diagram(facts, name, members, method, place)
            for place, method in enumerate(facts.methods)
        ]
        diagrams = tuple(diagram for diagram in made if diagram is not None)
        if any(diagram.svg for diagram in diagrams):
            panels.append(Panel(name, len(members), diagrams))
    return panels


def _make_diagram(
    facts: Facts, name: str, members: list[str], method: str, place: int
) -> Diagram | None:
    results = [facts.get_result(member, method) for member in members]
    found = [result for result in results if result is not None]
    if not found:
        return None
    drawn = [result["reliability"] for result in found if result["reliability"]]
    bins = {number: pool_bins([bins[number] for bins in drawn]) for number in BINS}
    bins = {number: pooled for number, pooled in bins.items() if sum(pooled["count"])}
    errors = {number: write_percent(_find_error(pooled)) for number, pooled in bins.items()}
    if len(found) == 1:  # what was measured, not what the rounded bins say
        metrics = found[0]["metrics"]
        errors = {number: write_percent(metrics[f"ece{number}"]) for number in bins}
    svg = {
        number: draw_reliability(
            pooled,
            f"Reliability of {method} on {name}, {number} bins, "
            f"expected calibration error {errors[number]} %",
        )
        for number, pooled in bins.items()
    }
    return Diagram(method, place, svg, errors, bins)


def pool_bins(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The bins of several sets as one set's: means are weighted by count."""
    if len(parts) == 1:
        return parts[0]
    width = max((len(part["count"]) for part in parts), default=0)
    counts = [sum(part["count"][i] for part in parts) for i in range(width)]
    pooled: dict[str, Any] = {"count": counts}
    for key in ("confidence", "accuracy"):
        sums = [
            sum(part["count"][i] * part[key][i] for part in parts if part["count"][i])
            for i in range(width)
        ]
        pooled[key] = [
            total / count if count else None for total, count in zip(sums, counts, strict=True)
        ]
    return pooled


def _find_error(bins: dict[str, Any]) -> float:
    """Expected calibration error of pooled bins."""
    rows = zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True)
    gaps = [count * abs(sure - right) for count, sure, right in rows if count]
    return sum(gaps) / sum(bins["count"])


def write_bins(diagram: Diagram, number: str) -> list[tuple[str, str, str, str]]:
    """(confidence range, mean confidence, accuracy, images) of each bin that holds an image."""
    bins = diagram.bins[number]
    size = len(bins["count"])
    rows = []
    for i, count in enumerate(bins["count"]):
        if count:
            span = f"{write_percent(i / size)} to {write_percent((i + 1) / size)}"
            sure, right = write_percent(bins["confidence"][i]), write_percent(bins["accuracy"][i])
            rows.append((span, sure, right, f"{count:,}"))
    return rows or [(MISSING,) * 4]
