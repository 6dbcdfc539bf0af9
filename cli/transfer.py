"""`tpt transfer`: prompts learned on each data set, tested on all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import (
    Say,
    build,
    check_extra,
    measuring,
    predict_all,
    read_one,
    telling_warnings,
)
from cli.failures import INTERRUPTED, told_plainly
from cli.options import adaptation_options, machine_options, run_options
from cli.predict import read_assignments
from cli.train import watching

if TYPE_CHECKING:
    from coop.outputs import Outputs
    from coop.transfer import Learning, Source
    from tpt.runtime.output import Target
    from tpt.shift.evaluate import Evaluation
    from tpt.shift.plan import Walk
    from tpt.shift.sets import ShiftSet
    from tpt.shift.transfer import Prompt


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
@click.option(
    "--shots",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Pictures a class to learn from.",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Of each training [50, 100 or 200 by shots]."
)
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
    help="open_clip name, hf-hub:..., local-dir:... or tiny. Default: the first --prompt's own "
    "model, else tiny, the embedded stand-in.",
)
@click.option("--pretrained", help="Tag or weight file of an open_clip model; random for random.")
@adaptation_options
@machine_options
@run_options
def command(sets: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Learn a prompt on each SET and test each prompt on all of them: a matrix and its heat map.

    \b
    tpt transfer photo/ sketch/ birds=cub/ --output out/
    tpt transfer photo/ sketch/ --prompt photo=a.safetensors --output out/

    A SET is what `tpt eval` takes: a path, or NAME=PATH. Prompts start from the words "a photo of
    a" and are learned as `tpt train` does it; --seed draws their pictures too. They learn from the
    train folder where a SET has one beside test or val. Where it has none, the pictures that are
    learned from are left out of the test.

    DIR gets prompts/, predictions.jsonl, transfer.json, tables.md, tables.tex and heatmap.png. The
    table goes to standard output: a row a prompt, a column a SET, first the words unlearned.
    """
    say: Say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    with told_plainly():
        check_extra("transfer", ("torchmetrics", "sklearn", "scipy", "matplotlib"))
        plan = plan_run(sets, options, say)
        with telling_warnings(say):
            unread = learn(plan, options, quiet)
            evaluation = load_evaluation(plan, options, say)
            failed = predict_all(evaluation, plan.target, options, quiet)
            finish(evaluation, plan, options["folder"], say)
    if failed or unread:
        raise click.exceptions.Exit(3)


