"""`tpt records`: convert files of records to other forms."""

from __future__ import annotations

import os

import click

from cli.failures import plain_errors

_BY_ENDING = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@click.group("records")
def command() -> None:
    """Convert files of records.

    \b
    tpt records convert records.jsonl records.parquet
    tpt records convert out/ records.csv              a folder of `tpt predict --ray`
    tpt records convert records.jsonl tasks.json --to label-studio
    tpt records convert records.jsonl samples/ --to fiftyone
    """


@command.command("convert")
@click.argument("source", metavar="A", type=click.Path(exists=True))
@click.argument("target", metavar="B")
@click.option(
    "--to",
    "form",
    type=click.Choice(["jsonl", "csv", "parquet", "fiftyone", "label-studio"]),
    help="[default: by B's ending]",
)
@click.option("--overwrite", is_flag=True, help="Replace B.")
def convert_(source: str, target: str, form: str | None, overwrite: bool) -> None:
    """Write the records of A (JSON lines, Parquet or a folder of Parquet parts) to B.

    JSON lines and Parquet hold a record whole. CSV, FiftyOne's labels (B is a folder) and Label
    Studio's tasks hold less.
    """
    with plain_errors():
        from tpt.errors import OutputError
        from tpt.streaming.record_files import convert

        form = form or _BY_ENDING.get(os.path.splitext(target)[1].lower())
        if form is None:
            raise click.BadParameter(
                f'"{target}" has none of the endings {", ".join(_BY_ENDING)}. Say the form with '
                "--to.",
                param_hint="B",
            )
        if os.path.exists(target) and not overwrite:
            raise OutputError(f'"{target}" exists already. Use --overwrite, or another name.')
        count = convert(source, target, form)
        click.echo(f"{count:,} records: {target}", err=True)
