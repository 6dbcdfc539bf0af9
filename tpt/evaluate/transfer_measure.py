"""A transfer's predictions as matrices: rows = prompts, columns = target sets.

Each cell is measured against the same method from the hand-crafted words on the same pictures.
`conclude_transfer` writes what was measured: transfer.json, tables, heat map. The run itself, and
what its prompts and sets must be, is `tpt.evaluate.transfer`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.image_scores import collect_scores
from tpt.evaluate.method_pool import WORDS
from tpt.evaluate.method_specs import MethodSpec, start_from
from tpt.evaluate.metrics import SetMetrics, measure_set
from tpt.evaluate.predictions import Line, SetPlaces, index_sets, read_set
from tpt.evaluate.protocols import mean
from tpt.evaluate.transfer import Prompt
from tpt.evaluate.walks import ResultSet, Walk
from tpt.report.heatmap import Panel, draw_heatmap
from tpt.report.transfer_tables import latex_tables, markdown_tables
from tpt.runs.whole_files import write_whole

FORMAT, VERSION = "tpt-transfer", 1


def measure_transfer(
    evaluation: Evaluation, prompts: Mapping[str, Prompt], predictions: str
) -> dict[str, Any]:
    """The content of transfer.json.

    Args:
        evaluation: the run, its methods from `cross_methods`.
        prompts: the prompts by their keys.
        predictions: its predictions.jsonl, complete.

    Returns:
        "sources" and "targets", the rows and columns; "words", the row that all are compared
        with; "matrices", one a method: "words" of {"accuracy", "interval" (one a target),
        "average"}; one row a source in "accuracy", "interval" ([low, high], 95 %), "difference"
        (to the words), "difference_interval" (paired), "mcnemar_p"; "average" and
        "average_difference", one a source, over the targets other than the one that it was
        learned on. Shares are fractions in [0, 1]; null where nothing could be measured.
    """
    from tpt import __version__

    places = index_sets(predictions)
    specs = evaluation.shelf.specs
    plain = [spec for spec in specs if spec.start is None]
    targets, measured = [], {}
    for walk in evaluation.walks:
        for _, head in walk.heads():
            entry, found = _measure_target(
                evaluation, walk, head, plain, prompts.keys(), predictions, places
            )
            targets.append(entry)
            measured[head.name] = found
    names = [target["name"] for target in targets]
    columns = [measured[name] for name in names]
    shown = {k: v for k, v in evaluation.settings.items() if k not in ("methods", "sets")}
    described = {spec.start: evaluation.shelf.describe(spec) for spec in specs if spec.start}
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "tool": f"tpt-runtime {__version__}",
        "settings": shown,
        "environment": evaluation.environment,
        "words": (evaluation.shelf.starts.templates[:1] or (WORDS,))[0],
        "methods": [evaluation.shelf.describe(spec) for spec in plain],
        "sources": [
            {"name": prompt.name, **described[key]["context"], "notes": list(prompt.notes)}
            for key, prompt in prompts.items()
        ],
        "targets": targets,
        "matrices": [_make_matrix(spec, prompts, names, columns) for spec in plain],
    }


def _measure_target(
    evaluation: Evaluation,
    walk: Walk,
    head: ResultSet,
    plain: Sequence[MethodSpec],
    keys: Collection[str],
    predictions: str,
    places: SetPlaces,
) -> tuple[dict[str, Any], dict[str, SetMetrics]]:
    """What a target is, and what every method measured on it; each against its own words."""
    every = [spec.name for spec in evaluation.shelf.specs]
    lines = _Counted(read_set(predictions, head.name, places))
    columns = collect_scores(lines, every, len(head.classes))
    found: dict[str, SetMetrics] = {}
    for spec in plain:
        own = {
            name: columns[name] for name in (spec.name, *(start_from(spec, k).name for k in keys))
        }
        found |= measure_set(own, spec.name, seed=evaluation.seed)
    read = walk.set
    entry = {
        "name": head.name,
        "layout": read.layout,
        "path": read.path,
        "classes": list(head.classes),
        "images": lines.done,
        "failed": lines.failed,
        "notes": list(read.notes),
    }
    return entry, found


class _Counted:
    """Lines on their way to the metrics, counted."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines
        self.done = self.failed = 0

    def __iter__(self) -> Any:
        for line in self._lines:
            self.failed += "error" in line
            self.done += "error" not in line
            yield line


