"""`tpt prompt`: what is in a prompt file, prompt files of official checkpoints, and differences."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.failures import told_plainly
from cli.predict import read_classes
from tpt.errors import OutputError, PromptError, TptError

if TYPE_CHECKING:
    from torch import Tensor

    from tpt.clip import Clip
    from tpt.prompts import Context
    from tpt.prompts.nearest import NearWord

_FEW = 5  # classes that a table shows before it elides the rest
_NAME_IT = "Name the model, for example --model ViT-B-16 --pretrained openai."
_LABELS = {
    "pretrained": "weights",
    "context_length": "vectors (M)",
    "width": "width (D)",
    "before": "vectors before the name",
    "words": "started from",
    "dataset": "data set",
    "meta_network": "meta-network",
}
_FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@click.group("prompt")
def command() -> None:
    """Show, import and compare prompt files.

    \b
    tpt prompt show coop.safetensors                what it is and the words nearest to it
    tpt prompt import model.pth.tar-50 --output coop.safetensors --model ViT-B-16 \\
        --pretrained openai                         make an official checkpoint one of ours
    tpt prompt diff a.safetensors b.safetensors     what differs
    """


# --- show ---


@command.command("show")
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
@click.option("--all-classes", is_flag=True, help="Elide no class in the table.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@_FORMAT
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

    All that the file says is shown, and for each vector the tokens whose embeddings have the
    smallest Euclidean distance to it, as in the CoOp paper. A piece of a word that others follow
    ends in "-". A model is needed for them, so where the prompt's own cannot be had, the rest is
    shown alone. The sha256 is of the numbers, a meta-network's included; the records of `tpt
    predict` keep its first 16 digits.
    """
    with told_plainly():
        from tpt.prompts import Context

        context = Context.load(file)
        clip = find_clip(context, model, pretrained, device) if count else None
        shown = len(context.vectors) if all_classes or form == "json" else _FEW
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
    """The model whose words are searched; None, told on stderr, if there is none to be had.

    Raises:
        TptError: a model was named and cannot be used; no such device.
    """
    from tpt.load import EMBEDDED, find_device, load_clip
    from tpt.runtime.job import JobSettings, choose_model

    info = context.info
    if model is None and pretrained is None and info.model is None:
        note(
            "The file does not say which model it was made for (official CoOp checkpoints never "
            f"do), so its nearest words are left out. {_NAME_IT}"
        )
        return None
    name, tag = choose_model(JobSettings(model=model, pretrained=pretrained), context)
    place = find_device(device)
    if name not in EMBEDDED:
        note(
            f"Loading {plain(name)} (weights that are not here yet are fetched first; --words 0 "
            "goes without) ..."
        )
    try:
        clip = load_clip(name, tag, device=place)
    except TptError as error:
        if model is not None:
            raise
        note(f"The nearest words are left out: the prompt's own model is not to be had. {error}")
        return None
    if clip.pretrained == "random":
        note("Warning: the model's weights are random, and so are the nearest words.")
    elif info.model is not None and (info.model, info.pretrained) != (clip.name, clip.pretrained):
        note(
            f"Warning: the prompt was made for {name_model(info.model, info.pretrained)}; its "
            f"vectors need not mean anything to {name_model(clip.name, clip.pretrained)}."
        )
    return clip


def find_words(
    context: Context, clip: Clip, count: int, classes: int, named: bool
) -> list[list[list[NearWord]]] | None:
    """For the first `classes` classes (or the one context of all) and each vector, its words.

    None, told on stderr, where the prompt's own model is of another width; an error if the user
    named the model.
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
    """What JSON holds: words [vector][rank] or [class][vector][rank], as the vectors' own shape."""
    every = [[[vars(word) for word in row] for row in rows] for rows in words]
    own = every if context.class_specific else every[0]
    return {"model": clip.name, "pretrained": clip.pretrained, "words": own}


def word_table(context: Context, words: list[list[list[NearWord]]]) -> str:
    """One line a vector; with the class in front where every class has its own."""
    rows = [["class", "vector", *["word", "distance"] * len(words[0][0])]]
    for place, vectors in enumerate(words):
        for m, near in enumerate(vectors, start=1):
            cells = [cell for word in near for cell in (plain(word.word), f"{word.distance:.4f}")]
            rows.append([plain(class_name(context, place)), str(m), *cells])
    return table(rows if context.class_specific else [row[1:] for row in rows])


# --- import ---


