"""`tpt corrupt`: a corrupted copy of a data set, to measure how a model copes with it."""

from __future__ import annotations

import os
import time
import warnings
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli.failures import plain_errors
from cli.options import number_option, seed_option
from cli.progress import Tally, progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tpt.corrupt.corrupted_copy import Outcome


@click.command("corrupt")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option(
    "--kind",
    "kinds",
    default="all",
    show_default=True,
    metavar="KIND[,KIND...]",
    help="gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, "
    "zoom_blur, snow, frost, fog, brightness, contrast, elastic_transform, pixelate, "
    "jpeg_compression, or all.",
)
@click.option(
    "--severity",
    "severities",
    default="1-5",
    show_default=True,
    metavar="1-5[,...]",
    help="1 is weak, 5 strong.",
)
@seed_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "jpg"]),
    default="png",
    show_default=True,
    help="png keeps every pixel; jpg (quality 85, as ImageNet-C) is smaller.",
)
@click.option("--overwrite", is_flag=True, help="Write again the files that exist already.")
@number_option("--num-workers", click.IntRange(0), 2, "Threads.")
@click.option("--quiet", is_flag=True, help="Nothing on stderr but errors and broken pictures.")
def command(
    source: str,
    target: str,
    kinds: str,
    severities: str,
    seed: int,
    form: str,
    overwrite: bool,
    num_workers: int,
    quiet: bool,
) -> None:
    """Write corrupted copies of the pictures in SRC and its sub-folders to DST.

    They go to DST/KIND/SEVERITY/, with the folders of SRC inside: the layout of ImageNet-C. The
    same seed gives the same pictures. A stopped run goes on when it is started again: it leaves
    existing files alone. DST/corruptions.json says how they were made.
    """
    with plain_errors():
        from tpt.corrupt.corrupted_copy import Settings, open_target, plan_pictures, write_corrupted
        from tpt.corrupt.corruptions import parse_kinds, parse_severities

        chosen, levels = parse_kinds(kinds), parse_severities(severities)
        pairs = [(kind, level) for kind in chosen for level in levels]
        pictures = plan_pictures(source, target, form)
        settings = Settings(os.path.realpath(source), seed, form)
        outcomes = write_corrupted(
            pictures, target, pairs, settings, overwrite=overwrite, num_workers=num_workers
        )
        claim = open_target(target, settings, chosen, levels)
        with claim, closing(outcomes), warnings.catch_warnings():
            # Pillow's notes on broken metadata name no image.
            warnings.filterwarnings("ignore", module="PIL")
            failed = follow(outcomes, len(pictures), target, quiet)
    if failed:
        raise click.exceptions.Exit(3)


def follow(outcomes: Iterator[Outcome], total: int, target: str, quiet: bool) -> int:
    """Show progress, name broken pictures and sum up; return how many pictures were broken."""
    tally, written, existed = Tally(total), 0, 0
    broken: list[str] = []
    with progress(quiet) as show:
        for outcome in outcomes:
            tally.done += 1
            written, existed = written + outcome.written, existed + outcome.existed
            if outcome.error is not None:
                tally.failed += 1
                broken.append(outcome.error)
            show(tally)
    for error in broken:  # after the bar, which they would tear
        click.echo(f"Warning: {error}", err=True)
    if not quiet:
        seconds = time.monotonic() - tally.started
        click.echo(summarise(tally, written, existed, target, seconds), err=True)
    return tally.failed


def summarise(tally: Tally, written: int, existed: int, target: str, seconds: float) -> str:
    """'1,200 files of 80 pictures written to out in 12.3 s, 300 were there already'."""
    text = f"{written:,} files of {tally.done:,} pictures written to {target} in {seconds:.1f} s"
    if existed:
        text += f", {existed:,} were there already (--overwrite makes them again)"
    if tally.failed:
        text += f"; {tally.failed:,} picture{'s' * (tally.failed != 1)} could not be read"
    return text + "."
