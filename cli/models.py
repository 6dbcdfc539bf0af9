"""`tpt models`: list the models that load by name, show one, convert one to open_clip's format."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import click

from cli.failures import plain_errors
from cli.options import device_option, precision_option


class PatternGroup(click.Group):
    """A group that takes anything but a subcommand's name as the pattern of its list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("models", cls=PatternGroup)
def command() -> None:
    """List the models that work by name, show one, or convert one to open_clip's format.

    \b
    tpt models [PATTERN]                            all names, or those that contain PATTERN
    tpt models show ViT-B-16 --pretrained openai    towers, sizes, preprocessing, digest, cost
    tpt models show local-dir:/path                 the same of a folder
    tpt models convert SRC DST                      write SRC in open_clip's format
    """


@click.command("list")
@click.argument("pattern", default="")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_(pattern: str, form: str) -> None:
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
        "\nAlso: hf-hub:ORG/REPO and local-dir:/path (open_clip's or transformers' format), the "
        "path of an archive of OpenAI's, a weight file as --pretrained, and --pretrained random.",
        err=True,
    )


@click.command("show")
@click.argument("name", metavar="NAME|PATH")
@click.option("--pretrained", help="Tag or weight file of an open_clip name.")
@device_option
@precision_option
@click.option(
    "--classes",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="K",
    help="Count the text side's cost for the first K of ImageNet's class names.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def show(
    name: str, pretrained: str | None, device: str, precision: str, classes: int, form: str
) -> None:
    """Show what a model is: kind, towers, sizes, preprocessing, digest and cost.

    NAME is a name of `tpt models`, hf-hub:ORG/REPO, local-dir:/path, a folder or an archive of
    OpenAI's. The digest is of the weights: the same weights in another format have the same digest,
    and a prompt made for one fits the other. Operations are counted with one picture, and on the
    text side with a prompt that starts from "a photo of a" and is tuned by one step.
    """
    with plain_errors():
        from open_clip import IMAGENET_CLASSNAMES

        from tpt.model.describe import VIEWS, describe_model
        from tpt.model.load import find_device, load_clip, name_folder
        from tpt.prompts import PromptEngine
        from tpt.prompts.operations import count_text_operations

        place = find_device(device)
        clip = load_clip(name_folder(name), pretrained, device=place, precision=precision)
        card = describe_model(clip)
        names = itertools.islice(itertools.cycle(IMAGENET_CLASSNAMES), classes)
        text = count_text_operations(PromptEngine(clip, list(names)))
    if form == "json":
        click.echo(json.dumps({**asdict(card), "text_operations": asdict(text)}, indent=1))
        return
    numbers = {key: ", ".join(f"{v:g}" for v in getattr(card, key)) for key in ("mean", "std")}
    height, width = card.image_size
    rows = {
        "name": card.name,
        "weights": card.pretrained or "its own",
        "kind": card.kind,
        "image tower": f"{card.image_tower} ({card.image_parameters / 1e6:,.1f} M numbers)",
        "text tower": f"{card.text_tower} ({card.text_parameters / 1e6:,.1f} M numbers)",
        "features": f"width {card.embedding_width}, logit scale {card.logit_scale:.4g}",
        "context vectors": f"width {card.width}, prompts of up to {card.context_length} tokens",
        "text path": card.text_path,
        "pictures": f"{height} x {width}, {card.resize}, {card.interpolation}",
        **numbers,
        "precision": card.precision,
        "digest": card.digest or "unknown",
        f"{VIEWS} views": f"{card.operations / 1e9:,.4g} GFLOP a picture in the image tower",
        f"{classes:,} classes": f"{text.picture / 1e9:,.4g} GFLOP a picture in the text tower "
        f"(tuning and prediction), {text.once / 1e9:,.4g} once for the class list",
    }
    for key, value in rows.items():
        click.echo(f"{key:16} {value}")


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


for subcommand in (list_, show, convert):
    command.add_command(subcommand)
