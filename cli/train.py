"""`tpt train`: learn a prompt from a few labelled pictures a class."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.failures import interruptible, plain_errors
from cli.option_values import read_classes, read_templates
from cli.options import (
    NOTE_EMBEDDED,
    all_files_option,
    device_options,
    fill,
    quiet_option,
    tag_option,
    tell_model,
    template_option,
)

if TYPE_CHECKING:
    from coop.outputs import Outputs
    from coop.runs import Result
    from coop.train_job import TrainJob

HEADS = ("tip-adapter", "tip-adapter-f", "gda", "lpp")
METHODS = ("coop", "cocoop", "e2mim", "kgcoop", "linear-probe", *HEADS)


def read_numbers(word: str | None = None) -> Callable[..., tuple[int | None, ...]]:
    """A click callback for whole numbers separated by commas; `word` stands for None."""

    def read(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int | None, ...]:
        parts = [part.strip() for part in value.split(",")]
        for part in parts:
            if part != word and not part.isdecimal():
                also = f" or {word}" if word else ""
                raise click.BadParameter(
                    f'"{part}" is not a whole number{also}. Expected for example 1,2,4.'
                )
        return tuple(None if part == word else int(part) for part in parts)

    return read


def read_view_count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A click callback for a number of views, or `off` for 0."""
    if value is None or value == "off":
        return None if value is None else 0
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f'"{value}" is neither a number of views from 1 on nor off.')
    return int(value)


@click.command("train")
@click.argument("data", metavar="DATA")
@click.option("--output", required=True, metavar="FILE", help="Prompt file to write.")
@click.option("--method", type=click.Choice(METHODS), default="coop", show_default=True)
@click.option(
    "--shots",
    callback=read_numbers("all"),
    default="16",
    show_default=True,
    metavar="N,...|all",
    help="Pictures a class. Several numbers draw the accuracy-by-shots curve.",
)
@click.option(
    "--seeds",
    callback=read_numbers(),
    default="1",
    show_default=True,
    metavar="N,...",
    help="Seeds of the draw, the start and the order. The papers take 1,2,3.",
)
@click.option("--model", default="lite", show_default=True, help="As `tpt predict` takes it.")
@tag_option
@click.option("--context-length", type=click.IntRange(1), help="M random vectors [coop: 16].")
@click.option(
    "--context-words",
    metavar="TEXT",
    help='Start from words [cocoop, kgcoop, e2mim: "a photo of a"].',
)
@click.option("--class-specific", is_flag=True, default=None, help="One context a class.")
@click.option(
    "--position",
    type=click.Choice(["end", "middle", "front"]),
    help="Where the class name stands [end].",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="[coop, e2mim: 50, 100 or 200 by shots; cocoop: 10; kgcoop: 100; tip-adapter-f: 20; "
    "lpp: 300]",
)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), help="Peak rate [0.002; tip-adapter-f: 0.001]."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="[coop, e2mim: 32; cocoop: 1; kgcoop: 128; tip-adapter-f: 256]",
)
@click.option("--augment", type=click.Choice(["crop", "none"]), help="Of training views [crop].")
@click.option(
    "--cache-views",
    callback=read_view_count,
    metavar="R|off",
    help="Encode R views of each picture once and train on their features [16 on a CPU, else "
    "off: new views every epoch, as published; heads: 10].",
)
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names in the order wanted; label=name gives a folder's label its name.",
)
@click.option(
    "--classes-split",
    type=click.Choice(["all", "base", "new"]),
    default="all",
    show_default=True,
    help="base: train on the first half of the classes, test on both.",
)
@click.option("--preset", metavar="NAME", help="Names and template of a CoOp data set, caltech101.")
@template_option(
    'Hand-crafted prompt to compare with, and for kgcoop and e2mim ["a photo of a {}."].'
)
@click.option("--val", metavar="PATH", help="Validation pictures [up to 4 a class of DATA's].")
@click.option(
    "--test",
    metavar="PATH|none",
    help="Test pictures [those of DATA, or all that were not drawn]; none measures nothing.",
)
@all_files_option
@click.option("--kg-weight", type=float, help="kgcoop's lambda [8].")
@click.option("--alpha", type=float, help="e2mim: share of the soft prompt [0.5]; 1: no ensemble.")
@click.option("--mi-text", type=float, help="e2mim: weight of the text term [1]; 0: off.")
@click.option("--mi-image", type=float, help="e2mim: weight of the image term [1]; 0: off.")
@click.option("--mixup", type=float, help="e2mim: Beta's parameter [0.4]; 0: no mixing.")
@click.option("--critic/--no-critic", default=None, help="e2mim: learn the bilinear critic [yes].")
@click.option(
    "--head-weight",
    type=float,
    help="tip-adapter, gda: alpha, beside zero-shot [chosen on validation pictures].",
)
@click.option("--beta", type=float, help="tip-adapter's beta [chosen on validation pictures].")
@device_options
@click.option("--log", metavar="FILE", help="JSONL log [the output's name with .jsonl].")
@click.option("--resume", is_flag=True, help="Go on where an earlier start into --output stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --output.")
@quiet_option
def command(data: str, **options: Any) -> None:
    """Learn a prompt, or a head on image features, from a few labelled pictures of each class.

    DATA is a folder with one sub-folder a class (or train/ and test/ of that form), a CSV file
    with columns path, label and, if wanted, split, or a split_zhou_*.json of CoOp's data sets.

    A log, the list of the pictures used and a model card are written beside the prompt file; `tpt
    predict images/ --init FILE` starts from the prompt. Class names are those of the folders.
    tip-adapter, tip-adapter-f, gda and lpp are heads and take seconds. They answer for these
    classes alone, with the methods of `tpt predict` that tune nothing (zero_shot, vte, zero, mta,
    tda, --gate).
    """
    with plain_errors():
        code = run(data, options)
    if code:
        raise click.exceptions.Exit(code)


