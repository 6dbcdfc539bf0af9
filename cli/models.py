"""`tpt models`: the models that can be loaded by name, and how their text towers work."""

from __future__ import annotations

import json

import click

from cli.failures import plain_errors


@click.command("models")
@click.argument("pattern", default="")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def command(pattern: str, form: str) -> None:
    """List the models that work by name, with their tags of pretrained weights.

    PATTERN keeps the names that contain it. "shared-prefix" text towers take the exact fast path,
    "full-length" ones cost more for many classes.
    """
    with plain_errors():
        from tpt.model.load import list_models

        rows = [row for row in list_models() if pattern.lower() in row.name.lower()]
        if not rows:
            raise click.ClickException(
                f'No model name contains "{pattern}". `tpt models` without a pattern lists all.'
            )
    if form == "json":
        click.echo(json.dumps([vars(row) for row in rows], indent=1))
        return
    click.echo(f"{'name':36} {'input':>5} {'width':>5}  {'text path':13}  weights")
    for row in rows:
        tags = ", ".join(row.tags) or "none published"
        click.echo(f"{row.name:36} {row.image_size:5} {row.width:5}  {row.text_path:13}  {tags}")
    click.echo(
        "\nAlso: hf-hub:ORG/REPO, local-dir:/path (a config and weights), a weight file as "
        "--pretrained, and --pretrained random.",
        err=True,
    )
