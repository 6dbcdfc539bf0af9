"""`tpt report`: draw the tables and the report page of a finished run again, without a model."""

from __future__ import annotations

from pathlib import Path

import click

from cli.evaluating import check_extra
from cli.failures import plain_errors


@click.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files go [default: DIR].",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(folder: Path, output: Path | None, quiet: bool) -> None:
    """Draw the tables and the page of a finished run again.

    DIR is the --output of `tpt eval` (results.json becomes report.html, tables.md, tables.tex) or
    of `tpt transfer` (transfer.json becomes heatmap.png and the tables). No model is loaded and no
    picture is opened.
    """
    with plain_errors():
        check_extra("report", ("jinja2", "matplotlib"))
        from tpt.report.writer import write_report

        table, shown = write_report(folder, output)
    if not quiet:
        click.echo(table)
        click.echo(f"Written: {shown}", err=True)
