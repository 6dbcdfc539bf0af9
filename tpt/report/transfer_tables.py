"""The tables of a transfer between data sets, from transfer.json: Markdown, LaTeX, plain text.

Rows are the hand-crafted words and the prompts, columns the targets, in percent with two decimals
as in the papers; a second table has each prompt's difference to the words, with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tpt.evaluate.protocols import mean
from tpt.evaluate.published import SHIFTS
from tpt.report.eval_tables import SIGNIFICANT
from tpt.report.heatmap import Panel
from tpt.report.typeset import (
    Cell,
    Table,
    exact,
    make_documents,
    mark_best,
    number,
    points,
    shorten,
    to_text,
)

OWN = " (own)"  # marks the accuracy on the set that a prompt was learned on
WIDEST = 100  # columns of a terminal
_SHORTEST = 8  # characters of a name that the console always shows

Transfer = Mapping[str, Any]


def set_tables(transfer: Transfer) -> tuple[str, str]:
    """tables.md and tables.tex: facts about the run, two tables a method, published averages."""
    title = "Transfer between data sets"
    return make_documents(title, list_facts(transfer), make_tables(transfer))


def console_table(transfer: Transfer) -> str:
    """The accuracies for the terminal; names are shortened so that most runs fit its width."""
    tables = [_accuracies(transfer, matrix) for matrix in transfer["matrices"]]
    count = len(transfer["targets"])
    longest = max(_SHORTEST, (WIDEST - 45) // count - 2)
    texts = []
    for matrix, table in zip(transfer["matrices"], tables, strict=True):
        first, *names = table.header
        header = (first, *(shorten(name, longest) for name in names[:count]), "others", "vs words")
        rows = tuple((replace(r[0], text=shorten(r[0].text, 20)), *r[1:]) for r in table.rows)
        text = to_text(replace(table, header=header, rows=rows, notes=()))
        texts.append(f"{matrix['method']}, top-1, %\n{text}" if len(tables) > 1 else text)
    return "\n".join(texts).rstrip("\n")


def list_facts(transfer: Transfer) -> list[str]:
    """The run in lines: model, prompts, and what a reader must know of the sets."""
    settings = transfer["settings"]
    weights = f" ({settings['pretrained']})" if settings.get("pretrained") else ""
    facts = [f"{transfer['tool']}: {settings['model']}{weights}, seed {settings['seed']}"]
    for source in transfer["sources"]:
        shots = f"{source['shots']} shots" if source.get("shots") else "shots unknown"
        facts.append(f"{source['name']}: {source['file']}, {shots}")
        facts += [f"{source['name']}: {note}" for note in source["notes"]]
    for target in transfer["targets"]:
        classes, images = len(target["classes"]), target["images"]
        facts.append(f"{target['name']}: {images:,} pictures of {classes:,} classes")
        if target["failed"]:
            facts.append(
                f"{target['name']}: {target['failed']:,} more could not be read; the numbers are "
                "of the others."
            )
        facts += [f"{target['name']}: {note}" for note in target["notes"]]
    return facts


def list_panels(transfer: Transfer) -> list[Panel]:
    """The heat map's panels, one a method."""
    many = len(transfer["matrices"]) > 1
    return [
        Panel(
            title=matrix["method"] if many else "",
            words=f'"{transfer["words"]}"',
            base=matrix["words"]["accuracy"],
            rows=tuple(source["name"] for source in transfer["sources"]),
            columns=tuple(target["name"] for target in transfer["targets"]),
            accuracy=matrix["accuracy"],
        )
        for matrix in transfer["matrices"]
    ]


def make_tables(transfer: Transfer) -> list[Table]:
    """Accuracies and differences of every method, then the papers' averages."""
    own = [
        table
        for matrix in transfer["matrices"]
        for table in (_accuracies(transfer, matrix), _differences(transfer, matrix))
    ]
    rows = ((Cell(row.label), exact(row.fine_grained)) for row in SHIFTS if row.fine_grained)
    published = Table(
        "Transfer, published: top-1, %",
        ("Method", "Average"),
        tuple(rows),
        "lr",
        notes=(
            "ViT-B/16, mean of ten fine-grained data sets; learned prompts come from ImageNet. "
            "Published figures, not measured in this run.",
        ),
    )
    return [*own, published]


def _accuracies(transfer: Transfer, matrix: Transfer) -> Table:
    targets = [target["name"] for target in transfer["targets"]]
    sources = [source["name"] for source in transfer["sources"]]
    names = [f'"{transfer["words"]}"', *sources]
    values = [matrix["words"]["accuracy"], *matrix["accuracy"]]
    changes = [None, *matrix["average_difference"]]
    rows = []
    for name, row, change in zip(names, values, changes, strict=True):
        own = [target == name for target in targets]
        cells = [
            replace(exact(value), text=exact(value).text + OWN * is_own)
            for value, is_own in zip(row, own, strict=True)
        ]
        others = mean([value for value, is_own in zip(row, own, strict=True) if not is_own])
        rows.append((Cell(name), *cells, exact(others), number(change, lambda d: points(d, 2))))
    columns = range(1, len(targets) + 3)
    return Table(
        f"Transfer between data sets, {matrix['method']}: top-1, %",
        ("Learned on", *targets, "Average of the others", "Against the words, points"),
        tuple(mark_best(rows, dict.fromkeys(columns, True))),
        "l" + "r" * len(columns),
        rules=frozenset([1]),
        notes=(
            "First row: the hand-crafted words, nothing learned; its average is over all targets. "
            f"A prompt's average leaves out the set that it was learned on{OWN}, and so does its "
            "mean difference to the words.",
        ),
    )


def _differences(transfer: Transfer, matrix: Transfer) -> Table:
    targets = [target["name"] for target in transfer["targets"]]
    rows = []
    for place, source in enumerate(transfer["sources"]):
        cells = zip(
            targets,
            matrix["difference"][place],
            matrix["difference_interval"][place],
            matrix["mcnemar_p"][place],
            strict=True,
        )
        row = [Cell(source["name"])]
        for target, value, interval, p in cells:
            cell = number(value, points, interval)
            star = " *" if p is not None and p < SIGNIFICANT else ""
            own = OWN if target == source["name"] else ""
            row.append(replace(cell, text=cell.text + star + own))
        rows.append(tuple(row))
    return Table(
        f"Transfer, {matrix['method']}: difference to the hand-crafted words, points",
        ("Learned on", *targets),
        tuple(rows),
        "l" + "r" * len(targets),
        notes=(
            "In brackets: 95% bootstrap intervals over the images, paired. A star marks "
            f"p < {SIGNIFICANT} in McNemar's exact test against the words on the same images, "
            "cell by cell, not corrected for the number of comparisons.",
        ),
    )
