"""All runs of a job, one after the other; every result is written as soon as it is there.

`resume` goes on with a job that was interrupted or killed. Finished runs are taken from the log,
the interrupted one goes on from its state, and the vectors come out the same to the last bit.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coop.card import write_card
from coop.head_run import fit_head
from coop.linear_probe import LinearProbe, save_linear_probe
from coop.loop import Epoch, State, TrainError
from coop.outputs import (
    Outputs,
    WriteEvent,
    load_state,
    open_log,
    save_state,
    take_up,
    write_files,
)
from coop.recipes import HEADS, Recipe, RecipeSettings
from coop.run import (
    Run,
    Watch,
    context_of,
    fit_probe,
    measure_run,
    prepare_run,
    recipe_of,
    train_prompt,
    works,
)
from coop.train_job import TrainJob, shots_text
from tpt.errors import MethodError, OutputError
from tpt.prompts import Context
from tpt.report.fewshot_curve import Point, draw_curve, write_curve
from tpt.runs.whole_files import write_whole

_KEEP_EVERY = 10.0  # seconds between two states on the disk

Result = Mapping[str, Any]  # of a run: its kind, file, loss and seconds, and `measure_run`


@dataclass(frozen=True, eq=False)
class _Session:
    """What every run of a job needs."""

    job: TrainJob
    outputs: Outputs
    log: WriteEvent
    watch: Watch
    done: Mapping[tuple[int | str, int, str], Result]  # by shots, seed and kind, from the log


def run_job(job: TrainJob, outputs: Outputs, watch: Watch, *, resume: bool = False) -> list[Result]:
    """Train and measure every run; write prompts, log, list of pictures, card and curve.

    Raises:
        TrainError: a run diverged; its last good vectors are kept under their own name.
        OutputError: the disk refused; what was written before is whole.
        KeyboardInterrupt: passed on, after the state was kept.
    """
    events = take_up(job, outputs) if resume else []
    done = {(e["shots"], e["seed"], e["kind"]): e for e in events if e["event"] == "run"}
    with open_log(outputs.log, append=bool(events)) as log:
        session = _Session(job, outputs, log, watch, done)
        if not events:
            outputs.state.unlink(missing_ok=True)  # of a job that this one replaces
            log({"event": "start", "settings": job.describe()})
        for note in job.dataset.notes:
            watch.say(note)
        write_files(job, outputs)
        results, recipes, points = [], [], []
        for shots, seed in job.settings.runs:
            result, recipe = _do_run(session, shots, seed)
            results.append(result)
            recipes.append(recipe)
            points += _points(session, result, shots, seed)
        outputs.state.unlink(missing_ok=True)
        card = write_card(job, outputs, recipes, results).encode("utf-8", "backslashreplace")
        write_whole(outputs.card, card, "model card")
        if job.is_curve and points:
            _write_curve(session, points, results)
        return results


def _do_run(session: _Session, shots: int | None, seed: int) -> tuple[Result, Recipe]:
    """One run's result: the one in the log if its file is there, else a new one."""
    job, watch = session.job, session.watch
    path = session.outputs.prompt(shots, seed)
    earlier = session.done.get((_json_shots(shots), seed, job.settings.recipe.method))
    if earlier is not None and path.exists():
        watch.say(f"{path.name} is there already.")
        return earlier, recipe_of(job, shots)
    run = prepare_run(job, shots, seed, watch)
    for note in run.draw.notes:
        watch.say(f"Warning: {note}")
    started = time.monotonic()
    learned: Context | LinearProbe
    loss = None
    if run.recipe.method == "linear-probe":
        learned = _probe(run, path, watch)
    elif run.recipe.method in HEADS:
        learned = fit_head(run, watch)
        learned.save(path)
    else:
        learned, loss = _train(session, run)
        learned.save(path)
    result = {
        "kind": run.recipe.method,
        "file": path.name,
        **measure_run(run, learned, watch),
        "loss": loss,
        "seconds": round(time.monotonic() - started, 3),
    }
    session.log({"event": "run", **result})
    return result, run.recipe


def _probe(run: Run, path: Path, watch: Watch) -> LinearProbe:
    probe = fit_probe(run, watch)
    job = run.job
    facts = {
        "model": job.clip.name,
        "pretrained": job.clip.pretrained,
        "weights": job.clip.digest,
        "classes": list(run.draw.classes),
        "dataset": job.dataset.name,
        "shots": run.shots,
        "seed": run.seed,
    }
    save_linear_probe(probe, path, facts)
    return probe


