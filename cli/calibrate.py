"""`tpt calibrate`: one temperature for honest scores, and a threshold for "none of these"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import check_extra, list_pictures, read_single
from cli.failures import plain_errors
from cli.option_values import (
    check_prompt_output,
    read_classes,
    read_names,
    read_prediction,
)
from cli.options import (
    adaptation_options,
    force_option,
    machine_options,
    quiet_option,
    tag_option,
)
from cli.progress import Tally, progress
from cli.prompt_text import table
from tpt.errors import MethodError

if TYPE_CHECKING:
    from tpt.data.labelled_sets import Sample
    from tpt.streaming.predict_job import PredictJob


@click.command("calibrate")
@click.argument("data", metavar="DATA")
@click.option("--output", required=True, metavar="FILE", help="Prompt file to write.")
@click.option("--init", metavar="FILE", help="Prompt file to calibrate; it stays as it is.")
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names; id=name entries give folders their names. Default: DATA's, or --init's.",
)
@click.option("--method", default="tpt", show_default=True, help="`tpt methods` lists them.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help='Words to start from. Default: "a photo of a {}".',
)
@click.option(
    "--unlabelled",
    is_flag=True,
    help="DATA is a folder or glob of pictures without labels: no temperature is fitted, only the "
    "threshold of --false-alarms.",
)
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Set a threshold below which a picture is none of the classes, so that at most this share "
    "of DATA's pictures is rejected; 0.05, say.",
)
@click.option(
    "--rule",
    type=click.Choice(["probability", "energy"]),
    default="probability",
    show_default=True,
    help="What the threshold applies to: the largest probability, or the energy of the logits.",
)
@click.option("--layout", default="auto", show_default=True, help="As `tpt eval` has it.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Draw at most N pictures.")
@click.option("--model", help="As `tpt predict` takes it.")
@tag_option
@adaptation_options
@machine_options
@click.option("--overwrite", is_flag=True, help="Replace an existing --output.")
@force_option
@quiet_option
def command(data: str, quiet: bool, **options: Any) -> None:
    """Fit how a method's scores are read, and save it with the prompt.

    DATA are labelled pictures of the kind to be predicted, in any layout that `tpt eval` reads.
    One temperature makes the scores as sure as they are right; it changes no prediction. `tpt
    predict --init FILE`, `tpt serve` and `tpt eval` use it with the method that it was fitted for.
    """
    say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    with plain_errors():
        check_extra("calibrate", ("torchmetrics", "sklearn", "scipy"))
        check_prompt_output(options["output"], options["overwrite"])
        if options["unlabelled"] and options["false_alarms"] is None:
            raise MethodError(
                "Without labels there is no temperature to fit, only a threshold. Give "
                "--false-alarms 0.05, say, or labelled pictures."
            )
        samples, classes = read_data(data, options, say)
        job = load_job(options, classes, say)
        failed = calibrate(job, samples, options, quiet)
        say(f"Use it: tpt predict images/ --init {options['output']} --method {options['method']}")
    if failed:
        raise click.exceptions.Exit(3)


def read_data(
    data: str, options: dict[str, Any], say: Any
) -> tuple[tuple[Sample, ...], tuple[str, ...] | None]:
    """(pictures, their class names; None where neither DATA nor --classes names them)."""
    from tpt.data.labelled_sets import ReadOptions, Sample
    from tpt.evaluate.walks import draw_some

    if options["unlabelled"]:
        names, paths = read_names(options["classes"]), list_pictures(data)[: options["limit"]]
        return tuple(Sample.of_file(path, 0) for path in paths), names
    entries = read_classes(options["classes"])
    if entries is None and options["init"] is not None:
        from tpt.prompts import Context

        context = Context.load(options["init"])
        entries = context.info.classes if context.fixed_classes else None
    part = read_single(data, ReadOptions(layout=options["layout"], classes=entries), say)
    if options["limit"] is not None:
        part = draw_some(part, options["limit"], options["seed"])
    return part.samples, part.classes


def load_job(options: dict[str, Any], classes: tuple[str, ...] | None, say: Any) -> PredictJob:
    """Build the job that `tpt predict` would run, and say what it is."""
    from tpt.streaming.predict_job import build_predict_job

    job = build_predict_job(read_prediction(options, classes=classes, reject="off"))
    say(f"Model: {job.clip.name}. Method: {job.settings['method']}.")
    if not job.method.gives_probabilities:
        raise MethodError(
            f"--method {job.settings['method']} counts votes and gives no probabilities, so there "
            "is nothing to calibrate. Use another method, such as vte."
        )
    return job


def calibrate(
    job: PredictJob, samples: tuple[Sample, ...], options: dict[str, Any], quiet: bool
) -> int:
    """Fit, save and print the calibration; return how many pictures failed."""
    from tpt.evaluate.calibration import (
        choose_threshold,
        collect_logits,
        fit_temperature,
        measure_calibration,
    )
    from tpt.methods.reading import Reading
    from tpt.prompts.calibration import Calibration
    from tpt.streaming.readings import settings_to_calibrate

    tally = Tally(total=len(samples))
    with progress(quiet) as show:

        def tell(done: int, failed: int) -> None:
            tally.done, tally.failed = done, failed
            show(tally)

        found = collect_logits(
            samples,
            job.method,
            job.views,
            batch_size=options["batch_size"],
            num_workers=options["num_workers"],
            tell=tell,
        )
    rows = [("pictures", f"{len(found.logits):,}")]
    temperature = 1.0
    if not options["unlabelled"]:
        temperature = fit_temperature(found.logits, found.labels)
        measured = measure_calibration(found.logits, found.labels)
        rows.append(("temperature", f"{temperature:.4g}"))
        rows.append(("top-1, %", f"{100 * (measured['before'].metrics['acc1'] or 0):.1f}"))
        for name, key, scale in (("ECE 15 bins, %", "ece15", 100), ("NLL, nats", "nll", 1)):
            before, after = (scale * (measured[k].metrics[key] or 0) for k in ("before", "after"))
            rows.append((name, f"{before:.3g} before, {after:.3g} after (each half by the other)"))
    threshold = None
    if options["false_alarms"] is not None:
        reading = Reading(temperature, options["rule"])
        confidence = reading.confidence(found.logits)
        threshold = choose_threshold(confidence, options["false_alarms"])
        share = float((confidence < threshold).double().mean())
        kind = options["rule"]
        rows.append(("threshold", f"{threshold:.6g} ({kind}); {100 * share:.1f} % rejected"))
    calibration = Calibration(
        job.settings["method"],
        settings_to_calibrate(job.method, job.views.n),
        temperature,
        options["rule"],
        threshold,
        options["false_alarms"],
        len(found.logits),
    )
    context = replace(job.engine.context, calibration=calibration)
    context.described(classes=job.engine.classes).save(options["output"])
    click.echo(table(rows))
    for key, why in found.failed[:3]:
        click.echo(f"Warning: {key}: {why}", err=True)
    return len(found.failed)
