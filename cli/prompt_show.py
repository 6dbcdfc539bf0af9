"""`tpt prompt show`: what is in a prompt file, and the words nearest to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.failures import plain_errors
from cli.options import device_option
from cli.prompt_text import (
    FEW,
    FORMAT,
    NAME_IT,
    class_name,
    describe,
    label,
    name_model,
    note,
    plain,
    print_json,
    table,
    tell,
)
from tpt.errors import PromptError, TptError

if TYPE_CHECKING:
    from tpt.model.clip import Clip
    from tpt.prompts import Context
    from tpt.prompts.nearest import NearWord


@click.command("show")
@click.argument("file")
@click.option(
    "--model", help="Model whose words are searched. Default: the one the prompt was made for."
)
@click.option("--pretrained", help="Tag or weight file of an open_clip --model.")
@click.option(
    "--words",
    "count",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Nearest words for each vector; 0 for none, and then no model is loaded.",
)
@click.option("--all-classes", is_flag=True, help="Show every class in the table.")
@device_option
@FORMAT
def show(
    file: str,
    model: str | None,
    pretrained: str | None,
    count: int,
    all_classes: bool,
    device: str,
    form: str,
) -> None:
    """Show a prompt FILE and its nearest words.

    Shows all that the file says, and for each vector the tokens whose embeddings have the smallest
    Euclidean distance to it, as in the CoOp paper. A token that does not end its word ends in "-".
    The words need a model; where the prompt's own model cannot be loaded, they are left out. The
    sha256 is of the numbers, a meta-network's included; the records of `tpt predict` keep its first
    16 digits.
    """
    with plain_errors():
        from tpt.prompts import Context

        context = Context.load(file)
        clip = find_clip(context, model, pretrained, device) if count else None
        shown = len(context.vectors) if all_classes or form == "json" else FEW
        words = find_words(context, clip, count, shown, named=model is not None) if clip else None
    facts = {"file": file, **describe(context)}
    if form == "json":
        print_json({**facts, "nearest": to_plain(context, clip, words) if clip and words else None})
        return
    click.echo(table([[label(key), tell(key, facts[key], all_classes)] for key in facts]))
    if words is not None:
        click.echo("\n" + word_table(context, words))
        left_out = len(context.vectors) - shown if context.class_specific else 0
        if left_out > 0:
            note(f"The words of {left_out} more classes: --all-classes, or --format json.")


def find_clip(
    context: Context, model: str | None, pretrained: str | None, device: str
) -> Clip | None:
    """The model whose words are searched; None, with a note, if the prompt's own cannot be had."""
    from tpt.model.load import EMBEDDED, find_device, load_clip
    from tpt.streaming.predict_job import choose_model

    info = context.info
    if model is None and pretrained is None and info.model is None:
        note(
            "The file does not say which model it was made for (official CoOp checkpoints never "
            f"do), so its nearest words are left out. {NAME_IT}"
        )
        return None
    name, tag = choose_model(model, pretrained, context, None)
    place = find_device(device)
    if name not in EMBEDDED:
        note(
            f"Loading {plain(name)} (weights that are not here yet are fetched first; --words 0 "
            "goes without) ..."
        )
    try:
        clip = load_clip(name, tag, device=place, precision="fp32")
    except TptError as error:
        if model is not None:
            raise
        note(f"The nearest words are left out: the prompt's own model cannot be loaded. {error}")
        return None
    if clip.pretrained == "random":
        note("Warning: the model's weights are random, and so are the nearest words.")
    elif not clip.is_model(info.model, info.pretrained, info.digest):
        note(
            f"Warning: the prompt was made for {name_model(info.model, info.pretrained)}; its "
            f"vectors need not mean anything to {name_model(clip.name, clip.pretrained)}."
        )
    return clip


def find_words(
    context: Context, clip: Clip, count: int, classes: int, named: bool
) -> list[list[list[NearWord]]] | None:
    """The words nearest to each vector, for the first `classes` classes or the one context of all.

    None, with a note, where the prompt's own model has another width; an error if the user named
    the model.
    """
    from tpt.prompts.nearest import nearest_words

    each = context.vectors if context.class_specific else context.vectors.unsqueeze(0)
    each = each[:classes]  # (classes, M, D)
    try:
        flat = nearest_words(clip, each.flatten(0, 1), count)
    except PromptError as error:
        if named:
            raise
        note(f"The nearest words are left out: the file names a model it does not fit. {error}")
        return None
    return [flat[i : i + each.shape[1]] for i in range(0, len(flat), each.shape[1])]


def to_plain(context: Context, clip: Clip, words: list[list[list[NearWord]]]) -> dict[str, Any]:
    """The words as JSON holds them: [vector][rank], or [class][vector][rank] if class-specific."""
    every = [[[vars(word) for word in row] for row in rows] for rows in words]
    own = every if context.class_specific else every[0]
    return {"model": clip.name, "pretrained": clip.pretrained, "words": own}


def word_table(context: Context, words: list[list[list[NearWord]]]) -> str:
    """A line for each vector, beginning with the class if every class has its own context."""
    rows = [["class", "vector", *["word", "distance"] * len(words[0][0])]]
    for place, vectors in enumerate(words):
        for m, near in enumerate(vectors, start=1):
            cells = [cell for word in near for cell in (plain(word.word), f"{word.distance:.4f}")]
            rows.append([plain(class_name(context, place)), str(m), *cells])
    return table(rows if context.class_specific else [row[1:] for row in rows])
