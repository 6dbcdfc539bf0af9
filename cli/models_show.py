"""`tpt models show`: what a model is, by its name or folder."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import click

from cli.failures import plain_errors
from cli.options import device_option, precision_option


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
    help="Of the text side's cost: the first K of ImageNet's class names.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def show(
    name: str, pretrained: str | None, device: str, precision: str, classes: int, form: str
) -> None:
    """Show what a model is: kind, towers, sizes, preprocessing, digest and cost.

    NAME is a name of `tpt models`, hf-hub:ORG/REPO, local-dir:/path, a folder or an archive of
    OpenAI's. The digest is of the weights: two forms of the same weights have the same, and a
    prompt made for one fits the other. One picture is run through the model, to count operations.
    Those of the text side are of a prompt that starts from "a photo of a" and is tuned by one step.
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
