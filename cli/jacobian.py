"""`--jacobian`: what a dry run tells of it, and what is told while it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tpt.prompts import PromptEngine


def tell_jacobian(engine: PromptEngine, on: bool) -> str:
    """Whether the start's Jacobian is used, what it costs and saves, for --dry-run."""
    from tpt.prompts.operations import count_jacobian

    if engine.conditional:
        return "not possible: each picture has a start context of its own (CoCoOp)"
    return f"{'on' if on else 'off'} ({count_jacobian(engine)})"


def say_jacobian(engine: PromptEngine, done: int) -> None:
    """Print how many classes are done."""
    click.echo(f"Jacobian: {done:,} of {len(engine.classes):,} classes", err=True)


def note_short_run(engine: PromptEngine, pictures: int) -> None:
    """Say it if the Jacobian costs more than it saves."""
    from tpt.prompts.operations import count_jacobian

    even = count_jacobian(engine).even_after
    if even is not None and pictures >= even:
        return
    after = "it saves nothing here" if even is None else f"it breaks even after about {even:,}"
    note = f"Note: --jacobian takes longer than it saves with {pictures:,} pictures; {after}."
    click.echo(note, err=True)
