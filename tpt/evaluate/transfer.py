"""Transfer between data sets: prompts learned on some sets, each tested on all.

The methods of one evaluation start from the hand-crafted words and from every prompt in turn
(`cross_methods`), so that each picture of a target is encoded once for all prompts. The predictions
become one matrix a method (`tpt.evaluate.transfer_measure`).

The layout is that of CoCoOp's cross-data-set experiment (2203.05557, section 4.2); a prompt's
average leaves out the set that it was learned on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tpt.data.labelled_sets import LabelledSet
from tpt.errors import MethodError, OutputError, PromptError, SourceError
from tpt.evaluate.method_specs import MethodSpec, parse_methods, start_from
from tpt.evaluate.predictions import NAME
from tpt.prompts import Context
from tpt.runs.journal import Journal
from tpt.text import some

SETTING = "transfer"  # the key in a folder's settings that marks a transfer


@dataclass(frozen=True)
class Prompt:
    """A row of the matrix."""

    name: str  # of the set that it was learned on, or any other
    path: str
    notes: tuple[str, ...] = ()  # what a reader of its row must know


# --- prompts ---


def check_prompt(prompt: Prompt) -> Context:
    """Read a prompt that is to be tested on other sets.

    Raises:
        PromptError: no such file, no prompt, or one that only works for its own classes.
    """
    context = Context.load(prompt.path)
    if context.class_specific:
        whose = f" ({some(context.info.classes)})" if context.info.classes else ""
        raise PromptError(
            f'The prompt "{prompt.name}" ("{prompt.path}") has a context of its own for each of '
            f"its classes{whose}, so it has none for the classes of other sets. Leave it out, or "
            "learn one without --class-specific."
        )
    if context.head is not None:
        raise PromptError(
            f'The prompt "{prompt.name}" ("{prompt.path}") is a few-shot head '
            f"({context.head.method}), which knows only its own classes. Leave it out; `tpt eval` "
            "takes it."
        )
    return context


def name_keys(names: Iterable[str]) -> dict[str, str]:
    """What methods call each prompt: its name without the signs that `--methods` reads."""
    keys: dict[str, str] = {}
    for name in names:
        key = re.sub(r"[+:,\s]+", "-", name)
        while key in keys.values():
            key += "'"
        keys[name] = key
    return keys


def cross_methods(
    texts: Sequence[str], keys: Sequence[str], shared: Mapping[str, Any] | None = None
) -> tuple[MethodSpec, ...]:
    """Every method from the words and from every prompt, zero-shot first.

    Args:
        texts: methods as in `tpt.evaluate.method_specs`, without where they start.
        keys: the prompts' names in the run.
        shared: settings for all methods that have them.

    Raises:
        MethodError: a method that says where it starts; as `parse_methods`.
    """
    for word in (word.strip() for text in texts for word in text.split(",")):
        head = word.partition(":")[0]
        if "+" in head:
            raise MethodError(
                f'"{word}" says where it starts, but in a transfer every method starts from the '
                f'words and from every prompt. Write "{head.partition("+")[0]}".'
            )
    specs = parse_methods(texts, (), shared)
    return tuple(
        made for spec in specs for made in (spec, *(start_from(spec, key) for key in keys))
    )


# --- sets ---


def leave_out(target: LabelledSet, taken: Collection[str]) -> LabelledSet:
    """A target without the pictures that prompts were learned on.

    Args:
        taken: real paths (`os.path.realpath`) of those pictures.

    Raises:
        SourceError: no picture would be left.
    """
    if not taken:
        return target

    def is_free(source: object) -> bool:
        return not (isinstance(source, str) and os.path.realpath(source) in taken)

    samples = tuple(sample for sample in target.samples if is_free(sample.source))
    count, whole = len(target.samples) - len(samples), len(target.samples)
    if not count:
        return target
    if not samples:
        raise SourceError(
            f'A prompt learns from all {whole:,} pictures of "{target.name}", so none is left to '
            "test on. Take fewer --shots, name a set with train and test folders, or leave this "
            "one out."
        )
    notes = [
        f"{count:,} of the {whole:,} pictures are left out, because a prompt is learned on them."
    ]
    before = {sample.label for sample in target.samples}
    lost = before - {sample.label for sample in samples}
    if lost:
        names = some(target.classes[label] for label in sorted(lost))
        plural = "es" * (len(lost) > 1)
        notes.append(f"That leaves no picture of {len(lost):,} class{plural}: {names}.")
    return replace(target, samples=samples, notes=(*target.notes, *notes))


def check_folder(folder: str) -> None:
    """Refuse a folder that holds a run of `tpt eval`.

    Raises:
        OutputError: it does.
    """
    journal = Journal(os.path.join(folder, NAME))
    if not journal.is_begun:
        return
    try:
        settings = journal.read_settings()
    except OutputError:
        return  # `begin` refuses such a folder where it matters
    if SETTING not in settings:
        raise OutputError(
            f'"{folder}" holds a run of `tpt eval`: expected one of `tpt transfer`, or an empty '
            "folder. Choose another --output."
        )
