"""`tpt prompt diff`: how two prompt files differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.failures import plain_errors
from cli.prompt_text import (
    FORMAT,
    cell,
    class_name,
    describe,
    label,
    plain,
    print_json,
    table,
    tell_pair,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tpt.prompts import Context


@click.command("diff")
@click.argument("a")
@click.argument("b")
@FORMAT
def diff(a: str, b: str, form: str) -> None:
    """Show how prompt files A and B differ.

    Shows the metadata that differ, and how far the n-th vector of A lies from the n-th of B as
    float32: Euclidean distance and cosine. Class-specific contexts are compared class by class, in
    order: shown are the mean over the classes and the class that differs most. The exit code is 0
    whether or not they differ, 1 if a file cannot be read.
    """
    with plain_errors():
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
    """The metadata that differ and how far the vectors lie apart, as JSON holds them."""
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
