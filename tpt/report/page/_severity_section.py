"""Accuracy by severity of a corruption, for each tree of corrupted sets."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from tpt.evaluate.protocols import group_corruptions
from tpt.report.page._charts import Curve, draw_lines, make_axis
from tpt.report.page._facts import Facts
from tpt.report.page._text import write_percent

CLEAN = 0  # the severity of pictures as they are


@dataclass(frozen=True)
class Panel:
    """The curves of all methods under one corruption, or their mean over corruptions."""

    title: str
    svg: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Family:
    """The corrupted versions of one set."""

    name: str
    severities: tuple[int, ...]  # 0 first where the clean accuracy is known
    complete: bool  # every corruption has every severity, so that means compare like with like
    mean: Panel | None  # over corruptions; None where there is one
    panels: tuple[Panel, ...]  # one a corruption


def make_families(facts: Facts) -> list[Family]:
    """The families with at least two severities, where clean pictures count as one."""
    corrupted = [entry for entry in facts.sets if entry["severity"] is not None]
    families = (
        _make_family(facts, name, kinds) for name, kinds in group_corruptions(corrupted).items()
    )
    return [family for family in families if family is not None]


def _make_family(facts: Facts, name: str, kinds: dict[str, dict[int, str]]) -> Family | None:
    severities = sorted({severity for sets in kinds.values() for severity in sets})
    complete = all(len(sets) == len(severities) for sets in kinds.values())
    first = [_read_clean(facts, sets, facts.baseline) for sets in kinds.values()]
    if any(value is not None for value in first):
        severities.insert(0, CLEAN)
    if len(severities) < 2:
        return None

    def read(sets: dict[int, str], severity: int, method: str) -> float | None:
        if severity == CLEAN:
            return _read_clean(facts, sets, method)
        return facts.get_accuracy(sets.get(severity, ""), method)

    curves = {
        corruption: [
            Curve(method, place, tuple(read(sets, severity, method) for severity in severities))
            for place, method in enumerate(facts.methods)
        ]
        for corruption, sets in kinds.items()
    }
    by_method = zip(*curves.values(), strict=True)
    means = [Curve(own[0].method, own[0].place, _average(own)) for own in by_method]
    values = [v for own in curves.values() for curve in own for v in curve.values if v is not None]
    axis = make_axis(values, bounds=(0.0, 1.0))

    def draw(title: str, drawn: list[Curve], height: int) -> Panel:
        label = f"{name}, {title}: top-1 accuracy in percent by severity. " + "; ".join(
            f"{curve.method} " + ", ".join(write_percent(value) for value in curve.values)
            for curve in drawn
        )
        return Panel(title, draw_lines(drawn, severities, axis, label, height), tuple(drawn))

    return Family(
        name=name,
        severities=tuple(severities),
        complete=complete,
        mean=draw("mean over corruptions", means, 240) if len(kinds) > 1 else None,
        panels=tuple(draw(corruption, own, 150) for corruption, own in curves.items()),
    )


def _read_clean(facts: Facts, sets: dict[int, str], method: str) -> float | None:
    """The accuracy on clean pictures that a corruption's sets are compared with."""
    for name in sets.values():
        result = facts.get_result(name, method)
        if result and result["clean"]:
            return result["clean"]["acc1"]
    return None


def _average(curves: tuple[Curve, ...]) -> tuple[float | None, ...]:
    means = []
    for values in zip(*(curve.values for curve in curves), strict=True):
        known = [value for value in values if value is not None]
        means.append(fmean(known) if known else None)
    return tuple(means)
