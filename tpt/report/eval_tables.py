"""The tables of an evaluation, from results.json: Markdown and LaTeX.

Shares are in percent with one decimal; the protocols' tables have two, as in the papers. An
interval follows its number in brackets. Every number is one of results.json, or a mean over a tree
of corruptions (`tpt.evaluate.protocols`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpt.evaluate.published import CALIBRATION
from tpt.report.protocol_tables import corruption_tables, shift_tables, split_table
from tpt.report.typeset import (
    MISSING,
    Cell,
    Table,
    Writer,
    format_p,
    make_documents,
    number,
    percent,
    points,
    rank,
)
from tpt.text import some

SIGNIFICANT = 0.05  # McNemar's p below which a difference is called significant

Results = Mapping[str, Any]


def set_tables(results: Results) -> tuple[str, str]:
    """tables.md and tables.tex: facts about the run, then every table."""
    return make_documents("Evaluation", _list_facts(results), make_tables(results))


def make_tables(results: Results) -> list[Table]:
    """Every table that these results fill, in the order of the page."""
    protocols = results.get("protocols") or {}
    tables = [_main(results), _calibration(results), *_gaps(results), *corruption_tables(results)]
    if "domain_generalisation" in protocols:
        tables += shift_tables(protocols["domain_generalisation"])
    if "base_to_new" in protocols:
        tables.append(split_table(protocols["base_to_new"]))
    tables += _outside(results)
    return [*tables, _cost(results)]


def _list_facts(results: Results) -> list[str]:
    """The run in lines: tool, settings, methods, and what a reader must know of the sets."""
    lines = [f"{results['tool']}: {_describe(results['settings'])}"]
    for method in results["methods"]:
        templates = method["templates"]
        parts = [method["method"], _describe(method["settings"]), _describe(method["context"])]
        parts.append(f"{len(templates)} templates" if len(templates) > 3 else "; ".join(templates))
        lines.append(f"{method['name']}: {'; '.join(part for part in parts if part)}")
    sets_by_note: dict[str, list[str]] = {}
    for entry in results["sets"]:
        notes = list(entry["notes"])
        if count := entry["failed"]:
            plural = "s" if count != 1 else ""
            notes.append(
                f"{count:,} picture{plural} could not be read; the numbers are of the others."
            )
        for note in notes:
            sets_by_note.setdefault(note, []).append(entry["name"])
    lines += [f"{some(names)}: {note}" for note, names in sets_by_note.items()]
    return lines


def _describe(value: Any) -> str:
    """Settings in words, without those that are None."""
    if isinstance(value, Mapping):
        pairs = ((key, _describe(item)) for key, item in value.items() if item is not None)
        return ", ".join(f"{key} {item}" for key, item in pairs if item)
    if isinstance(value, list | tuple):
        return " ".join(map(_describe, value))
    text = str(value)
    return f'"{text}"' if " " in text else text


# --- cells ---


def measured(result: Results, metric: str, write: Writer = percent, ends: bool = True) -> Cell:
    """One metric of one result, by default with its interval."""
    return number(result["metrics"][metric], write, result["intervals"][metric] if ends else None)


def _significance(versus: Results | None) -> Cell:
    if versus is None:
        return Cell(MISSING)
    p = versus["mcnemar_p"]
    return Cell(format_p(p) + (" *" if p < SIGNIFICANT else ", not significant"))


def title_set(entry: Results) -> Cell:
    """A set's name, marked if it is the clean set."""
    return Cell(f"{entry['name']} (clean)" if entry["role"] == "clean" else entry["name"])


def in_order(results: Results) -> list[tuple[Results, Results]]:
    """(set, result) in the order of sets and methods."""
    by_pair = {(r["dataset"], r["method"]): r for r in results["results"]}
    return [
        (entry, by_pair[pair])
        for entry in results["sets"]
        for method in results["methods"]
        if (pair := (entry["name"], method["name"])) in by_pair
    ]


# --- the tables ---


