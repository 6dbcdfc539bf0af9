"""Options that several commands share, in groups that keep their order in the help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tpt.model.clip import Clip

T = TypeVar("T")
Decorator = Callable[[Any], Any]

ABOVE_ZERO = click.FloatRange(0, min_open=True)
AT_LEAST_ONE = click.IntRange(1)


def group(*options: Decorator) -> Decorator:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def number_option(name: str, kind: click.ParamType[Any], default: float, text: str) -> Decorator:
    """A number whose default the help shows."""
    return click.option(name, type=kind, default=default, show_default=True, help=text)


def fill(settings: type[T], options: dict[str, Any], /, **given: Any) -> T:
    """A dataclass of settings: `given`, and every other field that has an option of its name."""
    names = {field.name for field in fields(settings)}  # type: ignore[arg-type]
    return settings(**{name: options[name] for name in names & options.keys()} | given)


NOTE_EMBEDDED = (
    "Model: lite, the small embedded model. For real work give --model, for example --model "
    "ViT-B-16 --pretrained openai."
)


def tell_model(clip: Clip, asked: str, results: str, say: Callable[[str], None]) -> None:
    """Tell which precision "auto" chose, where it is not fp32, and warn of random weights."""
    if asked == "auto" and clip.precision != "fp32":
        say(
            f"Precision: {clip.precision}, for which the device has units; --precision fp32 is "
            "slower and as published."
        )
    if clip.pretrained == "random":
        say(f"Warning: the weights are random, as asked; {results} nothing.")


adaptation_options = group(
    click.option(
        "--views", type=AT_LEAST_ONE, help="Views an image, the plain one included [default: 64]."
    ),
    click.option("--augment", type=click.Choice(["crop", "augmix"]), help="[default: crop]"),
    click.option(
        "--keep",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the views that are kept [default: 0.1; zero: 0.3].",
    ),
    click.option("--steps", type=AT_LEAST_ONE, help="Optimiser steps an image [default: 1]."),
    click.option("--lr", type=ABOVE_ZERO, help="AdamW's learning rate [default: 0.005]."),
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
        help="Do not adapt images whose plain view is at least this sure; 0.9 is cautious.",
    ),
    click.option("--gate-views", type=AT_LEAST_ONE, help="Views the gate looks at [default: 1]."),
)
"""How the method adapts to an image."""

all_files_option = click.option(
    "--all-files", is_flag=True, help="Look inside files without an image extension."
)
"""How folders are looked through."""

pretrained_option = click.option(
    "--pretrained", help="Tag or weight file of an open_clip model; random for random weights."
)
tag_option = click.option("--pretrained", help="Tag or weight file of an open_clip model.")
model_options = group(
    click.option(
        "--model",
        help="open_clip name, hf-hub:..., local-dir:... or lite. Default: the --init file's own "
        "model, else lite, the embedded model.",
    ),
    pretrained_option,
)
start_options = group(
    click.option("--init", metavar="FILE", help="Prompt file to start from (CoOp or ours)."),
    model_options,
)
reading_options = group(
    click.option(
        "--reject",
        metavar="THRESHOLD|off",
        help='Answer "none of these" below this probability, or below energy:THRESHOLD; `tpt '
        "calibrate --false-alarms` finds one and saves it. Default: that of the --init file.",
    ),
    click.option(
        "--other",
        metavar="TEXT",
        help='One more class, "something else" say, that stands for everything else.',
    ),
)
"""How scores become answers."""

top_k_option = click.option("--top-k", type=AT_LEAST_ONE, default=5, show_default=True)
force_option = click.option(
    "--force", is_flag=True, help="Use a prompt file made for another model."
)
quiet_option = click.option(
    "--quiet", is_flag=True, help="Nothing on stderr but warnings and errors."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the random numbers."
)


def template_option(text: str) -> Decorator:
    """--template, which may be repeated, or name a file."""
    return click.option("--template", "templates", multiple=True, metavar="TEXT|FILE", help=text)


precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the device has units for it.",
)

device_options = group(
    click.option(
        "--micro-batch",
        type=AT_LEAST_ONE,
        help="Views a pass of the image tower [default: what the device takes well].",
    ),
    number_option("--num-workers", click.IntRange(0), 2, "Decoding threads."),
    device_option,
    precision_option,
)
"""The devices and threads that compute."""

compute_options = group(device_options, seed_option)
"""What the run is computed on."""

machine_options = group(
    click.option(
        "--batch-size",
        type=AT_LEAST_ONE,
        help="Images adapted together [default: 1 on a CPU, 8 elsewhere; oga: 32; stata: 64].",
    ),
    compute_options,
)
"""How and on what the run is computed."""

film_options = group(
    click.option(
        "--every",
        metavar="SECONDS",
        help="Of a film: a frame every so many seconds [default: 1s; of a live source: all].",
    ),
    click.option("--frames", type=AT_LEAST_ONE, help="Of a film: every n-th frame."),
    click.option("--keyframes", is_flag=True, help="Of a film: its key frames."),
    click.option(
        "--smooth",
        type=AT_LEAST_ONE,
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
    number_option("--actor-cpus", click.FloatRange(0), 1, "With --ray: CPU threads of each actor."),
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
    help="Rank the views in bf16, encode only the likely ones in fp32 [tpt, ctpt].",
)

speed_options = group(
    screen_option,
    click.option(
        "--jacobian",
        is_flag=True,
        help="Compute the gradient that all pictures share once: worth it in long runs, and "
        "--dry-run says how long [tpt, ctpt, rtpt].",
    ),
    click.option(
        "--cuda-graphs",
        is_flag=True,
        help="Record the text side of a batch as CUDA graphs: for short class lists on a GPU.",
    ),
)
"""How a run is made faster."""

run_options = group(
    click.option(
        "--resume", is_flag=True, help="Go on where an earlier run into --output stopped."
    ),
    click.option("--overwrite", is_flag=True, help="Start again in an --output that holds a run."),
    click.option("--strict", is_flag=True, help="Stop at the first bad image."),
    force_option,
    quiet_option,
)
"""How a run into a folder begins and ends."""
