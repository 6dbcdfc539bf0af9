"""From predictions.jsonl to results.json, which `tpt.report` draws.

Result sets are read one at a time, so that memory holds the numbers of one set (some forty bytes a
picture and method), however long the run was.
"""

from __future__ import annotations

import os
import statistics
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tpt.corrupt.corruption_kinds import Pixels
from tpt.corrupt.corruptions import corrupt
from tpt.evaluate.confusions import ChangeCounter, Confusion
from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.gallery import GalleryDraw, GalleryItem, draw_items
from tpt.evaluate.image_scores import collect_scores
from tpt.evaluate.method_specs import BASELINE
from tpt.evaluate.metrics import SetMetrics, measure_set
from tpt.evaluate.outside import NAME as OUTSIDE
from tpt.evaluate.outside import measure_outside
from tpt.evaluate.predictions import index_sets, read_set
from tpt.evaluate.results import SetInfo, Times, build_results, round_floats, write_results
from tpt.evaluate.walks import ResultSet, Variant, Walk, list_result_sets
from tpt.text import as_text

GALLERY_SETS = 12
"""Result sets that show pictures, spread evenly over the run: more would make a heavy page."""

GALLERY_ITEMS = 240
"""About how many pictures the gallery holds; some 15 KB each with their views."""


def measure(
    evaluation: Evaluation, predictions: str, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Measure every result set and write results.json beside the predictions.

    Args:
        predictions: its predictions.jsonl, complete.
        tell: called with what is being measured.

    Returns:
        The content of results.json.
    """
    places = index_sets(predictions)
    names = [spec.name for spec in evaluation.pool.specs]
    sets: list[SetInfo] = []
    measured: dict[str, dict[str, SetMetrics]] = {}
    ms: dict[str, dict[str, Times]] = {}
    gallery: list[GalleryItem] = []
    confusions: list[Confusion] = []
    result_sets = list_result_sets(evaluation.walks)
    shares = share_gallery(len(result_sets), len(names) - 1)
    for (walk, variant, result_set), pictures in zip(result_sets, shares, strict=True):
        name, classes = result_set.name, result_set.classes
        tell(f"Measuring {name}")
        draw = GalleryDraw(name, classes, BASELINE, pictures, evaluation.seed)
        reader = _RowReader(names, draw)
        rows = reader.follow(read_set(predictions, name, places))
        columns = collect_scores(rows, names, len(classes))
        measured[name] = measure_set(columns, BASELINE, seed=evaluation.seed)
        ms[name] = reader.times()
        confusions += reader.changes.confusions(name, classes)
        done = len(columns[BASELINE].label)
        failed = len(places.get(name, ())) - done
        sets.append(_describe_set(walk, variant, result_set, done, failed))
        if pictures:
            gallery += _draw_gallery(evaluation, walk, variant, draw.items)
    methods, shown = evaluation.settings["methods"], evaluation.shared_settings
    results = build_results(sets, methods, measured, shown, evaluation.environment, BASELINE, ms)
    folder = Path(os.path.dirname(predictions))
    if (folder / OUTSIDE).exists():
        results["outside"] = round_floats(measure_outside(evaluation, predictions, folder))
    results["gallery"] = [asdict(item) for item in gallery]
    results["confusions"] = [asdict(confusion) for confusion in confusions]
    write_results(results, folder / "results.json")
    return results


def share_gallery(sets: int, methods: int) -> list[int]:
    """How many pictures of each kind and method each result set shows, in their order."""
    shown = min(sets, GALLERY_SETS)
    each = min(4, max(1, GALLERY_ITEMS // max(1, 2 * methods * shown)))
    chosen = {place * sets // shown for place in range(shown)}
    return [each if place in chosen else 0 for place in range(sets)]


class _RowReader:
    """Reads off each row of a result set what is not a metric, on its way to the metrics."""

    def __init__(self, methods: list[str], draw: GalleryDraw) -> None:
        self.draw = draw
        self.changes = ChangeCounter(BASELINE)
        self._image_ms = array("f")
        self._ms = {method: array("f") for method in methods}

    def follow(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            if "error" not in row:
                self.draw.add(row)
                self.changes.add(row)
                self._image_ms.append(row["image_ms"])
                for method, ms in self._ms.items():
                    ms.append(row["methods"][method]["ms"])
            yield row

    def times(self) -> dict[str, Times]:
        return {
            method: Times(_median(self._image_ms), _median(ms)) for method, ms in self._ms.items()
        }


def _median(values: array[float]) -> float | None:
    return statistics.median(values) if values else None


def _describe_set(
    walk: Walk, variant: Variant, result_set: ResultSet, done: int, failed: int
) -> SetInfo:
    read = walk.set
    return SetInfo(
        name=result_set.name,
        layout=read.layout,
        path=as_text(read.path),
        classes=result_set.classes,
        images=done,
        role=result_set.role,
        failed=failed,
        domain=read.domain,
        corruption=variant.corruption or read.corruption,
        severity=variant.severity or read.severity,
        clean=result_set.clean,
        part=result_set.part,
        notes=tuple(map(as_text, (*read.notes, *walk.notes))),
    )


def _draw_gallery(
    evaluation: Evaluation, walk: Walk, variant: Variant, items: Sequence[GalleryItem]
) -> list[GalleryItem]:
    """The gallery's items with their pictures, corrupted and cut into views as in the run."""
    wanted = {item.key for item in items}
    samples = {sample.key: sample for sample in walk.set.samples if sample.key in wanted}

    def change(pixels: Pixels, key: str) -> Pixels:
        assert variant.severity is not None
        return corrupt(pixels, str(variant.corruption), variant.severity, evaluation.seed, key)

    return draw_items(
        items,
        samples,
        evaluation.views if evaluation.views.n > 1 else None,
        change if variant.corruption else None,
    )
