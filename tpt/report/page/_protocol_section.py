"""The protocols' tables: what this run measured, then what papers published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from tpt.report.page.sections import Section


@dataclass(frozen=True)
class Row:
    head: str
    values: tuple[float | None, ...]  # in [0, 1]
    published: bool = False


@dataclass(frozen=True)
class Table:
    id: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def make_protocol_tables(protocols: dict[str, Any]) -> list[Table]:
    """The tables that `results["protocols"]` fills (see `tpt.evaluate.protocols`)."""
    tables = []
    if found := protocols.get("domain_generalisation"):
        tables += _make_shift_tables(found)
    if found := protocols.get("base_to_new"):
        tables += _make_split_tables(found)
    return tables


def _make_shift_tables(found: dict[str, Any]) -> list[Table]:
    titles = [column["title"] for column in found["columns"]]
    averages, notes = {"ood_average": "OOD average"}, found["notes"]
    if found["source"] is not None:
        averages = {"average": "Average", **averages}
        notes = [f"Source: {found['source']}. OOD average: the mean without it.", *notes]
    rows = _read_rows(found["rows"], averages)
    published = found["published"] or {"beside": False, "rows": ()}
    theirs, beside = _read_rows(published["rows"], averages, published=True), published["beside"]
    tables = [
        Table(
            "protocol-domains",
            "Domain generalisation: top-1 accuracy, %",
            (*titles, *averages.values()),
            (*rows, *(theirs if beside else ())),
            tuple(notes),
        )
    ]
    if theirs and not beside:
        tables.append(
            Table(
                "protocol-domains-published",
                "Domain generalisation as published, with other sets or another model, %",
                (*published["columns"], *averages.values()),
                theirs,
            )
        )
    return tables


def _read_rows(
    rows: Iterable[dict[str, Any]], averages: Iterable[str], published: bool = False
) -> tuple[Row, ...]:
    made = []
    for row in rows:
        model = f" ({row['model']})" if row.get("model") else ""
        values = (*row["accuracy"], *(row[key] for key in averages))
        made.append(Row(row["method"] + model, values, published))
    return tuple(made)


def _make_split_tables(found: dict[str, Any]) -> list[Table]:
    def read(row: dict[str, Any], published: bool = False) -> Row:
        return Row(row["method"], (row["base"], row["new"], row["harmonic_mean"]), published)

    columns = ("Base", "New", "Harmonic mean")
    parts = [
        (parent, [row for row in found["rows"] if row["parent"] == parent])
        for parent in found["parents"]
    ]
    if found["average"]:
        parts.append(("average over the sets", found["average"]))
    tables = [
        Table(
            f"protocol-split-{i}",
            f"Base to new classes, {parent}: top-1 accuracy, %",
            columns,
            tuple(read(row) for row in rows),
        )
        for i, (parent, rows) in enumerate(parts)
    ]
    rows = tuple(read(row, published=True) for row in found["published"])
    caption = "Base to new classes as published: mean of eleven data sets, ViT-B/16, %"
    return [*tables, Table("protocol-split-published", caption, columns, rows)]


def _draw(results: Mapping[str, Any], templates: Environment) -> str:
    tables = make_protocol_tables(results.get("protocols") or {})
    return templates.get_template("protocols.html").render(tables=tables) if tables else ""


PROTOCOLS = Section("protocols", "Protocols", "Protocols of the literature", _draw)
