"""The model card beside a prompt file: what the prompt is, how it was made, how good it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from coop.outputs import Outputs
from coop.recipes import HEADS, Recipe
from coop.train_job import TrainJob
from tpt._version import __version__


def write_card(
    job: TrainJob, outputs: Outputs, recipes: Sequence[Recipe], results: Sequence[Mapping[str, Any]]
) -> str:
    """The card as Markdown.

    Args:
        recipes: the recipe of each run.
        results: `coop.runs.Result` of each run, in the same order.
    """
    classes, settings = job.dataset.classes, job.settings
    shown = ", ".join(classes[:20]) + (
        f", ... ({len(classes)} in all)" if len(classes) > 20 else ""
    )
    recipe = recipes[0]
    facts = {
        "Method": recipe.method,
        "Model": f"{job.clip.name}" + (f", {job.clip.pretrained}" if job.clip.pretrained else ""),
        "Data": f"{job.dataset.name} ({job.dataset.layout}), classes: {settings.classes_split}",
        "Classes": shown,
        "Start": _start(recipe),
        "Training": _training(recipe, recipes),
        "Hand-crafted prompt": ", ".join(f'"{template}"' for template in job.templates),
        "Made with": f"tpt-runtime {__version__}",
    }
    lines = [f"# {outputs.path.name}", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    lines += ["", "## How good", "", *_table(results), ""]
    for key, what in (
        ("failed", "Training pictures that could not be read and were skipped"),
        ("unread", "Pictures to measure on that could not be read"),
    ):
        paths = {path for result in results for path in result.get(key, ())}
        if paths:
            lines += [f"{what}: {len(paths):,}.", ""]
    lines += [
        "Accuracy is top-1, in percent, on the pictures named above the column; the hand-crafted",
        "prompt's is on the same pictures. It says nothing of pictures of another kind.",
        "",
        *_usage(job, outputs, results),
    ]
    return "\n".join(lines)


def _start(recipe: Recipe) -> str:
    if recipe.method == "linear-probe":
        return "none: logistic regression on image features"
    if recipe.method in HEADS:
        return "the hand-crafted prompt, beside a few-shot head on image features"
    if recipe.words:
        return f'the words "{recipe.words}"'
    kind = "class-specific" if recipe.class_specific else "unified"
    return (
        f"{recipe.context_length} random vectors, {kind}, class name at {recipe.position or 'end'}"
    )


def _training(recipe: Recipe, recipes: Sequence[Recipe]) -> str:
    if recipe.method == "linear-probe":
        return "L-BFGS, C chosen on the validation pictures"
    if recipe.method in HEADS:
        return _fitting(recipe)
    epochs = ", ".join(str(n) for n in dict.fromkeys(r.epochs for r in recipes))
    views = (
        f"{recipe.cache_views} cached views of each picture"
        if recipe.cache_views and recipe.augment != "none"
        else "new views every epoch"
        if recipe.augment != "none"
        else "plain views"
    )
    extras = "".join(f", {name} {value}" for name, value in recipe.extras.items())
    return (
        f"{epochs} epochs, SGD at {recipe.lr:g} (momentum 0.9, decay 5e-4, one warm-up epoch, "
        f"cosine), batch {recipe.batch_size}, {views}{extras}"
    )


def _fitting(recipe: Recipe) -> str:
    """How a head was fitted."""
    views = "plain views" if recipe.augment == "none" else f"{recipe.cache_views} views each"
    steps = {
        "tip-adapter-f": f", {recipe.epochs} epochs of AdamW at {recipe.lr:g}",
        "lpp": f", {recipe.epochs} epochs of gradient descent, the best of them by the validation "
        "pictures",
    }.get(recipe.method, ", no training")
    given = "".join(f", {name} {value:g}" for name, value in recipe.extras.items())
    chosen = "" if recipe.method == "lpp" else "; what is not given, by the validation pictures"
    return f"{views}{steps}{given}{chosen}"


def _table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds = [k for k in ("val", "test", "new") if any(k in r["accuracy"] for r in results)]
    head = ["shots", "seed", "pictures"]
    for kind in kinds:
        counts = [r["measured_on"][kind] for r in results if kind in r["measured_on"]]
        least, most = min(counts), max(counts)  # of each run's own rest, where there is no test set
        count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        head += [f"{kind} ({count})", f"{kind}, hand-crafted"]
    has_mean = any(r["harmonic_mean"] is not None for r in results)
    head += ["harmonic mean"] * has_mean
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in results:
        figures = [r[of].get(kind) for kind in kinds for of in ("accuracy", "template_accuracy")]
        figures += [r["harmonic_mean"]] * has_mean
        row = [str(r["shots"]), str(r["seed"]), str(r["images"]), *map(percent, figures)]
        lines.append(f"| {' | '.join(row)} |")
    tests = [r["accuracy"]["test"] for r in results if "test" in r["accuracy"]]
    if len(tests) > 1 and len({r["shots"] for r in results}) == 1:
        mean, spread = 100 * statistics.mean(tests), 100 * statistics.pstdev(tests)
        lines += ["", f"Mean over seeds: {mean:.1f}, standard deviation {spread:.1f}."]
    return lines


def percent(value: float | None) -> str:
    """A share as a cell in percent; empty where it was not measured."""
    return "" if value is None else f"{100 * value:.1f}"


def _usage(job: TrainJob, outputs: Outputs, results: Sequence[Mapping[str, Any]]) -> list[str]:
    if job.settings.recipe.method == "linear-probe":
        return [
            "The file holds `weight` (K, E) and `bias` (K,) for unit image features. It is a",
            "baseline to compare with, not a prompt: `tpt predict` does not take it.",
            "",
        ]
    name = results[-1]["file"] if results else outputs.path.name
    method = " --method zero_shot" if job.settings.recipe.method in HEADS else ""
    return [
        "## Use",
        "",
        f"    tpt predict images/ --init {name}{method}",
        f"    tpt prompt show {name}",
        "",
    ]
