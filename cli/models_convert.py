"""`tpt models convert`: a model of any kind as a folder of open_clip's format."""

from __future__ import annotations

from pathlib import Path

import click

from cli.failures import plain_errors


@click.command("convert")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--pretrained", help="Tag or weight file of an open_clip name.")
def convert(source: str, target: str, pretrained: str | None) -> None:
    """Write the model SRC as the folder DST in open_clip's format.

    SRC is what `tpt models show` takes. DST is a folder that is not there yet; afterwards
    local-dir:DST loads it, here and in open_clip. The weights keep their numbers: the digest, and
    the prompts made for the model, stay valid.
    """
    with plain_errors():
        from tpt.model.convert import convert_model
        from tpt.model.load import load_clip, name_folder

        clip = load_clip(name_folder(source), pretrained, device="cpu", precision="fp32")
        notes = convert_model(clip, Path(target))
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(f"Wrote local-dir:{target} (digest {clip.digest}, as before).", err=True)
