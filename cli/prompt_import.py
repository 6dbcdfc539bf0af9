"""`tpt prompt import`: official checkpoints become prompt files that say what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.failures import plain_errors
from cli.option_values import check_prompt_output, read_names
from cli.options import tag_option
from cli.prompt_text import NAME_IT, name_model, note, plain
from tpt.errors import PromptError

if TYPE_CHECKING:
    from tpt.prompts import Context


@click.command("import")
@click.argument("source", metavar="SRC")
@click.option("--output", required=True, metavar="FILE.safetensors")
@click.option("--model", help="Model it was trained with. Required unless SRC says it.")
@tag_option
@click.option("--classes", metavar="A,B,C|FILE", help="Class names, or a file with one a line.")
@click.option(
    "--position",
    type=click.Choice(["end", "middle", "front"]),
    help="Where the class name stands [default: as SRC says, else end].",
)
@click.option("--words", metavar="TEXT", help='Words the training started from: "a photo of a".')
@click.option("--dataset", metavar="NAME", help="Data set it was trained on.")
@click.option("--shots", type=click.IntRange(1), help="Training pictures a class.")
@click.option("--seed", type=int, help="The training's seed.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --output.")
def import_(
    source: str,
    output: str,
    model: str | None,
    pretrained: str | None,
    classes: str | None,
    position: str | None,
    overwrite: bool,
    **said: Any,
) -> None:
    """Write SRC as a prompt file that says what it was made for.

    SRC is a checkpoint of CoOp, CoCoOp, KgCoOp or ProGrad (prompt_learner/model.pth.tar-50), the
    folder that it is in, or any prompt file. The model, the position and the training are read from
    a log.txt beside the checkpoint, if there is one. Options add to what SRC says, or replace it.
    No weights are loaded, and nothing in SRC is executed.
    """
    with plain_errors(logs=False):  # what is logged of SRC is said here, in the command's words
        from dataclasses import replace

        from tpt.prompts.context import Context
        from tpt.prompts.prompt_info import PromptInfo

        names = read_names(classes)
        check_prompt_output(output, overwrite)
        context = Context.load(source)
        if model is None and context.info.model is None:
            model, pretrained = find_logged_model(source, pretrained)
        name, tag = choose_origin(context, source, model, pretrained)
        check_width(context, name)
        if position is not None and position != context.position:
            context = replace(context, position=position, before=-1)
        elif position is None and context.position == "end" and context.info == PromptInfo():
            note(
                f'"{plain(source)}" does not say where the class name stands (official checkpoints '
                'never do); it is taken to be at the "end", their default. If this one was trained '
                "otherwise, say so with --position."
            )
        facts = {"classes": names, **said}
        if (name, tag) != (context.info.model, context.info.pretrained):
            facts |= {"model": name, "pretrained": tag}
        context = context.described(**{k: v for k, v in facts.items() if v is not None})
        context.save(output)
    kind = "class-specific " if context.class_specific else ""
    note(
        f'Wrote "{plain(output)}": {kind}vectors {tuple(context.vectors.shape)} for '
        f"{name_model(name, tag)}, class name at the {context.position}."
    )


def find_logged_model(source: str, pretrained: str | None) -> tuple[str | None, str | None]:
    """(model, weights) that the log beside a checkpoint names, if it names one."""
    from pathlib import Path

    from tpt.prompts.dassl import find_backbone, find_checkpoint

    path = Path(source)
    backbone = find_backbone(find_checkpoint(path) if path.is_dir() else path)
    return backbone, (pretrained or "openai") if backbone else pretrained


def choose_origin(
    context: Context, source: str, model: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """(model, weights) to write down: as asked and as `load_clip` spells it, else as SRC says."""
    from tpt.model.load import resolve_name

    info = context.info
    if model is None and info.model is None:
        raise click.UsageError(
            f'"{source}" does not say which model it was made for (official CoOp checkpoints never '
            f"do). {NAME_IT}",
            click.get_current_context(silent=True),
        )
    name = model or str(info.model)
    known = name if ":" in name else name.replace("/", "-")
    if pretrained is None and (model is None or (known == info.model and info.pretrained)):
        return str(info.model), info.pretrained
    known, weights = resolve_name(name, pretrained)
    if info.model not in (None, known) or info.pretrained not in (None, weights):
        note(
            f'Note: "{plain(source)}" says that it was made for '
            f"{name_model(info.model, info.pretrained)}; {name_model(known, weights)} takes its "
            "place, as asked."
        )
    return known, weights


def check_width(context: Context, name: str) -> None:
    """Refuse vectors of another width than the model's, where its config is known."""
    from tpt.model.load import list_models

    width = context.vectors.shape[-1]
    known = {row.name: row.width for row in list_models()}
    if name not in known:
        note(
            f'Note: whether vectors of width {width} go with "{plain(name)}" was not checked; that '
            "is seen when it is loaded."
        )
    elif width != known[name]:
        raise PromptError(
            f"The context vectors are {width} wide, but {name} has tokens of width {known[name]}. "
            "Name the model the prompt was trained with; `tpt models` shows the width of each."
        )