def run(data: str, options: dict[str, Any]) -> int:
    """Train and print the results; return the exit code."""
    from coop.outputs import Outputs, claim_outputs
    from coop.runs import run_job
    from coop.train_job import build_train_job

    wanted = read_settings(data, options)
    log = Path(options["log"]) if options["log"] else None
    outputs = Outputs(Path(options["output"]), len(wanted.runs) > 1, log)
    claim = claim_outputs(
        outputs,
        wanted.runs,
        probe=options["method"] == "linear-probe",
        resume=options["resume"],
        overwrite=options["overwrite"],
    )
    stopped = interruptible(lambda: "Interrupted. Go on with --resume.")
    with claim, stopped, watching(options["quiet"]) as watch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # a broken picture is told by its name
        job = build_train_job(wanted)
        tell_job(job, options["precision"], watch)
        results = run_job(job, outputs, watch, resume=options["resume"])
    click.echo(describe_results(results))
    tell_files(job, outputs, watch)
    return 3 if any(result["failed"] or result.get("unread") for result in results) else 0


def read_settings(data: str, options: dict[str, Any]) -> Any:
    """`TrainSettings` of the command's options."""
    from coop.recipes import RecipeSettings
    from coop.train_job import TrainSettings

    return fill(
        TrainSettings,
        options,
        data=data,
        recipe=fill(RecipeSettings, options),
        classes=read_classes(options["classes"]),
        templates=read_templates(options["templates"]),
    )


def tell_job(job: TrainJob, asked: str, watch: Any) -> None:
    """Say what the job trains on and with."""
    data, wanted = job.dataset, job.settings
    watch.say(
        f"{data.name}: {len(data.train):,} pictures of {len(data.classes)} classes to draw from"
        + (f", {len(data.test):,} to test on" if data.test else "")
        + f" ({data.layout})."
    )
    if wanted.model == "lite":
        watch.say(NOTE_EMBEDDED)
    tell_model(job.clip, asked, "what is learned means", watch.say)


def describe_results(results: Sequence[Result]) -> str:
    """A line for each run: accuracies of what was learned and of the hand-crafted prompt."""
    from coop.card import percent

    kinds = [k for k in ("val", "test", "new") if any(k in r["accuracy"] for r in results)]
    titles = "".join(f"{kind:>8}{'hand':>8}" for kind in kinds)
    lines = [f"{'shots':>5} {'seed':>4} {'pictures':>8}{titles}  file"]
    for result in results:
        cells = "".join(
            f"{percent(result[of].get(kind)):>8}"
            for kind in kinds
            for of in ("accuracy", "template_accuracy")
        )
        lines.append(
            f"{result['shots']:>5} {result['seed']:>4} {result['images']:>8}{cells}  "
            f"{result['file']}"
        )
    return "\n".join(lines)


def tell_files(job: TrainJob, outputs: Outputs, watch: Any) -> None:
    made = [outputs.card, outputs.files, outputs.log]
    if job.is_curve:
        made += [path for path in (outputs.curve_csv, outputs.curve_png) if path.exists()]
    watch.say(f"Beside it: {', '.join(path.name for path in made)}.")


# --- progress ---


@contextmanager
def watching(quiet: bool) -> Iterator[Any]:
    """Yield a watch: bars on a terminal, plain lines elsewhere, nothing but warnings if quiet."""
    from cli.train_progress import Bars, Plain, Silent

    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        yield Plain()