# --- planning ---


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is known before a model is loaded."""

    target: Target
    walks: tuple[Walk, ...]  # through what is tested
    sources: tuple[Source, ...]  # what is learned from
    outputs: Mapping[str, Outputs]  # where each source's prompt goes
    prompts: tuple[Prompt, ...]  # the rows
    learning: Learning


def plan_run(texts: Sequence[str], options: dict[str, Any], say: Say) -> Plan:
    """Read the sets and the prompts, and decide who learns from what and is tested on what."""
    from coop.transfer import check_sources, find_source
    from tpt.errors import SourceError
    from tpt.shift.plan import draw_some, make_plan
    from tpt.shift.predictions import check_outside, open_folder
    from tpt.shift.sets import ReadOptions
    from tpt.shift.transfer import check_folder, leave_out

    folder, resume, overwrite = options["folder"], options["resume"], options["overwrite"]
    check_folder(folder)
    target = open_folder(folder, resume, overwrite)
    given = read_given(options["given"])
    check_methods(options)
    read = [part for text in texts for part in read_one(text, ReadOptions(), say)]
    if len(read) < 2:
        raise SourceError(
            f'There is one set only, "{read[0].name}", and nothing to transfer to: expected at '
            "least two. Name another one."
        )
    check_outside(folder, make_plan(read))  # and no two sets of one name
    names = choose_sources(
        [part.name for part in read], [p.name for p in given], options["sources"]
    )
    learning = read_learning(options, given)
    sources = tuple(find_source(part, learning) for part in read if part.name in names)
    given, taken = look_into(given, read, say)
    taken |= tell_sources(sources, say)
    free = [leave_out(part, taken) for part in read]
    for before, after in zip(read, free, strict=True):
        for note in after.notes[len(before.notes) :]:
            say(f"{after.name}: {note}")
    limit = options["limit"]
    tested = [draw_some(part, limit, options["seed"]) if limit else part for part in free]
    outputs = check_sources(folder, sources, learning, resume=resume, overwrite=overwrite)
    rows = (*given, *rows_of(sources, outputs))
    order = {part.name: place for place, part in enumerate(read)}
    rows = tuple(sorted(rows, key=lambda row: order.get(row.name, len(order))))
    return Plan(target, make_plan(tested), sources, outputs, rows, learning)


def read_given(values: Sequence[str]) -> tuple[Prompt, ...]:
    """The prompts of --prompt NAME=FILE.

    Raises:
        BadParameter: not of that form, or two of one name.
    """
    from tpt.shift.transfer import Prompt

    prompts = []
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise click.BadParameter(
                f'"{value}" is not NAME=FILE: expected the name of a row, "=" and a prompt file, '
                f"for example photo={path or value or 'photo.safetensors'}.",
                param_hint="--prompt",
            )
        prompts.append(Prompt(name, path))
    twice = [
        name for name, count in Counter(prompt.name for prompt in prompts).items() if count > 1
    ]
    if twice:
        raise click.BadParameter(
            f'Two prompts are called "{twice[0]}", and each is a row of its own. Give them '
            "different names.",
            param_hint="--prompt",
        )
    return tuple(prompts)


def choose_sources(sets: Sequence[str], given: Sequence[str], asked: str | None) -> tuple[str, ...]:
    """The names of the sets to learn on.

    Raises:
        BadParameter: no such set, or one whose prompt is given.
    """
    from tpt.errors import suggest

    if asked is None:
        return () if given else tuple(sets)
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in sets:
            raise click.BadParameter(
                f'There is no set "{name}" to learn on.{suggest(name, sets)} Expected some of '
                f"{', '.join(sets)}.",
                param_hint="--sources",
            )
        if name in given:
            raise click.BadParameter(
                f'The prompt of "{name}" is given with --prompt, so none is to be learned. Leave '
                "one of the two out, or give the prompt another name.",
                param_hint="--sources",
            )
    if not names and not given:
        raise click.BadParameter(
            "It names no set and there is no --prompt, so there would be no row. Name some of "
            f"{', '.join(sets)}.",
            param_hint="--sources",
        )
    return names


def read_learning(options: dict[str, Any], given: Sequence[Prompt]) -> Learning:
    """How prompts are learned, for the model of the run."""
    from coop.transfer import Learning
    from tpt.prompts import Context
    from tpt.runtime.job import JobSettings, choose_model

    first = given[0].path if given else None
    job = JobSettings(model=options["model"], pretrained=options["pretrained"], init=first)
    model, pretrained = choose_model(job, None if first is None else Context.load(first))
    same = ("shots", "seed", "epochs", "device", "precision", "num_workers")
    return Learning(model=model, pretrained=pretrained, **{name: options[name] for name in same})


def look_into(
    given: Sequence[Prompt], read: Sequence[ShiftSet], say: Say
) -> tuple[tuple[Prompt, ...], frozenset[str]]:
    """The given prompts with notes, and the pictures that they were learned on."""
    from coop.transfer import read_taken
    from tpt.shift.transfer import check_prompt

    sets = {part.name for part in read}
    told, taken = [], frozenset[str]()
    for prompt in given:
        context = check_prompt(prompt)
        own = read_taken(prompt.path, context)
        taken |= own or frozenset()
        if own is None and prompt.name in sets:
            note = (
                "which pictures it was learned on is not known, for want of its .files.csv; if "
                f'some of them are tested, its number on "{prompt.name}" is too good.'
            )
            say(f'Note: prompt "{prompt.name}": {note}')
            prompt = replace(prompt, notes=(note,))
        told.append(prompt)
    return tuple(told), taken


def tell_sources(sources: Sequence[Source], say: Say) -> frozenset[str]:
    """Say what each prompt is learned from; the pictures to leave out of the tests."""
    taken = frozenset[str]()
    for source in sources:
        count = len(source.dataset.train)
        where = "its training pictures" if source.apart else "its pictures"
        say(f"{source.name}: learns from {len(source.drawn):,} of {where} ({count:,}).")
        taken |= source.taken
    return taken


def rows_of(sources: Sequence[Source], outputs: Mapping[str, Outputs]) -> Iterator[Prompt]:
    """The rows of the prompts that are learned here."""
    from tpt.shift.transfer import Prompt

    for source in sources:
        where = "the set's training pictures" if source.apart else "pictures that are not tested"
        path = str(outputs[source.name].path)
        yield Prompt(source.name, path, (f"learned in this run, from {where}.",))


# --- running ---


def learn(plan: Plan, options: dict[str, Any], quiet: bool) -> int:
    """Learn the prompts that are not there yet; how many pictures could not be read."""
    from coop.transfer import learn_prompts

    if not plan.sources:
        return 0
    try:
        with watching(quiet) as watch:
            results = learn_prompts(
                plan.sources, plan.outputs, plan.learning, watch, resume=options["resume"]
            )
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Go on with --resume.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    return sum(len(result["failed"]) for result in results.values())


def read_shared(options: dict[str, Any]) -> dict[str, Any]:
    """Settings for all methods that have them."""
    shared = {name: options[name] for name in ("keep", "steps", "lr", "reset")}
    return shared | read_assignments(options["assignments"])


def check_methods(options: dict[str, Any]) -> None:
    """Refuse, before anything is learned, methods and settings that do not go together."""
    from tpt.shift.evaluate import EvalSettings, check_options
    from tpt.shift.shelf import Starts
    from tpt.shift.transfer import cross_methods

    specs = cross_methods(options["methods"], (), read_shared(options))
    seen = {name: options[name] for name in ("views", "augment", "gate", "gate_views")}
    check_options(EvalSettings(specs, Starts({}), **seen))


def load_evaluation(plan: Plan, options: dict[str, Any], say: Say) -> Evaluation:
    """The run that tests every prompt on every set."""
    from tpt.shift.evaluate import EvalSettings
    from tpt.shift.shelf import Starts
    from tpt.shift.transfer import SETTING, cross_methods, name_keys

    keys = name_keys(row.name for row in plan.prompts)
    same = ("views", "augment", "gate", "gate_views", "precision", "device", "seed")
    wanted = EvalSettings(
        specs=cross_methods(options["methods"], tuple(keys.values()), read_shared(options)),
        starts=Starts({keys[row.name]: row.path for row in plan.prompts}, (), options["force"]),
        model=plan.learning.model,
        pretrained=plan.learning.pretrained,
        **{name: options[name] for name in same},
    )
    evaluation = build(wanted, plan.walks, say)
    settings = {**evaluation.settings, SETTING: describe_learning(plan)}
    return replace(evaluation, settings=settings)


def describe_learning(plan: Plan) -> dict[str, Any]:
    """What the settings of the run say of its prompts."""
    learning = plan.learning
    facts = {"shots": learning.shots, "epochs": learning.epochs, "words": "a photo of a"}
    return {
        "prompts": [row.name for row in plan.prompts],
        "learned": [source.name for source in plan.sources],
        **(facts if plan.sources else {}),
    }


def finish(evaluation: Evaluation, plan: Plan, folder: str, say: Say) -> None:
    """Measure, write and draw, and print the table."""
    from tpt.shift.transfer import conclude_transfer, name_keys
    from tpt.shift.transfer_tables import console_table

    keys = name_keys(row.name for row in plan.prompts)
    prompts = {keys[row.name]: row for row in plan.prompts}
    say("Measuring ...")
    with measuring():
        transfer = conclude_transfer(evaluation, prompts, plan.target.path)
    click.echo(console_table(transfer))
    say(f"Heat map: {os.path.join(folder, 'heatmap.png')}")
