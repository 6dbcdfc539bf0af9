"""The table that `tpt eval` prints: the numbers of results.json that fit a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from tpt.evaluate.protocols import average_corruptions, group_corruptions, read_accuracies
from tpt.report.eval_tables import Results, in_order, measured, title_set
from tpt.report.typeset import (
    MISSING,
    Cell,
    Table,
    format_p,
    number,
    percent,
    points,
    shorten,
    to_text,
)

MANY = 5  # corrupted sets of one parent that are still listed one by one


def console_table(results: Results) -> str:
    """A compact table for the terminal, at most 100 columns wide.

    A set with more than five corrupted versions has one line a method, with their mean.
    """
    groups = group_corruptions(results["sets"])
    many = {
        name: parent
        for parent, kinds in groups.items()
        for names in kinds.values()
        for name in names.values()
        if sum(map(len, kinds.values())) > MANY
    }
    rows: list[tuple[str, ...]] = []
    for entry, result in in_order(results):
        parent = many.get(entry["name"])
        if parent is None:
            rows.append(_console_row(entry, result))
        elif parent in groups:
            rows += _console_means(results, parent, groups.pop(parent))
    cells, before = [], ""
    for first, second, *rest in rows:  # the set's name and size only where they change
        head = ("", "") if first == before else (shorten(first, 24), second)
        cells.append(tuple(map(Cell, (*head, *rest))))
        before = first
    header = (
        "set",
        "images",
        "method",
        "top-1, %",
        f"vs {shorten(results['baseline'], 10)}",
        "ECE15, %",
    )
    return to_text(Table("", header, tuple(cells), "lrlrrr"))


def _console_row(entry: Results, result: Results) -> tuple[str, ...]:
    versus = result["versus_baseline"]
    change = MISSING
    if versus is not None:
        p = format_p(versus["mcnemar_p"])
        change = f"{points(versus['difference'])} p{p if p.startswith('<') else f'={p}'}"
    return (
        title_set(entry).text,
        f"{result['images']:,}",
        shorten(result["method"], 16),
        measured(result, "acc1").text,
        change,
        measured(result, "ece15", ends=False).text,
    )


def _console_means(
    results: Results, parent: str, kinds: Mapping[str, Mapping[int, str]]
) -> list[tuple[str, ...]]:
    """One line a method for a tree of corruptions: means, which have no test of their own."""
    by_pair = {(r["dataset"], r["method"]): r for r in results["results"]}
    names = [name for severities in kinds.values() for name in severities.values()]
    accuracies = read_accuracies(results)
    errors = {pair: r["metrics"]["ece15"] for pair, r in by_pair.items()}
    base = average_corruptions(kinds, accuracies, results["baseline"])
    rows: list[tuple[str, ...]] = []
    for method in (entry["name"] for entry in results["methods"]):
        images = sum(by_pair[n, method]["images"] for n in names if (n, method) in by_pair)
        own = average_corruptions(kinds, accuracies, method)
        change = None if own is None or base is None else own - base
        rows.append(
            (
                f"{parent}, mean of {len(names)}",
                f"{images:,}",
                shorten(method, 16),
                number(own, percent).text,
                MISSING if method == results["baseline"] else number(change, points).text,
                number(average_corruptions(kinds, errors, method), percent).text,
            )
        )
    return rows
