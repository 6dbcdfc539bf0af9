"""`tpt advise`: which method suits your own pictures, measured on a small sample of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import (
    build,
    check_extra,
    list_pictures,
    read_one,
    read_single,
    telling_warnings,
)
from cli.failures import plain_errors
from cli.option_values import read_names
from cli.options import fill, machine_options, quiet_option, tag_option
from cli.progress import Tally, progress
from tpt.errors import MethodError

if TYPE_CHECKING:
    from tpt.data.labelled_sets import LabelledSet
    from tpt.evaluate.advice import Row
    from tpt.evaluate.evaluation import Evaluation


@click.command("advise")
@click.argument("pictures", metavar="PICTURES")
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names. Without them PICTURES are read as a labelled set, as `tpt eval` does.",
)
@click.option("--labels", metavar="CSV", help="A file with columns path and label.")
@click.option(
    "--limit",
    type=click.IntRange(10),
    default=200,
    show_default=True,
    metavar="N",
    help="Draw at most N pictures; more pictures show smaller differences.",
)
@click.option(
    "--methods",
    multiple=True,
    metavar="A,B,...",
    help="As `tpt eval` has it. Default: the shelf, and TPT at the rate that suits the model.",
)
@click.option("--views", type=click.IntRange(1), help="Views an image [default: 64].")
@click.option("--model", help="As `tpt predict` takes it.")
@tag_option
@machine_options
@quiet_option
def command(pictures: str, quiet: bool, **options: Any) -> None:
    """Say which method to take for PICTURES, or that none is worth it.

    Runs the shelf on a small draw, all methods on the same encoded views. Prints what each method
    costs, how often it agrees with zero-shot and how sure it is; with labels also accuracy with
    paired intervals, and calibration. The last two lines are the advice and the command to use.
    """
    say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    with plain_errors():
        check_extra("advise", ("torchmetrics", "sklearn", "scipy"))
        drawn, labelled = draw(pictures, options, say)
        evaluation = prepare(drawn, options, say)
        with telling_warnings(say):
            lines = predict(evaluation, options, quiet)
        tell(evaluation, lines, labelled, pictures, options, say)


def draw(pictures: str, options: dict[str, Any], say: Any) -> tuple[LabelledSet, bool]:
    """The draw in mixed order, and whether its labels mean anything."""
    from tpt.data.labelled_sets import LabelledSet, ReadOptions, Sample
    from tpt.evaluate.order import order_set
    from tpt.evaluate.walks import draw_some

    names = read_names(options["classes"])
    if names is None:
        if options["labels"] is not None:
            raise MethodError("--labels says what pictures show; give the --classes too.")
        whole, labelled = read_single(pictures, ReadOptions(), say), True
    else:
        samples = tuple(Sample.of_file(path, 0) for path in sorted(list_pictures(pictures)))
        whole = LabelledSet(pictures, "pictures", pictures, names, names, samples)
        labelled = options["labels"] is not None
        if labelled:
            whole = label_pictures(whole, options["labels"], say)
    limited = draw_some(whole, options["limit"], options["seed"])
    mixed = order_set(limited, "shuffled", options["seed"])
    say(f"{len(mixed.samples):,} pictures, {'with' if labelled else 'without'} labels")
    return replace(mixed, name=whole.name), labelled


def label_pictures(whole: LabelledSet, labels: str, say: Any) -> LabelledSet:
    """The pictures that a CSV labels; there must be some."""
    from tpt.data.labelled_sets import ReadOptions

    (listed,) = read_one(labels, ReadOptions(layout="table", classes=whole.classes), say)
    known = {os.path.realpath(sample.path): sample.label for sample in listed.samples}
    samples = tuple(
        replace(sample, label=known[path])
        for sample in whole.samples
        if (path := os.path.realpath(sample.path)) in known
    )
    if not samples:
        raise MethodError(
            f'"{labels}" labels none of the {len(whole.samples)} pictures: expected their paths in '
            "its column path, relative to the file."
        )
    return replace(whole, samples=samples)


def prepare(drawn: LabelledSet, options: dict[str, Any], say: Any) -> Evaluation:
    """The run of the shelf over the draw."""
    from tpt.evaluate.advice import list_shelf
    from tpt.evaluate.evaluation import EvalSettings
    from tpt.evaluate.method_pool import Starts
    from tpt.evaluate.method_specs import parse_methods
    from tpt.evaluate.walks import plan_walks
    from tpt.model.load import load_clip
    from tpt.streaming.predict_settings import DEFAULT_MODEL

    methods = options["methods"]
    if not methods:
        clip = load_clip(
            options["model"] or DEFAULT_MODEL, options["pretrained"], device="cpu", precision="fp32"
        )
        methods = list_shelf(clip.logit_scale)
        say(f"The model's logit scale is {clip.logit_scale:.0f}; TPT's published rate is for 100.")
    wanted = fill(EvalSettings, options, specs=parse_methods(methods), starts=Starts({}))
    return build(wanted, plan_walks([drawn]), say)


def predict(evaluation: Evaluation, options: dict[str, Any], quiet: bool) -> list[dict[str, Any]]:
    """The draw's lines, with progress."""
    (walk,) = evaluation.walks
    size = options["batch_size"] or evaluation.batch_size
    tally, lines = Tally(total=len(walk.set.samples)), []
    run = evaluation.run(walk, batch_size=size, num_workers=options["num_workers"])
    with progress(quiet) as show, closing(run):
        for line in run:
            lines.append(line)
            tally.add(line)
            show(tally)
    if tally.failed == tally.done:
        raise MethodError(
            f"None of the pictures gave a prediction ({lines[0]['error']['message']})."
            if lines
            else "There are no pictures. Name a folder that holds some."
        )
    return lines