def _main(results: Results) -> Table:
    """Accuracy of every method on every set, and its difference to the baseline."""
    baseline, rows = results["baseline"], []
    for entry, result in in_order(results):
        versus = result["versus_baseline"]
        change = (versus["difference"], points, versus["interval"]) if versus else (None, points)
        traded = f"{versus['put_right']} / {versus['put_wrong']}" if versus else MISSING
        rows.append(
            (
                title_set(entry),
                Cell(result["method"]),
                Cell(f"{result['images']:,}"),
                measured(result, "acc1"),
                measured(result, "acc5", ends=False),
                measured(result, "mean_per_class_recall", ends=False),
                Cell(number(*change).text),
                _significance(versus),
                Cell(traded),
            )
        )
    header = ("Set", "Method", "Images", "Top-1, %", "Top-5, %", "Mean per class, %")
    return rank(
        "Accuracy",
        (*header, f"Against {baseline}, points", "McNemar's p", "Put right / wrong"),
        rows,
        "llrrrrrrr",
        {3: True, 4: True, 5: True},
        "In brackets: 95% bootstrap intervals over the images; paired for differences. "
        f"A star marks p < {SIGNIFICANT} in McNemar's exact test against {baseline} "
        "on the same images, set by set, not corrected for the number of comparisons.",
    )


def _calibration(results: Results) -> Table:
    rows = [
        (
            title_set(entry),
            Cell(result["method"]),
            measured(result, "ece15"),
            measured(result, "ece20"),
            measured(result, "nll", lambda value: f"{value:.3f}"),
            measured(result, "brier", lambda value: f"{value:.3f}"),
        )
        for entry, result in in_order(results)
    ]
    known = ", ".join(f"{method} {percent(value)}" for method, value in CALIBRATION)
    return rank(
        "Calibration",
        ("Set", "Method", "ECE 15 bins, %", "ECE 20 bins, %", "NLL, nats", "Brier score"),
        rows,
        "llrrrr",
        dict.fromkeys(range(2, 6), False),
        "Less is better. A method that votes has no probabilities, so it has no numbers here. "
        "Resampling makes a calibration error larger, so its interval lies high.",
        f"Published (arXiv 2403.14119; ECE, 20 bins, mean of eleven data sets): {known}.",
    )


def _gaps(results: Results) -> list[Table]:
    """Clean accuracy, gap and effective robustness of sets that have a clean counterpart."""
    rows = []
    for entry, result in in_order(results):
        if (clean := result["clean"]) is not None:
            rows.append(
                (
                    Cell(entry["name"]),
                    Cell(clean["dataset"]),
                    Cell(result["method"]),
                    number(clean["acc1"], percent),
                    measured(result, "acc1", ends=False),
                    number(clean["gap"], points),
                    number(clean["effective_robustness"], points),
                )
            )
    columns = ("Set", "Clean set", "Method", "Clean, %", "Shifted, %", "Gap, points")
    table = rank(
        "Clean accuracy and gap",
        (*columns, "Effective robustness, points"),
        rows,
        "lllrrrr",
        {3: True, 4: True, 5: False, 6: True},
        "Gap: clean minus shifted accuracy, over the same classes. Effective robustness "
        f"here: the gap of {results['baseline']} minus the method's. The paper that defines "
        "it (arXiv 2007.00644) fits a line through many models; with one model, the baseline "
        "replaces that line.",
    )
    return [table] if rows else []


def _outside(results: Results) -> list[Table]:
    """How well confidence separates a set's pictures from outside ones, if the run has some."""
    rows = [
        (
            Cell(entry["dataset"]),
            Cell(entry["outside"]),
            Cell(entry["method"]),
            Cell(entry["rule"]),
            *(number(entry[key], percent) for key in ("auroc", "fpr95", "false_alarms", "misses")),
        )
        for entry in results.get("outside", ())
    ]
    columns = ("Set", "Outside", "Method", "Rule")
    table = rank(
        "Outside pictures",
        (*columns, "AUROC, %", "FPR at 95 %, %", "False alarms, %", "Misses, %"),
        rows,
        "llllrrrr",
        {4: True, 5: False},
        "AUROC: the chance that a picture of the set has a higher confidence than an outside "
        "one. FPR at 95 %: outside pictures accepted where 95 % of the set's are. False "
        "alarms and misses are at the threshold of --reject or of the prompt's calibration.",
    )
    return [table] if rows else []


def _cost(results: Results) -> Table:
    rows = [
        (
            title_set(entry),
            Cell(result["method"]),
            number(result["ms"]["image"], lambda ms: f"{ms:.1f}"),
            number(result["ms"]["method"], lambda ms: f"{ms:.1f}"),
        )
        for entry, result in in_order(results)
    ]
    return rank(
        "Cost: median milliseconds an image",
        ("Set", "Method", "Shared", "Method alone"),
        rows,
        "llrr",
        {},
        "Shared: views and the image tower, once for all methods; decoding runs ahead, in threads. "
        f"Measured on {results['environment'].get('device', 'an unknown device')}.",
    )
