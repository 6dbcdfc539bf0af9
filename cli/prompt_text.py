"""How `tpt prompt` writes a context, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tpt.prompts import Context

FEW = 5  # classes that a table shows; the rest are left out
NAME_IT = "Name the model, for example --model ViT-B-16 --pretrained openai."
_LABELS = {
    "pretrained": "weights",
    "context_length": "vectors (M)",
    "width": "width (D)",
    "before": "vectors before the name",
    "words": "started from",
    "dataset": "data set",
    "meta_network": "meta-network",
}
FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


def describe(context: Context) -> dict[str, Any]:
    """What a prompt file says, as JSON holds it."""
    info, meta, blend = context.info, context.meta, context.blend
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
        **describe_reading(context),
        # Of the same numbers as the digest that `tpt predict` keeps beside its records.
        "sha256": context.sha256,
    }


def describe_reading(context: Context) -> dict[str, Any]:
    """A head and a calibration, where the file has them."""
    head, calibration = context.head, context.calibration
    names = ("method", "temperature", "rule", "threshold", "pictures")
    heads = {} if head is None else {n: getattr(head, n) for n in ("method", "alpha", "beta")}
    told = {} if calibration is None else {n: getattr(calibration, n) for n in names}
    return {key: facts for key, facts in (("head", heads), ("calibration", told)) if facts}


def label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " "))


def tell(key: str, value: Any, every: bool = False) -> str:
    """A value of `describe` in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "no" if key in ("meta_network", "blend") else "not said"
    if key == "meta_network":
        return f"yes (CoCoOp, {value['inputs']} image features, {value['hidden']} hidden)"
    if key == "blend":
        quoted = ", ".join(f'"{plain(template)}"' for template in value["templates"])
        return f"{value['weight']:g} of the soft prompt, the rest {quoted}"
    if key == "head":
        return f"{value['method']}, a few-shot head"
    if key == "calibration":
        bound = "" if value["threshold"] is None else f", {value['rule']} {value['threshold']:.4g}"
        return f"temperature {value['temperature']:.4g} for {value['method']}{bound}"
    if key == "classes":
        shown = value if every else value[:FEW]
        more = f", ... ({len(value)})" if len(shown) < len(value) else ""
        return ", ".join(map(plain, shown)) + more
    return plain(value)


def tell_pair(key: str, a: Any, b: Any) -> tuple[str, str]:
    """Two values that differ; for two lists of classes, the first place where they differ."""
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
    """Columns at least two spaces apart, without spaces at the end of a line."""
    columns = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = ("  ".join(f"{text:{widths[i]}}" for i, text in enumerate(row)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def plain(value: object) -> str:
    """Text on one line; characters that cannot be printed or seen are escaped."""
    text = str(value)
    if text and not text.strip():
        return repr(text)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def print_json(content: dict[str, Any]) -> None:
    """Print one object; values that JSON does not know are written as text."""
    click.echo(json.dumps(content, indent=1, default=str))


def note(text: str) -> None:
    """A line on stderr."""
    click.echo(text, err=True)
