"""`tpt transfer`: prompts learned on each data set, tested on all of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import Say, build, check_extra, measuring, predict_all, telling_warnings
from cli.failures import interruptible, plain_errors
from cli.option_values import read_shared
from cli.options import (
    AT_LEAST_ONE,
    adaptation_options,
    fill,
    machine_options,
    number_option,
    pretrained_option,
    run_options,
    screen_option,
)
from cli.train import watching
from cli.transfer_plan import TransferPlan, plan_run

if TYPE_CHECKING:
    from tpt.evaluate.evaluation import Evaluation


@click.command("transfer")
@click.argument("sets", nargs=-1, required=True, metavar="SET...")
@click.option(
    "--prompt",
    "given",
    multiple=True,
    metavar="NAME=FILE",
    help="A prompt that exists; NAME is the set that it was learned on, or any other name.",
)
@click.option(
    "--sources",
    metavar="NAME,...",
    help="Sets to learn prompts on [all; none if there is a --prompt].",
)
@click.option(
    "--output", "folder", required=True, metavar="DIR", help="Folder for all that is written."
)
@number_option("--shots", AT_LEAST_ONE, 16, "Pictures a class to learn from.")
@click.option("--epochs", type=AT_LEAST_ONE, help="Of each training [50, 100 or 200 by shots].")
@click.option(
    "--methods",
    multiple=True,
    default=("zero-shot",),
    show_default="zero-shot",
    metavar="A,B,...",
    help="Each has a matrix of its own, for example zero-shot,tpt; `tpt methods` lists them.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Test on at most N pictures of each set, for a first look.",
)
@click.option(
    "--model",
    help="open_clip name, hf-hub:..., local-dir:... or lite. Default: the first --prompt's own "
    "model, else lite, the embedded model.",
)
@pretrained_option
@adaptation_options
@machine_options
@screen_option
@run_options
def command(sets: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Learn a prompt on each SET and test it on all of them: a matrix and its heat map.

    \b
    tpt transfer photo/ sketch/ birds=cub/ --output out/
    tpt transfer photo/ sketch/ --prompt photo=a.safetensors --output out/

    A SET is what `tpt eval` takes: a path, or NAME=PATH. Prompts start from the words "a photo of
    a" and are learned as `tpt train` does it; --seed draws their pictures too. They learn from the
    train folder where a SET has one beside test or val. Where it has none, the pictures that are
    learned from are left out of the test.

    DIR gets prompts/, predictions.jsonl, transfer.json, tables.md, tables.tex and heatmap.png. The
    table goes to standard output: a row for each prompt, the untrained words first, and a column
    for each SET.
    """
    say: Say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    with plain_errors():
        check_extra("transfer", ("torchmetrics", "sklearn", "scipy", "matplotlib"))
        from tpt.evaluate.predictions import claim_folder

        plan = plan_run(sets, options, say)
        again = options["resume"], options["overwrite"]
        with claim_folder(plan.journal, plan.walks, *again), telling_warnings(say):
            unread = learn(plan, options, quiet)
            evaluation = load_evaluation(plan, options, say)
            failed = predict_all(evaluation, plan.journal, options, quiet)
            finish(evaluation, plan, options["folder"], say)
    if failed or unread:
        raise click.exceptions.Exit(3)


def learn(plan: TransferPlan, options: dict[str, Any], quiet: bool) -> int:
    """Learn the prompts that are missing; return how many pictures could not be read."""
    from coop.transfer_prompts import learn_prompts

    if not plan.sources:
        return 0
    with interruptible(lambda: "Interrupted. Go on with --resume."), watching(quiet) as watch:
        results = learn_prompts(
            plan.sources, plan.outputs, plan.learning, watch, resume=options["resume"]
        )
    return sum(len(result["failed"]) for result in results.values())


def load_evaluation(plan: TransferPlan, options: dict[str, Any], say: Say) -> Evaluation:
    """The run that tests every prompt on every set."""
    from tpt.evaluate.evaluation import EvalSettings
    from tpt.evaluate.method_pool import Starts
    from tpt.evaluate.transfer import SETTING, cross_methods, name_keys

    keys = name_keys(row.name for row in plan.prompts)
    wanted = fill(
        EvalSettings,
        options,
        specs=cross_methods(options["methods"], tuple(keys.values()), read_shared(options)),
        starts=Starts({keys[row.name]: row.path for row in plan.prompts}, (), options["force"]),
        model=plan.learning.model,
        pretrained=plan.learning.pretrained,
    )
    evaluation = build(wanted, plan.walks, say)
    settings = {**evaluation.settings, SETTING: describe_learning(plan)}
    return replace(evaluation, settings=settings)


def describe_learning(plan: TransferPlan) -> dict[str, Any]:
    """What the run's settings say of its prompts."""
    learning, recipe = plan.learning, plan.learning.recipe
    facts = {"shots": learning.shots[0], "epochs": recipe.epochs, "words": recipe.context_words}
    return {
        "prompts": [row.name for row in plan.prompts],
        "learned": [source.name for source in plan.sources],
        **(facts if plan.sources else {}),
    }


def finish(evaluation: Evaluation, plan: TransferPlan, folder: str, say: Say) -> None:
    """Measure, write and draw, and print the table."""
    from tpt.evaluate.results import write_results
    from tpt.evaluate.transfer import name_keys
    from tpt.evaluate.transfer_measure import measure_transfer
    from tpt.report.writer import write_report

    keys = name_keys(row.name for row in plan.prompts)
    prompts = {keys[row.name]: row for row in plan.prompts}
    say("Measuring ...")
    with measuring():
        content = measure_transfer(evaluation, prompts, plan.journal.path)
        write_results(content, os.path.join(folder, "transfer.json"))
        table, picture = write_report(Path(folder))
    click.echo(table)
    say(f"Heat map: {picture}")
