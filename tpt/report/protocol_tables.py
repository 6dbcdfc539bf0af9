"""The tables of the protocols and of corruptions, in the papers' layout.

`tpt.evaluate.protocols` computes the numbers; titles, marks and rules are added here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpt.evaluate.protocols import (
    Accuracies,
    average_corruptions,
    group_corruptions,
    mean,
    read_accuracies,
)
from tpt.report.typeset import Cell, Table, exact, mark_best, number, percent, rules_between

Results = Mapping[str, Any]

_GAPS = "Not every corruption was run at every severity: a mean is over those that were."


def corruption_tables(results: Results) -> list[Table]:
    """For each tree of corrupted sets a table of methods, then one of corruptions for each method.

    Severities are columns, the mean is last. A tree of one corruption has only the first table, a
    single corrupted set has none.
    """
    accuracies, tables = read_accuracies(results), []
    methods = [entry["name"] for entry in results["methods"]]
    for parent, kinds in group_corruptions(results["sets"]).items():
        if sum(map(len, kinds.values())) < 2:
            continue
        severities = sorted({severity for names in kinds.values() for severity in names})
        header = (*(f"severity {severity}" for severity in severities), "mean")
        form = "l" + "r" * len(header)
        whole = all(len(names) == len(severities) for names in kinds.values())
        notes = () if whole else (_GAPS,)
        rows = [(Cell(m), *_severity_cells(kinds, severities, accuracies, m)) for m in methods]
        marked = tuple(mark_best(rows, dict.fromkeys(range(1, len(form)), True)))
        what = next(iter(kinds)) if len(kinds) == 1 else f"mean over {len(kinds)} corruptions"
        title = f"{parent}, {what}: top-1, %"
        tables.append(Table(title, ("Method", *header), marked, form, notes=notes))
        for method in methods if len(kinds) > 1 else ():
            rows = [
                (Cell(kind), *_severity_cells({kind: names}, severities, accuracies, method))
                for kind, names in kinds.items()
            ]
            last = (Cell("mean"), *_severity_cells(kinds, severities, accuracies, method))
            title = f"{parent}, {method}: top-1 by corruption, %"
            rules = frozenset([len(rows)])
            tables.append(Table(title, ("Corruption", *header), (*rows, last), form, rules, notes))
    return tables


def _severity_cells(
    kinds: Mapping[str, Mapping[int, str]],
    severities: Sequence[int],
    accuracies: Accuracies,
    method: str,
) -> list[Cell]:
    """The mean over some corruptions at each severity, and over all."""
    columns = [[names[s] for names in kinds.values() if s in names] for s in severities]
    means = [mean([accuracies.get((name, method)) for name in names]) for names in columns]
    return [number(m, percent) for m in (*means, average_corruptions(kinds, accuracies, method))]


def shift_tables(protocol: Results) -> list[Table]:
    """Domain generalisation as in the papers, the published rows below or in a second table."""
    has_source, published = protocol["source"] is not None, protocol["published"]
    titles = [f"{c['title']} (source)" if c["source"] else c["title"] for c in protocol["columns"]]
    averages = _average_titles(has_source)
    own = [_shift_row(row, has_source) for row in protocol["rows"]]
    marked = mark_best(own, dict.fromkeys(range(1, len(own[0]) if own else 1), True))
    beside = published["rows"] if published and published["beside"] else []
    rows = [*marked, *(_shift_row(row, has_source) for row in beside)]
    tables = [
        Table(
            "Domain generalisation: top-1, %",
            ("Method", *titles, *averages),
            tuple(rows),
            "l" + "r" * (len(titles) + len(averages)),
            rules=frozenset([len(marked)]) if beside else frozenset(),
            notes=tuple(protocol["notes"]),
        )
    ]
    if published and not published["beside"]:
        rows = [_shift_row(row, True, f", {row['model']}") for row in published["rows"]]
        tables.append(
            Table(
                "Domain generalisation, published: top-1, %",
                ("Method", *published["columns"], *_average_titles(True)),
                tuple(rows),
                "l" + "r" * (len(published["columns"]) + 2),
                notes=("Published figures, not measured in this run.",),
            )
        )
    return tables


def _shift_row(row: Results, has_source: bool, model: str = "") -> tuple[Cell, ...]:
    averages = (row["average"], row["ood_average"]) if has_source else (row["ood_average"],)
    return (Cell(row["method"] + model), *map(exact, (*row["accuracy"], *averages)))


def _average_titles(has_source: bool) -> tuple[str, ...]:
    return ("Average", "OOD average") if has_source else ("OOD average",)


def split_table(protocol: Results) -> Table:
    """Base to new, its published rows last."""
    count = len(protocol["parents"])
    rows = [(row["parent"], row) for row in protocol["rows"]]
    rows += [(f"mean of {count} sets", row) for row in protocol["average"]]
    own = mark_best([_split_row(*row) for row in rows], {2: True, 3: True, 4: True}, group=0)
    published = [_split_row("published, mean of eleven sets", row) for row in protocol["published"]]
    return Table(
        "Base to new classes: top-1, %",
        ("Set", "Method", "Base", "New", "Harmonic mean"),
        (*own, *published),
        "llrrr",
        rules=rules_between([*own, *published]),
        notes=("Published with ViT-B/16 and 16 shots; not measured in this run.",),
    )


def _split_row(title: str, row: Results) -> tuple[Cell, ...]:
    numbers = (row["base"], row["new"], row["harmonic_mean"])
    return (Cell(title), Cell(row["method"]), *map(exact, numbers))
