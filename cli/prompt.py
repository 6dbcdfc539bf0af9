"""`tpt prompt`: show prompt files, import official checkpoints, compare two prompts."""

from __future__ import annotations

import click

from cli.prompt_diff import diff
from cli.prompt_import import import_
from cli.prompt_show import show


@click.group("prompt")
def command() -> None:
    """Show, import and compare prompt files.

    \b
    tpt prompt show coop.safetensors                what it is and the words nearest to it
    tpt prompt import model.pth.tar-50 --output coop.safetensors --model ViT-B-16 \\
        --pretrained openai                         make an official checkpoint one of ours
    tpt prompt diff a.safetensors b.safetensors     what differs
    """


for subcommand in (show, import_, diff):
    command.add_command(subcommand)
