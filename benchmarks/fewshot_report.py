"""Tables and curves of the runs that `benchmarks/fewshot.py` left in its folder.

    python benchmarks/fewshot_report.py DIR > tables.md

Markdown goes to standard output; `<set>.png` and `<set>.curve.csv` are written beside each set's
runs. Figures are percent right on the test images, mean and standard deviation over the seeds.
Seconds are those of training with the most shots, on features that were encoded before.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from _fewshot import ABLATION, BASE_TO_NEW, METHODS, PICTURED, SETS, SHOTS, SINGLE
from fewshot import read_lines

from tpt.report.fewshot_curve import Point, draw_curve, write_curve

Groups = dict[tuple[str, str, int], list[dict[str, Any]]]
BELOW = 0.15  # of the accuracy under zero-shot's, at most, is in a picture
TITLES = {
    "cifar10": "CIFAR-10",
    "imagenette": "Imagenette",
    "pacs_photo": "PACS photo",
    "pacs_sketch": "PACS sketch",
    "caltech101": "Caltech101",
}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds, in percent; says if there are fewer than three."""
    mean = 100 * statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.1f} (one)"
    few = " (two)" if len(values) == 2 else ""
    return f"{mean:.1f} ± {100 * statistics.pstdev(values):.1f}{few}"


def group(lines: list[dict[str, Any]]) -> Groups:
    groups: Groups = defaultdict(list)
    for line in lines:
        groups[line["method"], line["split"], line["shots"]].append(line)
    return groups


def print_methods(groups: Groups, methods: list[str], shots: tuple[int, ...]) -> None:
    """Print one row per method and one column per number of shots."""
    shots = tuple(n for n in shots if any((m, "all", n) in groups for m in methods))
    found = [m for m in methods if any((m, "all", count) in groups for count in shots)]
    if not found:
        return
    heads = [*map(str, shots), f"seconds, {shots[-1]}"]
    print("| method, by shots | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for method in found:
        cells = [groups.get((method, "all", count), []) for count in shots]
        shown = [spread([g["accuracy"]["test"] for g in cell]) if cell else "" for cell in cells]
        seconds = [g["seconds"] for g in cells[-1]]
        shown.append(f"{statistics.mean(seconds):.2f}" if seconds else "")
        print(f"| {method} | " + " | ".join(shown) + " |")


def print_base_to_new(groups: Groups) -> None:
    found = [m for m in BASE_TO_NEW if (m, "base", 16) in groups]
    if not found:
        return
    print("\n| 16 shots a base class | base | new | harmonic mean |\n|---|---|---|---|")
    first = groups[found[0], "base", 16]
    print_row("zero-shot", first, "template", "template_harmonic")
    for method in found:
        print_row(method, groups[method, "base", 16], "accuracy", "harmonic")


def print_row(title: str, lines: list[dict[str, Any]], key: str, mean: str) -> None:
    base, new = (spread([line[key][kind] for line in lines]) for kind in ("test", "new"))
    print(f"| {title} | {base} | {new} | {spread([line[mean] for line in lines])} |")


def points_of(lines: list[dict[str, Any]], zero: dict[str, Any]) -> list[Point]:
    points = [
        Point(line["method"], line["shots"], line["seed"], line["accuracy"]["test"])
        for method in PICTURED
        for line in lines
        if line["split"] == "all" and line["method"] == method
    ]
    return [*points, Point(f"zero-shot, {SINGLE}", None, None, zero["single"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    for name in SETS:
        lines, facts = read_lines(work / f"{name}.jsonl"), work / f"{name}.json"
        if not lines or not facts.exists():
            continue
        zero = json.loads(facts.read_text())
        groups = group(lines)
        print(f"\n### {TITLES[name]}\n")
        print(
            f"{zero['images']:,} test pictures; zero-shot {100 * zero['single']:.1f}, ensemble of "
            f"eight templates {100 * zero['ensemble']:.1f}.\n"
        )
        print_methods(groups, list(METHODS), SHOTS)
        print_base_to_new(groups)
        ablation = ["E2MIM", *ABLATION]
        if any((method, "all", 16) in groups for method in ABLATION):
            print()
            print_methods(groups, ablation, (1, 4, 16))
        cached = ["CoOp, M = 16", "CoOp, M = 16, no cached views"]
        if (cached[1], "all", 4) in groups:
            print()
            print_methods(groups, cached, (4,))
        points = points_of(lines, zero)
        write_curve(points, work / f"{name}.curve.csv")
        if len(points) > 1:  # more than zero-shot, which stands in the picture's lower half
            floor = zero["single"] - BELOW
            draw_curve(points, f"{TITLES[name]}, lite", work / f"{name}.png", floor)


if __name__ == "__main__":
    main()
