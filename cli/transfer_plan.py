"""What `tpt transfer` will do, before a model is loaded: sets, prompts, what each learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from cli.evaluating import Say, read_one
from cli.option_values import read_shared
from cli.options import fill

if TYPE_CHECKING:
    from coop.outputs import Outputs
    from coop.train_job import TrainSettings
    from coop.transfer_prompts import Source
    from tpt.data.labelled_sets import LabelledSet
    from tpt.evaluate.transfer import Prompt
    from tpt.evaluate.walks import Walk
    from tpt.runs.journal import Journal


@dataclass(frozen=True, eq=False)
class TransferPlan:
    """The sets, the prompts and how they are learned."""

    journal: Journal
    walks: tuple[Walk, ...]  # through what is tested
    sources: tuple[Source, ...]  # what is learned from
    outputs: Mapping[str, Outputs]  # where each source's prompt goes
    prompts: tuple[Prompt, ...]  # the rows
    learning: TrainSettings


def plan_run(texts: Sequence[str], options: dict[str, Any], say: Say) -> TransferPlan:
    """Read the sets and the prompts, and decide what each prompt learns from and is tested on."""
    from coop.transfer_prompts import check_sources, find_source
    from tpt.data.labelled_sets import ReadOptions
    from tpt.errors import SourceError
    from tpt.evaluate.predictions import check_outside, open_folder
    from tpt.evaluate.transfer import check_folder, leave_out
    from tpt.evaluate.walks import draw_some, plan_walks

    folder, resume, overwrite = options["folder"], options["resume"], options["overwrite"]
    check_folder(folder)
    journal = open_folder(folder, resume, overwrite)
    given = read_given(options["given"])
    check_methods(options)
    read = [part for text in texts for part in read_one(text, ReadOptions(), say)]
    if len(read) < 2:
        raise SourceError(
            f'There is one set only, "{read[0].name}", and nothing to transfer to: expected at '
            "least two. Name another one."
        )
    check_outside(folder, plan_walks(read))  # and no two sets of one name
    names = choose_sources(
        [part.name for part in read], [p.name for p in given], options["sources"]
    )
    learning = read_learning(options, given)
    sources = tuple(find_source(part, learning) for part in read if part.name in names)
    given, taken = look_into(given, read, say)
    taken |= tell_sources(sources, say)
    free = [leave_out(part, taken) for part in read]
    for before, after in zip(read, free, strict=True):
        for note in after.notes[len(before.notes) :]:
            say(f"{after.name}: {note}")
    limit = options["limit"]
    tested = [draw_some(part, limit, options["seed"]) if limit else part for part in free]
    outputs = check_sources(folder, sources, learning, resume=resume, overwrite=overwrite)
    rows = (*given, *rows_of(sources, outputs))
    order = {part.name: place for place, part in enumerate(read)}
    rows = tuple(sorted(rows, key=lambda row: order.get(row.name, len(order))))
    return TransferPlan(journal, plan_walks(tested), sources, outputs, rows, learning)


def read_given(values: Sequence[str]) -> tuple[Prompt, ...]:
    """The prompts of --prompt NAME=FILE."""
    from tpt.evaluate.transfer import Prompt

    prompts = []
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise click.BadParameter(
                f'"{value}" is not NAME=FILE: expected the name of a row, "=" and a prompt file, '
                f"for example photo={path or value or 'photo.safetensors'}.",
                param_hint="--prompt",
            )
        prompts.append(Prompt(name, path))
    names = [prompt.name for prompt in prompts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.BadParameter(
            f'Two prompts are called "{twice}", and each is a row of its own. Give them '
            "different names.",
            param_hint="--prompt",
        )
    return tuple(prompts)


def choose_sources(sets: Sequence[str], given: Sequence[str], asked: str | None) -> tuple[str, ...]:
    """The names of the sets to learn on."""
    from tpt.errors import suggest

    if asked is None:
        return () if given else tuple(sets)
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in sets:
            raise click.BadParameter(
                f'There is no set "{name}" to learn on.{suggest(name, sets)} Expected some of '
                f"{', '.join(sets)}.",
                param_hint="--sources",
            )
        if name in given:
            raise click.BadParameter(
                f'The prompt of "{name}" is given with --prompt, so none is to be learned. Leave '
                "one of the two out, or give the prompt another name.",
                param_hint="--sources",
            )
    if not names and not given:
        raise click.BadParameter(
            "It names no set and there is no --prompt, so there would be no row. Name some of "
            f"{', '.join(sets)}.",
            param_hint="--sources",
        )
    return names


def read_learning(options: dict[str, Any], given: Sequence[Prompt]) -> TrainSettings:
    """How prompts are learned, with the model of the run."""
    from coop.transfer_prompts import set_learning
    from tpt.prompts import Context
    from tpt.streaming.predict_job import choose_model

    first = given[0].path if given else None
    context = None if first is None else Context.load(first)
    model, pretrained = choose_model(options["model"], options["pretrained"], context, first)
    same = ("shots", "seed", "epochs", "device", "precision", "micro_batch", "num_workers")
    how = {name: options[name] for name in same}
    return set_learning(model=model, pretrained=pretrained, **how)


def look_into(
    given: Sequence[Prompt], read: Sequence[LabelledSet], say: Say
) -> tuple[tuple[Prompt, ...], frozenset[str]]:
    """The given prompts, with notes, and the pictures that they were learned on."""
    from coop.transfer_prompts import read_taken
    from tpt.evaluate.transfer import check_prompt

    sets = {part.name for part in read}
    told, taken = [], frozenset[str]()
    for prompt in given:
        context = check_prompt(prompt)
        own = read_taken(prompt.path, context)
        taken |= own or frozenset()
        if own is None and prompt.name in sets:
            note = (
                "which pictures it was learned on is not known, because its .files.csv is missing; "
                f'if some of them are tested, its number on "{prompt.name}" is too good.'
            )
            say(f'Note: prompt "{prompt.name}": {note}')
            prompt = replace(prompt, notes=(note,))
        told.append(prompt)
    return tuple(told), taken


def tell_sources(sources: Sequence[Source], say: Say) -> frozenset[str]:
    """Say what each prompt is learned from; return the pictures to leave out of the tests."""
    taken = frozenset[str]()
    for source in sources:
        count = len(source.dataset.train)
        where = "its training pictures" if source.apart else "its pictures"
        say(f"{source.name}: learns from {len(source.drawn):,} of {where} ({count:,}).")
        taken |= source.taken
    return taken


def rows_of(sources: Sequence[Source], outputs: Mapping[str, Outputs]) -> Iterator[Prompt]:
    """The rows of the prompts that are learned here."""
    from tpt.evaluate.transfer import Prompt

    for source in sources:
        where = "the set's training pictures" if source.apart else "pictures that are not tested"
        path = str(outputs[source.name].path)
        yield Prompt(source.name, path, (f"learned in this run, from {where}.",))


def check_methods(options: dict[str, Any]) -> None:
    """Refuse, before anything is learned, methods and settings that do not go together."""
    from tpt.evaluate.evaluation import EvalSettings, check_options
    from tpt.evaluate.method_pool import Starts
    from tpt.evaluate.transfer import cross_methods

    specs = cross_methods(options["methods"], (), read_shared(options))
    check_options(fill(EvalSettings, options, specs=specs, starts=Starts({})))
