"""Accuracy by shots: a CSV and a picture that show what more labelled pictures gain."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tpt.report._figures import make_figure, save_figure
from tpt.runs.whole_files import write_whole

ALL = "all"
MARKERS = "osD^vP*X<>"  # beside ten colours, so that lines differ without them

MISSING_LIBRARY = (
    "The curve needs matplotlib to be drawn. Install it: pip install "
    "'tpt-runtime[train]'; its numbers are in the CSV file."
)


@dataclass(frozen=True)
class Point:
    """One run's test accuracy, in [0, 1]. A hand-crafted prompt has no shots and no seed."""

    method: str
    shots: int | None
    seed: int | None
    accuracy: float


def summarise(points: Sequence[Point], method: str) -> list[tuple[int | None, float, float, int]]:
    """(shots, mean, standard deviation over seeds, seeds) of one method, fewest shots first."""
    by_shots: dict[int | None, list[float]] = {}
    for point in points:
        if point.method == method:
            by_shots.setdefault(point.shots, []).append(point.accuracy)
    rows = sorted(by_shots.items(), key=lambda row: _order(row[0]))
    return [
        (shots, statistics.mean(found), statistics.pstdev(found), len(found))
        for shots, found in rows
    ]


def _order(shots: int | None) -> tuple[bool, int]:
    """Sorts fewest shots first; None, all pictures, last."""
    return shots is None, shots or 0


def write_curve(points: Sequence[Point], path: Path) -> None:
    """Write every point as CSV: method, shots, seed, accuracy.

    Raises:
        OutputError: the disk refused.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "shots", "seed", "accuracy"])
    for point in points:
        shots = "" if point.seed is None else (ALL if point.shots is None else point.shots)
        seed = "" if point.seed is None else point.seed
        writer.writerow([point.method, shots, seed, f"{point.accuracy:.6f}"])
    write_whole(path, text.getvalue().encode(), "curve")


def draw_curve(points: Sequence[Point], title: str, path: Path, floor: float | None = None) -> None:
    """Draw accuracy (percent) against shots as PNG: lines with the standard deviation over seeds.

    Hand-crafted prompts, which need no shots, are dashed black lines. Accuracies below `floor`, in
    [0, 1], are cut off at the picture's lower edge; the CSV file has all of them.

    Raises:
        OutputError: matplotlib is not installed, or the disk refused.
    """
    figure = make_figure(MISSING_LIBRARY, figsize=(6.4, 5), dpi=150)
    axes = figure.add_subplot()
    shown = sorted({point.shots for point in points if point.seed is not None}, key=_order)
    places = {shots: place for place, shots in enumerate(shown)}
    learned = list(dict.fromkeys(point.method for point in points if point.seed is not None))
    width = 0.4 if len(learned) > 4 else 0.0  # many go side by side, or they hide each other
    for method in dict.fromkeys(point.method for point in points):
        if method not in learned:
            height = next(100 * point.accuracy for point in points if point.method == method)
            axes.axhline(height, color="black", linestyle="--", linewidth=1, label=method)
    for number, method in enumerate(learned):
        colour, mark = f"C{number}", MARKERS[number % len(MARKERS)]
        aside = width * ((number + 0.5) / len(learned) - 0.5)
        rows = summarise(points, method)
        x = [places[row[0]] + aside for row in rows]
        y = [100 * row[1] for row in rows]
        style = {"marker": mark, "markersize": 5, "linewidth": 1.2, "capsize": 2}
        spread = [100 * row[2] for row in rows]
        axes.errorbar(x, y, spread, color=colour, label=method, **style)
    axes.set_xticks(range(len(shown)), [ALL if s is None else str(s) for s in shown])
    axes.set(xlabel="labelled pictures a class (shots)", ylabel="accuracy (%)")
    axes.set_title(title, parse_math=False)  # a "$" in a name is a "$"
    axes.grid(alpha=0.3)
    if floor is not None and 100 * floor > axes.get_ylim()[0]:
        axes.set_ylim(bottom=100 * floor)
    legend = figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, path, "curve")