def _make_matrix(
    spec: MethodSpec,
    prompts: Mapping[str, Prompt],
    targets: Sequence[str],
    columns: Sequence[Mapping[str, SetMetrics]],
) -> dict[str, Any]:
    words = [column[spec.name] for column in columns]
    rows = {key: [column[start_from(spec, key).name] for column in columns] for key in prompts}
    others = {
        key: [place for place, target in enumerate(targets) if target != prompt.name]
        for key, prompt in prompts.items()
    }
    accuracy = {key: [_accuracy(cell) for cell in row] for key, row in rows.items()}
    difference = {key: [_difference(cell) for cell in row] for key, row in rows.items()}
    return {
        "method": spec.name,
        "words": {
            "accuracy": [_accuracy(cell) for cell in words],
            "interval": [_interval(cell) for cell in words],
            "average": _round(mean([_accuracy(cell) for cell in words])),
        },
        "accuracy": list(accuracy.values()),
        "interval": [[_interval(cell) for cell in row] for row in rows.values()],
        "difference": list(difference.values()),
        "difference_interval": [
            [_pair(cell.versus.interval) if cell.versus else None for cell in row]
            for row in rows.values()
        ],
        "mcnemar_p": [
            [_round(cell.versus.mcnemar_p) if cell.versus else None for cell in row]
            for row in rows.values()
        ],
        "average": [_round(mean([accuracy[key][p] for p in others[key]])) for key in rows],
        "average_difference": [
            _round(mean([difference[key][p] for p in others[key]])) for key in rows
        ],
    }


def _accuracy(cell: SetMetrics) -> float | None:
    return _round(cell.metrics["acc1"])


def _difference(cell: SetMetrics) -> float | None:
    return _round(cell.versus.difference) if cell.versus else None


def _interval(cell: SetMetrics) -> list[float] | None:
    found = cell.intervals["acc1"]
    return _pair(found) if found else None


def _pair(ends: tuple[float, float]) -> list[float]:
    return [round(end, 6) + 0.0 for end in ends]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6) + 0.0  # no -0.0


def conclude_transfer(
    evaluation: Evaluation, prompts: Mapping[str, Prompt], predictions: str
) -> dict[str, Any]:
    """Measure, and write transfer.json, tables.md, tables.tex and heatmap.png.

    They go beside the predictions, each whole or not at all, over those of an earlier run. The
    arguments and what is returned are those of `measure_transfer`.

    Raises:
        OutputError: the disk refused.
        OutputError: matplotlib is not installed; the numbers are written by then.
    """
    content = measure_transfer(evaluation, prompts, predictions)
    folder = Path(os.path.dirname(predictions))
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, body in {
        "transfer.json": text,
        "tables.md": markdown_tables(content),
        "tables.tex": latex_tables(content),
    }.items():
        write_whole(folder / name, body.encode("utf-8", "backslashreplace"), what="result")
    model = content["settings"]["model"]
    draw_heatmap(list_panels(content), f"Transfer, {model}: top-1, %", folder / "heatmap.png")
    return content


def list_panels(content: Mapping[str, Any]) -> list[Panel]:
    """What the heat map draws of transfer.json: a panel a method."""
    many = len(content["matrices"]) > 1
    return [
        Panel(
            title=matrix["method"] if many else "",
            words=f'"{content["words"]}"',
            base=matrix["words"]["accuracy"],
            rows=tuple(source["name"] for source in content["sources"]),
            columns=tuple(target["name"] for target in content["targets"]),
            accuracy=matrix["accuracy"],
        )
        for matrix in content["matrices"]
    ]
