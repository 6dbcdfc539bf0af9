"""Options that several commands share, in groups that keep their order in the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tpt.model.clip import Clip

Decorator = Callable[[Any], Any]


def group(*options: Decorator) -> Decorator:
    """Several options as one decorator; the first stands first in the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def say_precision(clip: Clip, asked: str, say: Callable[[str], None]) -> None:
    """Tell what "auto" chose, where it is not fp32."""
    if asked == "auto" and clip.precision != "fp32":
        say(
            f"Precision: {clip.precision}, for which the device has units; --precision fp32 is "
            "slower and as published."
        )


adaptation_options = group(
    click.option(
        "--views",
        type=click.IntRange(1),
        help="Views an image, the plain one included [default: 64].",
    ),
    click.option("--augment", type=click.Choice(["crop", "augmix"]), help="[default: crop]"),
    click.option(
        "--keep",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the views that are kept [default: 0.1; zero: 0.3].",
    ),
    click.option("--steps", type=click.IntRange(1), help="Optimiser steps an image [default: 1]."),
    click.option(
        "--lr",
        type=click.FloatRange(0, min_open=True),
        help="AdamW's learning rate [default: 0.005].",
    ),
    click.option(
        "--reset",
        type=click.Choice(["image", "stream"]),
        help="When the context returns to its start [tpt: image], or caches are emptied [tda: "
        "stream].",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="Another setting of the method (ctpt: weight=50; tda: alpha=2); `tpt methods NAME` "
        "lists them.",
    ),
    click.option(
        "--gate",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="SCORE",
        help="Leave images alone whose plain view is at least this sure; 0.9 is cautious.",
    ),
    click.option(
        "--gate-views", type=click.IntRange(1), help="Views the gate looks at [default: 1]."
    ),
)
"""How images are adapted to."""

all_files_option = click.option(
    "--all-files", is_flag=True, help="Look inside files without an image extension."
)
"""How folders are looked through."""

precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the device has units for it.",
)

compute_options = group(
    click.option(
        "--micro-batch",
        type=click.IntRange(1),
        help="Views a pass of the image tower [default: what the device takes well].",
    ),
    click.option(
        "--num-workers",
        type=click.IntRange(0),
        default=2,
        show_default=True,
        help="Decoding threads.",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
    ),
    precision_option,
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of the random numbers."
    ),
)
"""On what it is computed."""

machine_options = group(
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        help="Images adapted together [default: 1 on a CPU, 8 elsewhere; oga: 32; stata: 64].",
    ),
    compute_options,
)
"""How and on what a run is computed."""

film_options = group(
    click.option(
        "--every",
        metavar="SECONDS",
        help="Of a film: a frame every so many seconds [default: 1s; of a live source: all].",
    ),
    click.option("--frames", type=click.IntRange(1), help="Of a film: every n-th frame."),
    click.option("--keyframes", is_flag=True, help="Of a film: its key frames."),
    click.option(
        "--smooth",
        type=click.IntRange(1),
        metavar="FRAMES",
        help="Of a film: average the scores over the last frames of a shot.",
    ),
    click.option("--video", is_flag=True, help="The source - is a film that is not waited for."),
)
"""Films."""

cluster_options = group(
    click.option(
        "--ray",
        metavar="local|auto|ADDRESS",
        help="Predict on a Ray cluster (extra scale), into a folder of Parquet files: all cores or "
        "GPUs of this machine, the cluster of this machine, or the one at an address.",
    ),
    click.option(
        "--actors",
        metavar="N|MIN:MAX",
        help="With --ray: how many predict at a time [default: as many as have room].",
    ),
    click.option(
        "--actor-cpus",
        type=click.FloatRange(0),
        default=1,
        show_default=True,
        help="With --ray: CPU threads of each actor.",
    ),
    click.option(
        "--actor-gpus",
        type=click.FloatRange(0),
        help="With --ray: GPUs of each, 0.5 for two on one [default: 1 where there are GPUs].",
    ),
)
"""Many machines."""

screen_option = click.option(
    "--screen",
    is_flag=True,
    help="Rank the views in bf16, encode only the likely ones in fp32 [tpt, ctpt, vte].",
)

MACHINE = ("precision", "device", "micro_batch", "screen")
"""Those of them that decide how the model is loaded."""

run_options = group(
    click.option(
        "--resume", is_flag=True, help="Go on where an earlier run into --output stopped."
    ),
    click.option("--overwrite", is_flag=True, help="Start again in an --output that holds a run."),
    click.option("--strict", is_flag=True, help="Stop at the first bad image."),
    click.option("--force", is_flag=True, help="Use a prompt file made for another model."),
    click.option("--quiet", is_flag=True, help="Nothing on stderr but warnings and errors."),
)
"""How a run into a folder begins and ends."""
