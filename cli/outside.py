"""The outside folders of `tpt eval`: read them, judge them once, print a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.evaluating import Say, list_pictures, split_name

if TYPE_CHECKING:
    from tpt.data.labelled_sets import LabelledSet
    from tpt.evaluate.evaluation import Evaluation


def read_outsides(options: dict[str, Any], say: Say) -> list[LabelledSet]:
    """All pictures in each outside folder and below it."""
    from tpt.data.labelled_sets import LabelledSet, Sample
    from tpt.evaluate.walks import draw_some

    found = []
    for text in options["outsides"]:
        name, path = split_name(text)
        name = name or Path(path).name or path
        paths = sorted(list_pictures(path, options["all_files"]))
        samples = tuple(Sample.of_file(picture, 0) for picture in paths)
        part = LabelledSet(name, "outside pictures", path, ("outside",), ("outside",), samples)
        if options["limit"] is not None:
            part = draw_some(part, options["limit"], options["seed"])
        say(f"{name}: {len(part.samples):,} outside pictures")
        found.append(part)
    return found


def describe_outsides(outsides: Sequence[LabelledSet]) -> dict[str, Any]:
    """What the run's settings say of the outside folders."""
    told = [{"name": part.name, "pictures": len(part.samples)} for part in outsides]
    return {"outside": told} if told else {}


def judge_others(
    evaluation: Evaluation,
    outsides: Sequence[LabelledSet],
    folder: str,
    options: dict[str, Any],
    say: Say,
) -> None:
    """Judge the outside pictures, unless an earlier start of this run has done it."""
    from tpt.evaluate.outside import NAME, judge_outside

    if outsides and not (Path(folder) / NAME).exists():
        workers = options["num_workers"]
        judge_outside(evaluation, outsides, Path(folder), num_workers=workers, tell=say)


def tell_outside(entry: dict[str, Any]) -> str:
    """One line: how well a method tells a set's pictures from outside ones."""
    told = (
        f"{entry['dataset']} against {entry['outside']}, {entry['method']}, {entry['rule']}: AUROC "
        f"{100 * entry['auroc']:.1f} %, FPR at 95 % {100 * entry['fpr95']:.1f} %"
    )
    if entry["threshold"] is None:
        return told
    alarms, misses = (100 * entry[key] for key in ("false_alarms", "misses"))
    return f"{told}, false alarms {alarms:.1f} %, misses {misses:.1f} %"
