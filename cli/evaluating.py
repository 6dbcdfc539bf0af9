"""What the commands that evaluate share: reading sets, building a run, predicting with progress."""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from cli.failures import interruptible
from cli.jacobian import say_jacobian
from cli.options import tell_model
from cli.progress import Tally, progress
from tpt.errors import ImageError, MethodError

if TYPE_CHECKING:
    from tpt.data.labelled_sets import LabelledSet, ReadOptions
    from tpt.evaluate.evaluation import EvalSettings, Evaluation
    from tpt.evaluate.walks import Walk
    from tpt.runs.journal import Journal

Say = Callable[[str], None]

_MANY_SENTENCES = 5_000  # from here on the wait before the first picture is explained


def check_extra(command: str, modules: Sequence[str], extra: str = "eval") -> None:
    """Refuse before the run if libraries are missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        packages = ", ".join(missing).replace("sklearn", "scikit-learn").replace("_", "-")
        why = " for what it measures and draws" if extra == "eval" else ""
        raise click.ClickException(
            f"`tpt {command}` needs {packages}{why}. Install "
            f"{'it' if len(missing) == 1 else 'them'}: pip install 'tpt-runtime[{extra}]'."
        )


# --- sets ---


def read_one(text: str, how: ReadOptions, say: Say) -> tuple[LabelledSet, ...]:
    """Read the sets of one argument, and say what was found."""
    from tpt.data.layouts import read_sets

    name, path = split_name(text)
    with telling_warnings(say, of=""):  # layouts may come from other packages
        found = read_sets(path, how, name)
    for part in found[:_TOLD]:
        say(
            f"{part.name}: {part.layout}; {len(part.classes):,} classes, "
            f"{len(part.samples):,} pictures"
        )
    if len(found) > _TOLD:
        say(f"... and {len(found) - _TOLD} more sets of {path}")
    for note in dict.fromkeys(note for part in found for note in part.notes):
        say(f"  Note: {note}")
    return found


def list_pictures(path: str, all_files: bool = False) -> list[Any]:
    """The paths of the pictures in a folder and below it, or of any other source."""
    from tpt.streaming.folders import Search
    from tpt.streaming.sources import find_sources

    return list(find_sources((path,), Search(True, all_files)))


def read_single(path: str, how: ReadOptions, say: Say) -> LabelledSet:
    """Read the only set of a path; refuse several."""
    found = read_one(path, how, say)
    if len(found) > 1:
        raise MethodError(
            f'"{path}" holds {len(found)} sets ({found[0].name}, ...). Name one of them.'
        )
    return found[0]


_TOLD = 6  # sets of one tree that are told one by one


def split_name(text: str) -> tuple[str | None, str]:
    """(name, path) of NAME=PATH; a path that exists as it is has no name."""
    name, equals, path = text.partition("=")
    if not equals or os.path.exists(text) or os.sep in name:
        return None, text
    return name, path


# --- the run ---


def build(wanted: EvalSettings, walks: tuple[Walk, ...], say: Say) -> Evaluation:
    """Load the model and make the methods, and say what was chosen by default."""
    from tpt.evaluate.evaluation import build_evaluation, total_lines
    from tpt.streaming.predict_settings import DEFAULT_MODEL

    if wanted.model not in (None, DEFAULT_MODEL):
        say(f"Loading {wanted.model} (weights that are not here yet are fetched first) ...")
    with telling_warnings(say, of=""):
        evaluation = build_evaluation(wanted, walks)
    clip = evaluation.clip
    say(f"Model: {clip.name}" + (f" ({clip.pretrained})" if clip.pretrained else ""))
    tell_model(clip, wanted.precision, "the numbers mean", say)
    say(f"Methods: {', '.join(spec.name for spec in wanted.specs)}")
    if evaluation.keeps_state():
        say(
            "Note: a method learns from each picture, so its numbers depend on their order; sets "
            "sorted by class can make it worse than zero-shot."
        )
    sentences = evaluation.count_sentences()
    if sentences >= _MANY_SENTENCES:
        say(
            f"Note: {sentences:,} sentences of template ensembles are encoded first, once a list "
            "of classes; that takes a while."
        )
    say(f"{total_lines(walks):,} pictures to predict, each once for each of its sets.")
    return evaluation


@contextmanager
def telling_warnings(say: Say, of: str = "tpt") -> Iterator[None]:
    """Say every UserWarning of one package, or of all where `of` is empty, as a line.

    Pillow's warnings about broken metadata name no image, so they are left out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=of)
        warnings.filterwarnings("ignore", module="PIL")
        warnings.showwarning = lambda message, *rest, **more: say(f"Warning: {message}")
        yield


def predict_all(
    evaluation: Evaluation, journal: Journal, options: dict[str, Any], quiet: bool
) -> int:
    """Predict what is not done yet; return how many pictures have no prediction."""
    from tpt.evaluate.evaluation import total_lines
    from tpt.evaluate.predictions import begin, drop_begun, write_predictions

    settings, environment = evaluation.settings, evaluation.environment
    done = begin(journal, settings, environment, evaluation.walks, options["resume"])
    if evaluation.keeps_state():  # the state is gone, so an unfinished set starts again
        done = [drop_begun(journal.path, part) for part in done]
    earlier = sum(part.lines for part in done)
    tally = Tally(total=total_lines(evaluation.walks) - earlier)
    stopped = interruptible(lambda: f"Interrupted after {tally.summary()}. Go on with --resume.")
    with stopped, progress(quiet) as show:
        for walk, before in zip(evaluation.walks, done, strict=True):
            if before.complete and before.lines:
                continue
            began = time.monotonic()
            evaluation.prepare(walk, None if quiet else say_jacobian)
            tally.started += time.monotonic() - began
            lines = evaluation.run(
                walk,
                batch_size=options["batch_size"] or evaluation.batch_size,
                num_workers=options["num_workers"],
                done=before.lines,
            )
            with write_predictions(journal.path) as write, closing(lines):
                for line in lines:
                    if options["strict"] and "error" in line:
                        raise ImageError(f"{line['key']!r}: {line['error']['message']}")
                    write(line)
                    tally.add(line)
                    show(tally)
    if not quiet:
        told = f" {earlier:,} were done before." if earlier else ""
        click.echo(f"{tally.summary()}.{told}", err=True)
    return tally.failed + sum(part.failed for part in done)


def measuring() -> AbstractContextManager[None]:
    """Say on Ctrl-C that no prediction is lost."""
    return interruptible(
        lambda: "Interrupted while measuring; every picture is predicted. Go on with --resume."
    )