@command.command("import")
@click.argument("source", metavar="SRC")
@click.option("--output", required=True, metavar="FILE.safetensors")
@click.option("--model", help="Model it was trained with. Required unless SRC says it.")
@click.option("--pretrained", help="Tag or weight file of an open_clip model.")
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

    SRC is an official CoOp, CoCoOp or KgCoOp checkpoint (prompt_learner/model.pth.tar-50) or any
    prompt file. What the options say is added to what SRC says, or takes its place. No weights
    are loaded, and nothing in SRC is executed.
    """
    with told_plainly():
        from dataclasses import replace

        from tpt.prompts.context import Context, PromptInfo

        names = read_classes(classes)
        check_output(output, overwrite)
        context = Context.load(source)
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
        facts = {"model": name, "pretrained": tag, "classes": names, **said}
        context = context.described(**{k: v for k, v in facts.items() if v is not None})
        context.save(output)
    kind = "class-specific " if context.class_specific else ""
    note(
        f'Wrote "{plain(output)}": {kind}vectors {tuple(context.vectors.shape)} for '
        f"{name_model(name, tag)}, class name at the {context.position}."
    )


def check_output(output: str, overwrite: bool) -> None:
    """Refuse an output that could not be written, before anything is read for it."""
    if not output.endswith((".safetensors", ".pt")):
        raise PromptError(
            f'A prompt file ends in .safetensors (preferred) or .pt, but "{output}" does not. '
            "Choose one of the two."
        )
    if os.path.lexists(output) and not overwrite:
        raise OutputError(
            f'"{output}" exists already. Use --overwrite to replace it, or another --output.'
        )


def choose_origin(
    context: Context, source: str, model: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """(model, weights) to write down: as asked and as `load_clip` spells it, else as SRC says.

    Raises:
        UsageError: neither says which model it is.
        ModelError: what `load_clip` would refuse without looking at weights.
    """
    from tpt.load import _check_not_folder, _check_text_tower, _resolve

    info = context.info
    if model is None and info.model is None:
        raise click.UsageError(
            f'"{source}" does not say which model it was made for (official CoOp checkpoints never '
            f"do). {_NAME_IT}",
            click.get_current_context(silent=True),
        )
    name = model or str(info.model)
    known = name if ":" in name else name.replace("/", "-")
    if pretrained is None and (model is None or (known == info.model and info.pretrained)):
        return str(info.model), info.pretrained
    _check_not_folder(name)
    place, weights, _ = _resolve(known, pretrained)
    _check_text_tower(known, place)
    if info.model not in (None, known) or info.pretrained not in (None, weights):
        note(
            f'Note: "{plain(source)}" says that it was made for '
            f"{name_model(info.model, info.pretrained)}; {name_model(known, weights)} takes its "
            "place, as asked."
        )
    return known, weights


def check_width(context: Context, name: str) -> None:
    """Refuse vectors that cannot enter the model, as far as its config is known without loading."""
    from tpt.load import list_models

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


# --- diff ---


@command.command("diff")
@click.argument("a")
@click.argument("b")
@_FORMAT
def diff(a: str, b: str, form: str) -> None:
    """Show how prompt files A and B differ.

    Shown are the metadata that differ, and how far the n-th vector of A lies from the n-th of B as
    float32: Euclidean distance and cosine. For class-specific contexts, whose classes are compared
    by their place, it is the mean over the classes and the class that differs most. The exit code
    is 0 whether or not they differ, 1 if a file cannot be read.
    """
    with told_plainly():
        from tpt.prompts import Context

        first, second = Context.load(a), Context.load(b)
    found = compare(first, second)
    if form == "json":
        print_json({"a": a, "b": b, **found})
        return
    rows = [["", "A", "B"], ["file", plain(a), plain(b)]]
    for key, pair in found["metadata"].items():
        rows.append([label(key), *tell_pair(key, pair["a"], pair["b"])])
    click.echo(table(rows))
    if not found["metadata"]:
        click.echo("The metadata are the same.")
    if found["same_meta_network"] is False and first.meta and second.meta:
        click.echo("The meta-networks hold different numbers.")
    if found["vectors"] is None:
        click.echo(
            f"The vectors have different shapes, {tuple(first.vectors.shape)} and "
            f"{tuple(second.vectors.shape)}, so there are no distances."
        )
        return
    same = "bit for bit the same" if found["same_vectors"] else "not the same"
    click.echo(f"The vectors are {same}.\n")
    titles = list(found["vectors"][0])
    cells = [[cell(row[title]) for title in titles] for row in found["vectors"]]
    click.echo(table([[title.replace("_", " ") for title in titles], *cells]))


def compare(a: Context, b: Context) -> dict[str, Any]:
    """What JSON holds: the metadata that differ, and how far the vectors lie apart."""
    import torch

    facts = [describe(context) for context in (a, b)]
    metadata = {
        key: {"a": facts[0][key], "b": facts[1][key]}
        for key in facts[0]
        if key != "sha256" and facts[0][key] != facts[1][key]
    }
    nets = [context.meta.tensors() if context.meta else {} for context in (a, b)]
    comparable = a.vectors.shape == b.vectors.shape
    return {
        "metadata": metadata,
        "shapes": {"a": list(a.vectors.shape), "b": list(b.vectors.shape)},
        "same_vectors": comparable and torch.equal(bits(a.vectors), bits(b.vectors)),
        "same_meta_network": nets[0].keys() == nets[1].keys()
        and all(torch.equal(bits(nets[0][key]), bits(nets[1][key])) for key in nets[0]),
        "vectors": compare_vectors(a, b) if comparable else None,
    }


def bits(numbers: Tensor) -> Tensor:
    """float32 numbers as integers, in which 0 and -0 differ."""
    import torch

    return numbers.contiguous().view(torch.int32)


def compare_vectors(a: Context, b: Context) -> list[dict[str, Any]]:
    """Distance and cosine a vector; over classes the mean, and the class that differs most."""
    one, two = a.vectors.double(), b.vectors.double()  # (M, D) or (K, M, D)
    distances = (one - two).norm(dim=-1)
    # u.v = 1 - |u - v|^2 / 2 is exactly 1 where the vectors are the same. A vector of zeros has
    # no direction: its cosine is NaN here and null in JSON.
    u, v = (x / x.norm(dim=-1, keepdim=True) for x in (one, two))
    cosines = 1 - (u - v).square().sum(-1) / 2
    rows: list[dict[str, Any]] = []
    for m in range(a.vectors.shape[-2]):
        apart, cosine = distances[..., m], cosines[..., m]
        if not a.class_specific:
            rows.append({"vector": m + 1, "distance": number(apart), "cosine": number(cosine)})
            continue
        far = int(apart.argmax())
        turned = int(cosine.nan_to_num(2).argmin())
        named = a if a.info.classes is not None else b
        rows.append(
            {
                "vector": m + 1,
                "mean_distance": number(apart.mean()),
                "largest_distance": number(apart[far]),
                "largest_class": class_name(named, far),
                "mean_cosine": number(cosine.nanmean()),
                "smallest_cosine": number(cosine[turned]),
                "smallest_class": class_name(named, turned),
            }
        )
    return rows


def number(value: Tensor) -> float | None:
    """A float for JSON, which has no NaN."""
    return None if bool(value.isnan()) else float(value)


# --- words for people ---


def describe(context: Context) -> dict[str, Any]:
    """What a prompt file says, as JSON holds it."""
    import hashlib

    info, meta, blend = context.info, context.meta, context.blend
    parts = [context.vectors, *(meta.tensors().values() if meta else ())]
    return {
        "model": info.model,
        "pretrained": info.pretrained,
        "context_length": context.vectors.shape[-2],
        "width": context.vectors.shape[-1],
        "position": context.position,
        "before": context.before,
        "class_specific": context.class_specific,
        "words": info.words,
        "dataset": info.dataset,
        "shots": info.shots,
        "seed": info.seed,
        "classes": None if info.classes is None else list(info.classes),
        "meta_network": meta and {"inputs": meta.feature_width, "hidden": len(meta.bias_1)},
        "blend": blend and {"templates": list(blend.templates), "weight": blend.weight},
        # Of the same numbers as the digest that `tpt predict` keeps beside its records.
        "sha256": hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest(),
    }


def label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " "))


def tell(key: str, value: Any, every: bool = False) -> str:
    """A value of `describe` in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "meta_network":
        if value is None:
            return "no"
        return f"yes (CoCoOp, {value['inputs']} image features, {value['hidden']} hidden)"
    if key == "blend":
        if value is None:
            return "no"
        quoted = ", ".join(f'"{plain(template)}"' for template in value["templates"])
        return f"{value['weight']:g} of the soft prompt, the rest {quoted}"
    if value is None:
        return "not said"
    if key == "classes":
        shown = value if every else value[:_FEW]
        more = f", ... ({len(value)})" if len(shown) < len(value) else ""
        return ", ".join(map(plain, shown)) + more
    return plain(value)


