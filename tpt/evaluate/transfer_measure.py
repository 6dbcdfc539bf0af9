"""A transfer's predictions as matrices: rows = prompts, columns = target sets.

Each cell is compared with the same method from the hand-crafted words on the same pictures.
`tpt.evaluate.transfer` plans the run and checks its prompts and sets; `tpt.report` draws
transfer.json.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tpt._version import __version__
from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.image_scores import collect_scores
from tpt.evaluate.method_specs import MethodSpec, start_from
from tpt.evaluate.metrics import SetMetrics, measure_set
from tpt.evaluate.predictions import SetPlaces, index_sets, read_set
from tpt.evaluate.protocols import mean
from tpt.evaluate.results import TRANSFER_FORMAT, TRANSFER_VERSION, round_floats
from tpt.evaluate.transfer import Prompt
from tpt.evaluate.walks import ResultSet, Walk, list_result_sets
from tpt.text import as_text


def measure_transfer(
    evaluation: Evaluation, prompts: Mapping[str, Prompt], predictions: str
) -> dict[str, Any]:
    """The content of transfer.json.

    Args:
        evaluation: the run, its methods from `cross_methods`.
        predictions: its predictions.jsonl, complete.

    Returns:
        "sources" and "targets", the rows and columns; "words", the row that all are compared
        with; "matrices", one a method: "words" of {"accuracy", "interval" (one a target),
        "average"}; one row a source in "accuracy", "interval" ([low, high], 95 %), "difference"
        (to the words), "difference_interval" (paired), "mcnemar_p"; "average" and
        "average_difference", one a source, over the targets that it was not learned on. Shares
        are fractions in [0, 1]; null where nothing could be measured.
    """
    places = index_sets(predictions)
    specs = evaluation.pool.specs
    plain = [spec for spec in specs if spec.start is None]
    targets, columns = [], []
    for walk, _, result_set in list_result_sets(evaluation.walks):
        target, column = _measure_target(
            evaluation, walk, result_set, plain, prompts.keys(), predictions, places
        )
        targets.append(target)
        columns.append(column)
    names = [target["name"] for target in targets]
    described = {spec.start: evaluation.pool.describe(spec) for spec in specs if spec.start}
    return {
        "format": TRANSFER_FORMAT,
        "format_version": TRANSFER_VERSION,
        "tool": f"tpt-runtime {__version__}",
        "settings": evaluation.shared_settings,
        "environment": evaluation.environment,
        "words": evaluation.pool.starts.words,
        "methods": [evaluation.pool.describe(spec) for spec in plain],
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
    result_set: ResultSet,
    plain: Sequence[MethodSpec],
    keys: Collection[str],
    predictions: str,
    places: SetPlaces,
) -> tuple[dict[str, Any], dict[str, SetMetrics]]:
    """A target's entry, and the metrics of every method on it, compared with its own words."""
    every = [spec.name for spec in evaluation.pool.specs]
    rows = read_set(predictions, result_set.name, places)
    columns = collect_scores(rows, every, len(result_set.classes))
    done = len(columns[every[0]].label)
    found: dict[str, SetMetrics] = {}
    for spec in plain:
        names = (spec.name, *(start_from(spec, key).name for key in keys))
        own = {name: columns[name] for name in names}
        found |= measure_set(own, spec.name, seed=evaluation.seed)
    read = walk.set
    entry = {
        "name": result_set.name,
        "layout": read.layout,
        "path": as_text(read.path),
        "classes": list(result_set.classes),
        "images": done,
        "failed": len(places.get(result_set.name, ())) - done,
        "notes": [as_text(note) for note in read.notes],
    }
    return entry, found


def _make_matrix(
    spec: MethodSpec,
    prompts: Mapping[str, Prompt],
    targets: Sequence[str],
    columns: Sequence[Mapping[str, SetMetrics]],
) -> dict[str, Any]:
    words = [column[spec.name] for column in columns]
    rows = [[column[start_from(spec, key).name] for column in columns] for key in prompts]
    others = [
        [place for place, target in enumerate(targets) if target != prompt.name]
        for prompt in prompts.values()
    ]

    def grid(read: Callable[[SetMetrics], Any]) -> list[list[Any]]:
        return [[read(cell) for cell in row] for row in rows]

    def average(values: list[list[Any]]) -> list[float | None]:
        pairs = zip(values, others, strict=True)
        return [mean([row[place] for place in places]) for row, places in pairs]

    accuracy = grid(lambda cell: cell.metrics["acc1"])
    difference = grid(lambda cell: cell.versus and cell.versus.difference)
    return round_floats(
        {
            "method": spec.name,
            "words": {
                "accuracy": [cell.metrics["acc1"] for cell in words],
                "interval": [cell.intervals["acc1"] for cell in words],
                "average": mean([cell.metrics["acc1"] for cell in words]),
            },
            "accuracy": accuracy,
            "interval": grid(lambda cell: cell.intervals["acc1"]),
            "difference": difference,
            "difference_interval": grid(lambda cell: cell.versus and cell.versus.interval),
            "mcnemar_p": grid(lambda cell: cell.versus and cell.versus.mcnemar_p),
            "average": average(accuracy),
            "average_difference": average(difference),
        }
    )
