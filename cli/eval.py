"""`tpt eval`: how good, how calibrated and how much better than plain CLIP, on shift sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import (
    Say,
    build,
    check_extra,
    measuring,
    predict_all,
    read_one,
    split_name,
    telling_warnings,
)
from cli.failures import plain_errors
from cli.jacobian import tell_jacobian
from cli.option_values import read_classes, read_shared, read_templates
from cli.options import (
    adaptation_options,
    all_files_option,
    fill,
    machine_options,
    model_options,
    run_options,
    speed_options,
    template_option,
)
from cli.outside import describe_outsides, judge_others, read_outsides, tell_outside

if TYPE_CHECKING:
    from tpt.data.labelled_sets import LabelledSet, ReadOptions
    from tpt.evaluate.evaluation import Evaluation
    from tpt.evaluate.walks import Walk
    from tpt.runs.journal import Journal


@click.command("eval")
@click.argument("sets", nargs=-1, required=True, metavar="SET...")
@click.option(
    "--methods",
    multiple=True,
    default=("zero-shot,tpt",),
    show_default="zero-shot,tpt",
    metavar="A,B,...",
    help="`tpt methods` lists them. tpt+init starts from the prompt of --init, "
    "zero-shot+ensemble from several templates, tpt:lr=0.02 has a setting of its own.",
)
@click.option(
    "--init",
    "inits",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Prompt file that methods start from: those that say +init (or +NAME), or all if none "
    "does.",
)
@click.option(
    "--clean",
    metavar="SET",
    help="The set that the others are shifts of: accuracies are compared over the same classes.",
)
@click.option(
    "--corrupt",
    metavar="KIND:SEVERITY,...",
    help="Evaluate the sets under corruptions too, for example gaussian_noise:3,contrast:5 or "
    "all:1-5. `tpt corrupt --help` lists the kinds.",
)
@click.option(
    "--output", "folder", required=True, metavar="DIR", help="Folder for all that is written."
)
@click.option(
    "--classes",
    metavar="A,B,C|FILE|NAME",
    help="Class names in the order wanted; id=name maps a folder, number or WordNet id; imagenet, "
    "imagenet-a or imagenet-r for those lists. Default: the set's own.",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="Class names and template of one of CoOp's eleven data sets, for example caltech101.",
)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="How the sets are stored: folders, wnid, numbers, domains, corruptions, cifar, "
    "table, tars, or auto.",
)
@all_files_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Draw at most N pictures of each set, for a first look.",
)
@click.option(
    "--order",
    metavar="shuffled|sorted|blocks:N",
    help="The order of each set's pictures, for methods with state: shuffled, sorted by class, or "
    "N pictures of one class in a row. Default: as the set has them.",
)
@click.option(
    "--outside",
    "outsides",
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="Pictures of none of the classes, to measure how well each method's confidence tells them "
    "apart (AUROC, FPR at 95 %, and false alarms and misses at a threshold).",
)
@click.option(
    "--reject",
    metavar="THRESHOLD|off",
    help="The threshold for --outside, as `tpt predict` has it. Default: that of the --init file.",
)
@click.option(
    "--protocol",
    type=click.Choice(["shift", "base-to-new"]),
    default="shift",
    show_default=True,
    help="base-to-new evaluates the two halves of the classes separately.",
)
@model_options
@template_option(
    'One: the words that methods start from, instead of "a photo of a {}.". Several, or a '
    "file: what +ensemble uses."
)
@adaptation_options
@machine_options
@speed_options
@run_options
@click.option("--dry-run", is_flag=True, help="Read and check everything, print it, stop.")
def command(sets: tuple[str, ...], quiet: bool, dry_run: bool, **options: Any) -> None:
    """Evaluate methods on the shift sets SET..., and write tables and a report page.

    \b
    A SET is a path, or NAME=PATH to give it a name:
      a folder a class, by name or by WordNet id (ImageNet, -A, -R, -Sketch);
      ImageNet-V2 (folders 0 to 999); <domain>/<class> (PACS, DomainNet);
      <corruption>/<severity>/<class> (ImageNet-C, and what `tpt corrupt` writes);
      CIFAR-10-C and CIFAR-10.1 arrays; a CSV with columns path and label;
      webdataset tars with classnames.txt.
    The command first prints which layout it found; --layout chooses one.

    DIR gets predictions.jsonl, results.json, tables.md, tables.tex and report.html. All methods see
    the same views of the same pictures, encoded once. The table goes to standard output.
    """
    say: Say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    with plain_errors():
        check_extra("eval", ("torchmetrics", "sklearn", "scipy", "jinja2"))
        from tpt.evaluate.predictions import claim_folder, open_folder

        folder, again = options["folder"], (options["resume"], options["overwrite"])
        journal = open_folder(folder, *again, dry_run)
        walks = plan_walks(sets, options, say)
        outsides = read_outsides(options, say)
        if dry_run:
            evaluation = load_evaluation(options, walks, say)
            tuned = {e: n for walk in walks for e, n in evaluation.tuned_engines(walk).items()}
            for engine, names in tuned.items():
                told = tell_jacobian(engine, options["jacobian"])
                say(f"Jacobian of {len(engine.classes):,} classes for {', '.join(names)}: {told}")
            return
        with claim_folder(journal, walks, *again):
            evaluation = load_evaluation(options, walks, say)
            evaluation.settings.update(describe_outsides(outsides))
            with telling_warnings(say):
                failed = predict_all(evaluation, journal, options, quiet)
                judge_others(evaluation, outsides, folder, options, say)
                finish(evaluation, journal, folder, say)
    if failed:
        raise click.exceptions.Exit(3)


# --- sets ---


def plan_walks(sets: Sequence[str], options: dict[str, Any], say: Say) -> tuple[Walk, ...]:
    """Read the sets, say what was found, and plan the run."""
    from tpt.corrupt.corruptions import parse_corruptions
    from tpt.evaluate.leakage import find_leakage, note_halves
    from tpt.evaluate.order import order_set
    from tpt.evaluate.walks import draw_some, plan_walks

    how, limit, seed = read_options(options), options["limit"], options["seed"]
    taken, learned = look_into(options["inits"])

    def read(text: str) -> list[LabelledSet]:
        found = read_one(text, how, say)
        if limit is not None:
            say(f"  Note: at most {limit:,} pictures of each set are drawn, by --limit.")
            found = tuple(draw_some(part, limit, seed) for part in found)
        if options["order"] is not None:
            found = tuple(order_set(part, options["order"], seed) for part in found)
        noted = [find_leakage(part, taken) for part in found]
        for before, after in zip(found, noted, strict=True):
            for note in after.notes[len(before.notes) :]:
                say(f"  Note: {after.name}: {note}")
        return noted

    corruptions = [] if options["corrupt"] is None else parse_corruptions(options["corrupt"])
    shifts = [part for text in sets for part in read(text)]
    clean = () if options["clean"] is None else read(options["clean"])
    walks = plan_walks(shifts, clean, corruptions, halves=options["protocol"] == "base-to-new")
    return tuple(note_halves(walk, learned) for walk in walks)


def look_into(inits: Sequence[str]) -> tuple[dict[str, frozenset[str]], dict[str, tuple[str, ...]]]:
    """The pictures and the classes that each prompt was learned on, where known, by its name."""
    from coop.transfer_prompts import read_taken
    from tpt.prompts import Context

    taken, learned = {}, {}
    for name, path in dict(name_inits(inits)).items():
        context = Context.load(path)
        taken[name] = read_taken(path, context) or frozenset[str]()
        if context.info.classes is not None:
            learned[name] = context.info.classes
    return taken, learned


def read_options(options: dict[str, Any]) -> ReadOptions:
    """How all sets are read; a class-specific prompt decides the classes."""
    from tpt.data.labelled_sets import ReadOptions
    from tpt.data.presets import find_preset
    from tpt.prompts import Context

    classes = read_classes(options["classes"])
    for path in dict(name_inits(options["inits"])).values() if classes is None else ():
        context = Context.load(path)
        if context.fixed_classes and context.info.classes is not None:
            classes = context.info.classes
    preset = find_preset(options["preset"])
    return ReadOptions(
        layout=options["layout"],
        classes=classes,
        rename=preset.class_name if preset else None,
        ignored=preset.ignored if preset else frozenset(),
        all_files=options["all_files"],
    )


def name_inits(values: Sequence[str]) -> list[tuple[str, str]]:
    """(name, file) of every --init; without a name it is "init"."""
    pairs = [(name or "init", path) for name, path in map(split_name, values)]
    names = [name for name, _ in pairs]
    for name in names:
        if name == "ensemble" or set("+,:") & set(name):
            raise click.BadParameter(
                f'A prompt cannot be called "{name}": expected a name without "+", "," and ":" '
                'that is not "ensemble", which means something else in --methods. Choose another.',
                param_hint="--init",
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.BadParameter(
            f'Two prompt files are called "{twice}". Give them names: --init coop=FILE --init '
            "other=FILE.",
            param_hint="--init",
        )
    return pairs


# --- methods ---


def load_evaluation(options: dict[str, Any], walks: tuple[Walk, ...], say: Say) -> Evaluation:
    """Build the run, and say what was chosen by default."""
    from tpt.data.presets import find_preset
    from tpt.evaluate.evaluation import EvalSettings
    from tpt.evaluate.method_pool import Starts
    from tpt.evaluate.method_specs import parse_methods

    inits, templates = dict(name_inits(options["inits"])), read_templates(options["templates"])
    preset = find_preset(options["preset"])
    if preset and not templates:
        templates = (preset.template,)
    wanted = fill(
        EvalSettings,
        options,
        specs=parse_methods(options["methods"], tuple(inits), read_shared(options)),
        starts=Starts(inits, templates, options["force"]),
    )
    return build(wanted, walks, say)


# --- results ---


def finish(evaluation: Evaluation, journal: Journal, folder: str, say: Say) -> None:
    """Measure, write, and print the table."""
    from tpt.evaluate.measure import measure
    from tpt.report.writer import write_report

    with measuring():
        results = measure(evaluation, journal.path, say)
        table, page = write_report(Path(folder))
    click.echo(table)
    for entry in results.get("outside", ()):
        click.echo(tell_outside(entry))
    say(f"Report: {page}")
