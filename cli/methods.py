"""`tpt methods`: the methods, what each costs, and its settings."""

from __future__ import annotations

import json
from typing import Any

import click

from cli.failures import plain_errors


@click.command("methods")
@click.argument("name", default="")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def command(name: str, form: str) -> None:
    """List the methods of `tpt predict --method`, or one method's settings.

    NAME shows that method alone: its settings with their published defaults, which `--keep`,
    `--steps`, `--lr`, `--reset` and `--set NAME=VALUE` of `tpt predict` change.
    """
    with plain_errors():
        from tpt.methods.registry import MethodInfo, find_method, list_methods

        listed = [find_method(name)] if name else list(list_methods())
        chosen = [info for info in listed if isinstance(info, MethodInfo)]
    for broken in listed:
        if not isinstance(broken, MethodInfo):
            click.echo(f"Warning: {broken}", err=True)
    if form == "json":
        click.echo(json.dumps([describe(info) for info in chosen], indent=1))
    elif name:
        click.echo(tell_one(describe(chosen[0])))
    else:
        click.echo(f"{'method':10} {'state':5} {'gradient':8}  {'paper':16}  what it does")
        for info in chosen:  # without their settings, which would import torch
            click.echo(
                f"{info.name:10} {_yes(info.keeps_state):5} {_yes(info.gradient):8}  "
                f"{info.paper and 'arXiv ' + info.paper:16}  {info.summary}"
            )
        click.echo(
            "\n`tpt methods NAME` shows a method's cost and settings; `tpt predict --gate 0.9` "
            "puts a gate before any\nof them that reads views.",
            err=True,
        )


def describe(info: Any) -> dict[str, Any]:
    """What the registry says of a method, as JSON holds it."""
    settings = vars(info.settings())
    names = ("name", "title", "summary", "cost", "paper", "keeps_state", "gradient")
    return {n: getattr(info, n) for n in (*names, "takes_templates")} | {"settings": settings}


def tell_one(row: dict[str, Any]) -> str:
    """One method in lines of `name: value`."""
    lines = [
        f"{row['title']} (--method {row['name']})" + (row["paper"] and f", arXiv {row['paper']}"),
        f"  {row['summary']}",
        f"  cost per image, besides its views: {row['cost']}",
        f"  keeps state between images: {_yes(row['keeps_state'])}",
        f"  template ensembles: {_yes(row['takes_templates'])}",
    ]
    lines += [f"  {name} = {value}" for name, value in row["settings"].items()]
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