def _train(session: _Session, run: Run) -> tuple[Context, float | None]:
    """A prompt and its last loss; goes on from the state of an earlier start if there is one."""
    outputs, watch = session.outputs, session.watch
    which = {"shots": _json_shots(run.shots), "seed": run.seed}

    def save(state: State) -> None:
        save_state(outputs, run.job, run.shots, run.seed, state)

    state = load_state(outputs, run.job, run.shots, run.seed)
    if state is not None:
        watch.say(f"Going on after epoch {state.epoch} of {run.recipe.epochs}.")
        session.log({"event": "resume", **which, "epoch": state.epoch})
    loss: float | None = None
    before: State | None = None
    saved_at = time.monotonic()
    try:
        for epoch in train_prompt(run, state, watch):
            before, state, loss = state, epoch.state, epoch.loss
            session.log({"event": "epoch", **which, **_epoch_facts(epoch)})
            watch.epoch(epoch, run.recipe.epochs)
            if time.monotonic() - saved_at > _KEEP_EVERY:
                save(state)
                saved_at = time.monotonic()
    except TrainError as error:
        session.log({"event": "diverged", **which, "message": str(error)})
        raise _keep_last_good(run, outputs, (state, before), error) from error
    except BaseException:  # Ctrl-C, a full disk under the log, a picture that is gone
        if state is not None:
            save(state)
        raise
    assert state is not None  # a recipe has at least one epoch
    # In case the disk refuses the prompt. The prompt is smaller and may fit where this does not.
    with contextlib.suppress(OutputError):
        save(state)
    return context_of(run, state), loss


def _keep_last_good(
    run: Run, outputs: Outputs, states: Iterable[State | None], error: TrainError
) -> TrainError:
    """Save the first state that works; return the error with the name of its file."""
    state = next((state for state in states if state is not None and works(run, state)), None)
    where = "Nothing was learned before."
    if state is not None:
        path = outputs.last_good(run.shots, run.seed)
        context_of(run, state).save(path)
        where = f'The vectors after epoch {state.epoch} are in "{path}".'
    outputs.state.unlink(missing_ok=True)
    return TrainError(f"{error} {where}")


def _epoch_facts(epoch: Epoch) -> dict[str, Any]:
    terms = {"terms": {k: round(v, 6) for k, v in epoch.terms.items()}} if epoch.terms else {}
    return {
        "epoch": epoch.number + 1,
        "lr": epoch.lr,
        "loss": round(epoch.loss, 6),
        **terms,
        "accuracy": round(epoch.accuracy, 6),
        "seconds": round(epoch.seconds, 4),
    }


def _json_shots(shots: int | None) -> int | str:
    return "all" if shots is None else shots


# --- the curve ---


def _points(session: _Session, result: Result, shots: int | None, seed: int) -> list[Point]:
    """The run's point of the curve, and the linear probe's on the same pictures."""
    if not session.job.is_curve or "test" not in result["accuracy"]:
        return []
    method = session.job.settings.recipe.method
    mine = Point(method, shots, seed, result["accuracy"]["test"])
    if method == "linear-probe":
        return [mine]
    beside = session.done.get((_json_shots(shots), seed, "linear-probe"))
    if beside is None:
        beside = _probe_beside(session.job, session.watch, shots, seed)
        if beside is None:
            return [mine]
        session.log({"event": "run", **beside})
    return [mine, Point("linear probe", shots, seed, beside["accuracy"]["test"])]


def _probe_beside(job: TrainJob, watch: Watch, shots: int | None, seed: int) -> Result | None:
    """The linear probe's result on the pictures of a run; None where it cannot be had."""
    settings = replace(job.settings, recipe=RecipeSettings("linear-probe"))
    run = prepare_run(replace(job, settings=settings), shots, seed, watch)
    try:
        probe = fit_probe(run, watch)
    except MethodError as error:
        watch.say(f"The curve has no linear probe for {shots_text(shots)} shots. {error}")
        return None
    measured = measure_run(run, probe, watch)
    return {"kind": "linear-probe", "file": None, **measured, "loss": None, "seconds": 0.0}


def _write_curve(session: _Session, points: list[Point], results: Sequence[Result]) -> None:
    job, outputs = session.job, session.outputs
    template = f'"{job.templates[0]}"' if len(job.templates) == 1 else "templates"
    found = [r["template_accuracy"]["test"] for r in results if "test" in r["template_accuracy"]]
    if found:  # where the data have no test set of their own, each run has its own rest
        points = [*points, Point(f"zero-shot, {template}", None, None, statistics.mean(found))]
    write_curve(points, outputs.curve_csv)
    try:
        draw_curve(points, f"{job.dataset.name}, {job.clip.name}", outputs.curve_png)
    except OutputError as error:
        session.watch.say(str(error))