def tell_pair(key: str, a: Any, b: Any) -> tuple[str, str]:
    """Two values that differ; of two lists of classes the place where they first do."""
    if key != "classes" or a is None or b is None:
        return tell(key, a), tell(key, b)
    pairs = enumerate(zip(a, b, strict=False))
    first = next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))

    def tell_one(names: list[str]) -> str:
        there = f', number {first + 1} is "{plain(names[first])}"' if first < len(names) else ""
        return f"{len(names)} classes{there}"

    return tell_one(a), tell_one(b)


def cell(value: Any) -> str:
    """A value of `compare_vectors` in a table."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else plain(value)


def class_name(context: Context, place: int) -> str:
    names = context.info.classes
    return names[place] if names is not None else f"number {place + 1}"


def name_model(name: str | None, pretrained: str | None) -> str:
    return plain(f"{name} ({pretrained})" if pretrained else str(name))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns with two spaces or more between them, nothing behind the last."""
    columns = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = ("  ".join(f"{text:{widths[i]}}" for i, text in enumerate(row)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def plain(value: object) -> str:
    """Text on one line: what cannot be printed, or seen, is escaped."""
    text = str(value)
    if text and not text.strip():
        return repr(text)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def print_json(content: dict[str, Any]) -> None:
    """One object; what a file's metadata may hold beside text and numbers is written as text."""
    click.echo(json.dumps(content, indent=1, default=str))


def note(text: str) -> None:
    """A line on stderr."""
    click.echo(text, err=True)
