"""The `tpt` command itself: the group, its version, and what it says of an unknown command.

Subcommands are imported by name when they are used, and import torch inside their functions, so
that `tpt --help` answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from tpt._version import __version__
from tpt.errors import suggest

COMMANDS = {
    "predict": "cli.predict",
    "train": "cli.train",
    "advise": "cli.advise",
    "calibrate": "cli.calibrate",
    "eval": "cli.eval",
    "transfer": "cli.transfer",
    "report": "cli.report",
    "prompt": "cli.prompt",
    "corrupt": "cli.corrupt",
    "records": "cli.records",
    "serve": "cli.serve",
    "methods": "cli.methods",
    "models": "cli.models",
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            hint = suggest(args[0], COMMANDS)
            ctx.fail(f'No such command "{args[0]}".{hint} `tpt --help` lists the commands.')
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tpt")
def main() -> None:
    """Classify images with CLIP models that adapt to every image.

    \b
    tpt predict images/ --classes cat,dog,horse     predict with the embedded model
    tpt train pictures/ --output coop.safetensors   learn a prompt from a few pictures a class
    tpt predict images/ --init coop.safetensors     start from it
    tpt prompt show coop.safetensors                what a prompt holds, its nearest words
    tpt advise images/ --classes cat,dog --labels labels.csv   which method is worth its cost
    tpt calibrate labelled/ --output calibrated.safetensors   scores that mean something
    tpt eval sets/sketch --output out/              accuracy and calibration under shift
    tpt transfer a/ b/ c/ --output out/             prompts learned on each set, tested on all
    tpt report out/                                 draw the page and tables of a run again
    tpt corrupt pictures/ worse/ --kind all         corrupt a data set on purpose, in 15 ways
    tpt records convert a.jsonl b.parquet           records in another form
    tpt serve --classes cat,dog,horse               answer over HTTP, with a page to try it
    tpt methods                                     list the methods and what they cost
    tpt models                                      list the models that work

    Results go to standard output or a file, everything else to standard error. Exit codes: 0 all
    well, 1 failed, 2 wrong usage, 3 finished but some images could not be read.
    """
