"""The page's tables as plain rows: accuracy, calibration, the gap to clean pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tpt.report.page._facts import VERDICTS, Facts, judge
from tpt.report.page._text import WRITERS
from tpt.report.typeset import MISSING


@dataclass(frozen=True)
class Column:
    metric: str  # the name in results.json, for `data-metric`
    title: str
    kind: str  # how it is written: a key of `text.WRITERS`
    hint: str = ""  # an explanation, shown on demand


@dataclass(frozen=True)
class Cell:
    metric: str
    text: str
    value: float | None  # in full, for `data-value`
    interval: Sequence[float] | None = None
    note: str = ""  # the interval, or why there is no number
    tone: str = ""  # "best", or a verdict


@dataclass(frozen=True)
class Row:
    dataset: str
    method: str
    place: int  # of the method: its mark
    first: bool  # the set's first row
    cells: tuple[Cell, ...]
    extra: str = ""  # a name beside the set: the clean set


@dataclass(frozen=True)
class Table:
    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    extra: str = ""  # the head of `Row.extra`; "" for no such column


ACCURACY = (
    Column("acc1", "Top-1, %", "percent", "Share of pictures whose first answer is right"),
    Column("difference", "Difference, points", "points", "Top-1 minus the baseline's, same images"),
    Column("mcnemar_p", "McNemar p", "p", "Chance of so uneven a change if methods were equal"),
    Column("put_right", "Put right", "count", "Wrong with the baseline, right with the method"),
    Column("put_wrong", "Put wrong", "count", "Right with the baseline, wrong with the method"),
    Column("acc5", "Top-5, %", "percent", "Share with the true class among the first five"),
    Column("mean_per_class_recall", "Per class, %", "percent", "Mean over classes of their recall"),
    Column("images", "Images", "count", "Pictures that count"),
    Column("ms", "Time, ms", "two", "Median time of the method an image, beyond the image tower"),
)
CALIBRATION = (
    Column("ece15", "ECE 15 bins, %", "percent", "Expected calibration error; less is better"),
    Column("ece20", "ECE 20 bins, %", "percent", "Expected calibration error; less is better"),
    Column("nll", "NLL, nats", "three", "Negative log-likelihood; less is better"),
    Column("brier", "Brier", "three", "Brier score, 0 to 2; less is better"),
)
ROBUSTNESS = (
    Column("clean_acc1", "Clean, %", "percent", "Top-1 on the clean set, same classes"),
    Column("acc1", "Shifted, %", "percent", "Top-1 on this set"),
    Column("gap", "Gap, points", "percent", "Clean minus shifted"),
    Column("effective_robustness", "Effective robustness, points", "points", "Gap closed"),
)


def make_accuracy_table(facts: Facts) -> Table:
    """Top-1 with its interval, the paired comparison, and the other metrics of right answers."""
    compared = ("difference", "mcnemar_p", "put_right", "put_wrong")
    alone = tuple(column for column in ACCURACY if column.metric not in compared)
    columns = ACCURACY if len(facts.methods) > 1 else alone

    def read(result: dict[str, Any]) -> Iterable[Cell]:
        versus = result["versus_baseline"] or {}
        for column in columns:
            if column.metric == "difference":
                tone = judge(result) if versus else ""
                yield make_cell(column, versus.get("difference"), versus.get("interval"), tone)
            elif column.metric in compared:
                yield make_cell(column, versus.get(column.metric))
            elif column.metric == "images":
                yield make_cell(column, result["images"])
            elif column.metric == "ms":
                yield make_cell(column, result["ms"]["method"])
            else:
                best = column.metric == "acc1" and _is_best(facts, result)
                yield _make_metric_cell(column, result, "best" if best else "")

    rows = _make_rows(facts, lambda result: tuple(read(result)))
    return Table("table-accuracy", "Accuracy by set and method", columns, rows)


def make_calibration_table(facts: Facts) -> Table:
    """Calibration errors and proper scores; a method that votes gives no probabilities."""

    def read(result: dict[str, Any]) -> tuple[Cell, ...]:
        cells = tuple(_make_metric_cell(column, result) for column in CALIBRATION)
        if any(cell.value is not None for cell in cells):
            return cells
        return (Cell("votes", "votes, no probabilities", None),)

    rows = _make_rows(facts, read)
    return Table("table-calibration", "Calibration by set and method", CALIBRATION, rows)


def make_robustness_table(facts: Facts) -> Table:
    """Each shifted set against its clean set; no rows where none was given."""

    def read(result: dict[str, Any]) -> tuple[Cell, ...]:
        clean = result["clean"]
        values = {**clean, "clean_acc1": clean["acc1"], "acc1": result["metrics"]["acc1"]}
        return tuple(make_cell(column, values[column.metric]) for column in ROBUSTNESS)

    rows = _make_rows(
        facts,
        read,
        keep=lambda result: result["clean"] is not None,
        name_extra=lambda result: result["clean"]["dataset"],
    )
    caption = "Accuracy on clean and on shifted pictures of the same classes"
    return Table("table-robustness", caption, ROBUSTNESS, rows, extra="Clean set")


def make_cell(
    column: Column, value: float | None, interval: Sequence[float] | None = None, tone: str = ""
) -> Cell:
    """A number in the column's format, with its interval (low, high) below it."""
    if value is None:
        return Cell(column.metric, MISSING, None)
    write = WRITERS[column.kind]
    note = " to ".join(map(write, interval or ()))
    return Cell(column.metric, write(value), value, interval, note, tone)


def describe_tone(tone: str) -> str:
    """A tone in words, for screen readers."""
    return VERDICTS.get(tone, "best of this set" if tone == "best" else "")


def _make_metric_cell(column: Column, result: dict[str, Any], tone: str = "") -> Cell:
    metric = column.metric
    return make_cell(column, result["metrics"][metric], result["intervals"][metric], tone)


def _make_rows(
    facts: Facts,
    read: Callable[[dict[str, Any]], tuple[Cell, ...]],
    keep: Callable[[dict[str, Any]], bool] = lambda result: True,
    name_extra: Callable[[dict[str, Any]], str] = lambda result: "",
) -> tuple[Row, ...]:
    rows = []
    for entry in facts.sets:
        first = True
        for place, method in enumerate(facts.methods):
            result = facts.get_result(entry["name"], method)
            if result is None or not keep(result):
                continue
            extra = name_extra(result)
            rows.append(Row(entry["name"], method, place, first, read(result), extra))
            first = False
    return tuple(rows)


def _is_best(facts: Facts, result: dict[str, Any]) -> bool:
    values = [facts.get_accuracy(result["dataset"], method) for method in facts.methods]
    known = [value for value in values if value is not None]
    return len(known) > 1 and result["metrics"]["acc1"] == max(known)
