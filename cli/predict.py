"""`tpt predict`: classes for the images of files, folders, globs, lists and pipes."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cli import predict_ray
from cli.evaluating import telling_warnings
from cli.failures import interruptible, plain_errors
from cli.jacobian import note_short_run, say_jacobian
from cli.option_values import read_classes
from cli.options import (
    ABOVE_ZERO,
    adaptation_options,
    all_files_option,
    cluster_options,
    film_options,
    force_option,
    machine_options,
    reading_options,
    speed_options,
    start_options,
    template_option,
    top_k_option,
)
from cli.predict_plan import describe, load_job, make_settings, make_target
from cli.progress import Tally, progress

if TYPE_CHECKING:
    from tpt.streaming.output import FinishedRecords, Target
    from tpt.streaming.predict_job import PredictJob
    from tpt.streaming.sources import Found


@click.command("predict")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names, or a file of them; imagenet, imagenet-a or imagenet-r for those lists. "
    "Default: those stored in the --init file.",
)
@start_options
@click.option("--method", default="tpt", show_default=True, help="`tpt methods` lists them.")
@template_option(
    "Words around the class name, {} in its place. Repeat it (or give a file) for an "
    'ensemble, with methods that do not tune the context. Default: "a photo of a {}".'
)
@adaptation_options
@reading_options
@click.option("--load-state", metavar="FILE", help="Go on from a state that tda or oga has saved.")
@click.option(
    "--save-state",
    metavar="FILE",
    help="Save tda's caches or oga's memory when the stream has ended.",
)
@machine_options
@speed_options
@top_k_option
@click.option("--output", default="-", show_default=True, metavar="FILE|-")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "table", "parquet", "srt", "vtt"]),
    help="[default: by the ending of --output, else jsonl]",
)
@click.option("--resume", is_flag=True, help="Go on where an earlier run into --output stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --output.")
@click.option("--strict", is_flag=True, help="Stop at the first bad image.")
@click.option("--recursive", is_flag=True, help="Read the folders inside folders too.")
@click.option(
    "--column",
    metavar="NAME",
    help="The column of Parquet files that holds pictures or paths [default: by its name or kind].",
)
@all_files_option
@click.option(
    "--time-limit",
    type=ABOVE_ZERO,
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="A picture that takes longer to decode is an error.",
)
@click.option(
    "--decode-in",
    type=click.Choice(["threads", "processes"]),
    default="threads",
    show_default=True,
    help="With processes, a decoder that crashes loses only its own picture.",
)
@film_options
@cluster_options
@force_option
@click.option("--quiet", is_flag=True, help="Nothing on stderr but errors.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the settings, stop.")
def command(sources: tuple[str, ...], quiet: bool, dry_run: bool, **options: Any) -> None:
    """Predict the class of every image in SOURCES.

    SOURCES are files, folders, globs, @list.txt (a path a line) or - (paths on standard input,
    predicted as they come); tars (also "shard-{0000..0099}.tar") and Parquet files, whose pictures
    are read in place; and addresses (s3://, https://, ...) of all these, with the extra "remote".
    Every record is written as soon as it is made: one JSON object a line with the path, the
    predictions, the zero-shot prediction, and what adaptation did; or the path and an error.
    """
    with plain_errors():
        from tpt.streaming.folders import Search, note_left_out
        from tpt.streaming.items import Reading, Sampling
        from tpt.streaming.output import check_target
        from tpt.streaming.readers.video import read_every
        from tpt.streaming.sources import Found, find_sources

        entries = read_classes(options["classes"])
        target = make_target(options)
        again = options["resume"], options["overwrite"]
        on_ray = options["ray"] is not None
        pool = predict_ray.check_options(options) if on_ray else None
        if not on_ray:
            check_target(target, *again)
        ways = read_every(options["every"]), options["frames"], options["keyframes"]
        sampling = Sampling(*ways) if any(ways) else None
        reading = Reading(options["column"], sampling, options["video"])
        search = Search(options["recursive"], options["all_files"], reading=reading)
        found = find_sources(sources, search, sys.stdin if "-" in sources else None)
        if on_ray:
            pass  # a cluster opens archives and tables where they are read
        elif found.is_counted:
            found = Found([list(found)])
        elif not dry_run and not options["video"]:  # a pipe's first path is waited for
            found = wait_for_first(found)
        say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
        if search.left_out:
            hint = "" if search.all_files else " --all-files looks inside them."
            say(f"Note: {note_left_out(search.left_out, search.all_files)}{hint}")
        job = load_job(options, entries, say)
        if dry_run:
            count = len(list(found)) if found.is_counted else "counted as they come"
            click.echo(describe(job, target, options, count))
            return
        if on_ray:
            wanted = make_settings(options, entries)
            code = predict_ray.run(found, job, wanted, pool, reading, options, quiet)
            raise click.exceptions.Exit(code)
        with target.claim(*again), telling_warnings(say):
            code = run(job, target, found, options, quiet)
    if code:
        raise click.exceptions.Exit(code)


def run(job: PredictJob, target: Target, found: Found, options: dict[str, Any], quiet: bool) -> int:
    """Predict and write; return the exit code."""
    from tpt.streaming.output import finish, prepare, write_records
    from tpt.streaming.pipeline import stream
    from tpt.streaming.smoothing import smooth

    window = options["smooth"]
    settings = {**job.settings, "top_k": options["top_k"], "format": target.form}
    settings |= {} if window is None else {"smooth": window}
    done = prepare(target, settings, job.environment, options["resume"])
    size = options["batch_size"] or job.method.batch_size
    todo, again = plan_rest(found, done, size)
    listed = list(todo) if todo.is_counted else None
    tally = Tally(total=None if listed is None else len(listed) - again)
    on_screen = target.path == "-" and sys.stdout.isatty()  # a bar would be drawn into the records
    showing = progress(quiet or on_screen)
    hint = " Go on with --resume." if target.can_resume and not job.method.keeps_state else ""
    hint += " No state was saved." if options["save_state"] is not None else ""
    with interruptible(lambda: f"Interrupted after {tally.summary()}.{hint}"):
        if listed is None or listed:
            if options["jacobian"] and listed and not quiet:
                note_short_run(job.engine, len(listed))
            job.prepare(None if quiet else partial(say_jacobian, job.engine))
            tally.started = time.monotonic()
        with write_records(target.lines, append=done is not None) as write, showing as show:
            records = stream(
                todo if listed is None else listed,
                job.method,
                job.views,
                batch_size=size,
                num_workers=options["num_workers"],
                top_k=options["top_k"] if window is None else len(job.engine.classes),
                strict=options["strict"],
                time_limit=options["time_limit"],
                decode_in=options["decode_in"],
                screen=job.screen,
            )
            if window is not None:
                records = smooth(records, window, options["top_k"])
            for place, record in enumerate(records):
                if place < again:
                    continue
                write(record)
                tally.add(record.to_dict())
                show(tally)
            if options["save_state"] is not None:
                job.method.go_on.save_state(options["save_state"])  # type: ignore[attr-defined]
        finish(target)
    if not quiet:
        where = "" if target.path == "-" else f" Records: {target.path}"
        if found.dropped:
            click.echo(
                f"Note: {found.dropped:,} frames were dropped, because they came faster than they "
                "could be predicted.",
                err=True,
            )
        earlier = f" {len(done.paths):,} were done before." if done else ""
        click.echo(f"{tally.summary()}.{earlier}{where}", err=True)
    return 3 if tally.failed or (done is not None and done.failed) else 0


def wait_for_first(found: Found) -> Found:
    """Wait until a pipe's first path has come; return the same pictures."""
    from tpt.streaming.readers.video import Video
    from tpt.streaming.sources import Found

    if any(isinstance(part, Video) for part in found.parts):
        return found
    pictures = iter(found)
    return Found([[next(pictures)], pictures], found.live)


def plan_rest(found: Found, done: FinishedRecords | None, size: int) -> tuple[Found, int]:
    """(pictures still to run, how many of their first records are there already).

    Where an unbroken first part is done, the run starts again at the start of a batch. So the
    batches are those of an unbroken run, and the records come out the same to the last byte.
    """
    from tpt.streaming.sources import Found, key_of

    if done is None:
        return found, 0
    pictures = iter(found)
    batch: list[Any] = []  # done since the last border
    for picture in pictures:
        if key_of(picture) not in done.paths:
            rest = (each for each in pictures if key_of(each) not in done.paths)
            again = [] if found.live else batch
            parts = [again, [picture], list(rest) if found.is_counted else rest]
            return Found(parts, found.live), len(again)
        batch = [*batch, picture] if len(batch) + 1 < size else []
    return Found([]), 0
