"""Pictures that show none of the classes: how well a method's confidence tells them apart.

The pictures of an outside folder are judged under the classes of every result set. For each rule of
confidence (`tpt.methods.reading`), inside against outside:

- AUROC: the chance that an inside picture is more confident than an outside one;
- FPR at 95 %: the share of outside pictures accepted where 95 % of the inside ones are;
- with a threshold: false alarms (inside pictures rejected) and misses (outside ones accepted).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tpt.data.labelled_sets import LabelledSet
from tpt.errors import MethodError
from tpt.evaluate.bootstrap import Floats
from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.predictions import index_sets, read_set
from tpt.evaluate.runner import run_walk
from tpt.evaluate.walks import ResultSet, Variant, Walk, list_result_sets
from tpt.methods.reading import Reading
from tpt.prompts.calibration import RULES
from tpt.runs.whole_files import write_whole

NAME = "outside.jsonl"
ACCEPTED = 0.95

Scores = dict[str, dict[str, Floats]]
"""By method and rule: the confidence of every picture."""


def separate(inside: Floats, outside: Floats) -> tuple[float, float]:
    """(AUROC, FPR at 95 %) of confidences (n,) and (m,); ties count half in the first.

    Raises:
        MethodError: no picture on one of the two sides.
    """
    if not len(inside) or not len(outside):
        raise MethodError(
            f"There are {len(inside)} pictures of the set and {len(outside)} outside of it that "
            "gave a prediction; at least one of each is needed to tell them apart."
        )
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left")
    ties = np.searchsorted(ordered, inside, "right") - below
    auroc = float((below + ties / 2).sum() / (len(inside) * len(outside)))
    bound = np.sort(inside)[int((1 - ACCEPTED) * len(inside))]
    return auroc, float((outside >= bound).mean())


def judge_outside(
    evaluation: Evaluation,
    outsides: Sequence[LabelledSet],
    folder: Path,
    *,
    num_workers: int = 2,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Judge the outside pictures under every class list of the run; write outside.jsonl.

    Raises:
        OutputError: the disk refused.
    """
    lines: list[bytes] = []
    for part in outsides:
        for walk, result_set in _find_firsts(evaluation).values():
            tell(f"Judging {part.name} under the classes of {result_set.name}")
            nowhere = (0,) * max(1, len(part.classes))  # labels mean nothing here
            evaluation.prepare(walk)
            head = ResultSet(part.name, result_set.classes, nowhere)
            for line in run_walk(
                Walk(part, (Variant((head,)),)),
                {part.name: evaluation.pool.methods(result_set.classes, walk.set)},
                evaluation.views,
                batch_size=evaluation.batch_size,
                num_workers=num_workers,
                screen=evaluation.screen,
            ):
                line = {"classes_of": result_set.name, "outside": part.name, **line}
                lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    write_whole(folder / NAME, b"".join(lines), "outside predictions")


def measure_outside(evaluation: Evaluation, predictions: str, folder: Path) -> list[dict[str, Any]]:
    """The "outside" entries of results.json: every result set, outside folder, method and rule."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with open(folder / NAME, "rb") as file:
        for line in map(json.loads, file):
            found.setdefault((line["classes_of"], line["outside"]), []).append(line)
    places, firsts, entries = index_sets(predictions), _find_firsts(evaluation), []
    for walk, _, result_set in list_result_sets(evaluation.walks):
        _, first = firsts[result_set.classes]
        inside = _collect(read_set(predictions, result_set.name, places))
        methods = evaluation.pool.methods(result_set.classes, walk.set)
        for (classes_of, part), rows in found.items():
            if classes_of != first.name:
                continue
            outer = _collect(rows)
            entries += [
                {"dataset": result_set.name, "outside": part, "method": method}
                | _compare(rule, inside[method][rule], outer[method][rule], made.reading)
                for method, made in methods.items()
                if method in inside and method in outer
                for rule in RULES
            ]
    return entries


def _compare(rule: str, own: Floats, other: Floats, reading: Reading) -> dict[str, Any]:
    """One method on one set against one outside folder, by one rule; shares in [0, 1]."""
    auroc, fpr = separate(own, other)
    threshold = reading.threshold if reading.rule == rule else None
    return {
        "rule": rule,
        "inside_images": len(own),
        "outside_images": len(other),
        "auroc": auroc,
        "fpr95": fpr,
        "threshold": threshold,
        "false_alarms": None if threshold is None else float((own < threshold).mean()),
        "misses": None if threshold is None else float((other >= threshold).mean()),
    }


def _find_firsts(evaluation: Evaluation) -> dict[tuple[str, ...], tuple[Walk, ResultSet]]:
    """For each list of classes the first result set that has it, with its walk."""
    firsts: dict[tuple[str, ...], tuple[Walk, ResultSet]] = {}
    for walk, _, result_set in list_result_sets(evaluation.walks):
        firsts.setdefault(result_set.classes, (walk, result_set))
    return firsts


def _collect(rows: Iterable[dict[str, Any]]) -> Scores:
    """The confidences in some lines; methods that vote have none."""
    lists: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, made in row.get("methods", {}).items():
            if not made.get("votes"):
                own = lists.setdefault(name, {rule: [] for rule in RULES})
                own["probability"].append(made["top"][0][1])
                own["energy"].append(made["energy"])
    return {
        name: {rule: np.asarray(values) for rule, values in own.items()}
        for name, own in lists.items()
    }