def tell(
    evaluation: Evaluation,
    lines: list[dict[str, Any]],
    labelled: bool,
    pictures: str,
    options: dict[str, Any],
    say: Any,
) -> None:
    """Print the table, the advice and the command; without labels, name pictures to label."""
    from tpt.evaluate.advice import advise, find_changed, make_rows
    from tpt.evaluate.method_specs import BASELINE

    (walk,) = evaluation.walks
    (methods,) = evaluation.methods(walk).values()
    count, views = len(walk.set.classes), evaluation.views.n
    rows = make_rows(lines, methods, count, views, labelled=labelled, baseline=BASELINE)
    changed = find_changed(lines)
    done = sum("error" not in line for line in lines)
    advice = advise(rows, done, len(changed))
    click.echo(table(rows))
    if not labelled and changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5:,} more" * (len(changed) > 5))
        say(f"Answers differ on: {shown}")
    click.echo(f"\n{advice.sentence}")
    click.echo(write_command(advice.method, pictures, walk.set.classes, options))


def table(rows: list[Row]) -> str:
    """A line for each method, with its figures."""
    head = f"{'method':16} {'ms':>7} {'agrees':>7} {'sure':>6} {'entropy':>8}"
    labelled = rows[0].metrics is not None
    if labelled:
        head += f" {'top-1':>6} {'against zero-shot, points':>27} {'p':>7} {'ECE 15':>7}"
    lines = [head]
    for row in rows:
        sure = "" if row.confidence is None else f"{100 * row.confidence:.1f}"
        sharp = "" if row.entropy is None else f"{row.entropy:.3f}"
        line = f"{row.name:16} {row.ms:>7.1f} {100 * row.agreement:>7.1f} {sure:>6} {sharp:>8}"
        lines.append(line + (tell_metrics(row) if labelled else ""))
    return "\n".join(line.rstrip() for line in lines)


def tell_metrics(row: Row) -> str:
    assert row.metrics is not None
    found, versus = row.metrics.metrics, row.metrics.versus
    ece = "" if found["ece15"] is None else f"{100 * found['ece15']:.1f}"
    gain, p = "", ""
    if versus is not None:
        low, high = (100 * end for end in versus.interval)
        gain = f"{100 * versus.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        p = f"{versus.mcnemar_p:.3f}"
    return f" {100 * (found['acc1'] or 0):>6.1f} {gain:>27} {p:>7} {ece:>7}"


def write_command(name: str, pictures: str, classes: Sequence[str], options: dict[str, Any]) -> str:
    """The `tpt predict` command for a method, whose name is written as in `--methods`."""
    method, *settings = name.split(":")
    words = ["tpt", "predict", pictures if os.path.isdir(pictures) else "IMAGES"]
    words += ["--classes", options["classes"] or ",".join(classes)]
    words += ["--recursive"] if options["classes"] is None else []
    for option in ("model", "pretrained"):
        if options[option] is not None:
            words += [f"--{option}", options[option]]
    words += ["--method", method.replace("-", "_")]
    for setting in settings:
        key, _, value = setting.partition("=")
        own = key in ("keep", "steps", "lr", "reset")
        words += [f"--{key}", value] if own else ["--set", setting]
    return shlex.join(words)
