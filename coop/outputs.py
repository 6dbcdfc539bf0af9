"""The files of a training job, and what an earlier start of the job left in them.

Beside `coop.safetensors` stand `coop.jsonl` (the log: settings, every epoch, every finished run),
`coop.files.csv` (which pictures each run took), `coop.md` (a model card), while training
`coop.state.safetensors`, and with several numbers of shots `coop.curve.csv` and `coop.curve.png`.
With several runs each prompt has its own name: `coop-16shot-seed1.safetensors`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save as safetensors_bytes

from coop.loop import State
from coop.sampling import draw_shots
from coop.train_job import TrainJob, shots_text
from tpt.errors import OutputError, why
from tpt.runs.journal import RESUME_OR_OVERWRITE, check_same, open_lines, read_lines
from tpt.runs.lock import check_free, hold
from tpt.runs.whole_files import write_whole

WriteEvent = Callable[[dict[str, Any]], None]
STATE_FORMAT = "tpt-train-state"
_FIRST = b'{"event": "start"'  # how every log begins


def _beside(suffix: str) -> cached_property[Path]:
    """A property of `Outputs`: the output's name with another suffix."""
    return cached_property(lambda outputs: outputs.path.with_suffix(suffix))


@dataclass(frozen=True)
class Outputs:
    """The paths of everything that a job writes."""

    path: Path  # as asked for
    many: bool  # more than one run
    log_path: Path | None = None  # as asked for

    def prompt(self, shots: int | None, seed: int) -> Path:
        """The prompt file of one run."""
        if not self.many:
            return self.path
        name = f"{self.path.stem}-{shots_text(shots)}shot-seed{seed}{self.path.suffix}"
        return self.path.with_name(name)

    def last_good(self, shots: int | None, seed: int) -> Path:
        """Where the vectors before a divergence go; never under the name of a finished prompt."""
        prompt = self.prompt(shots, seed)
        return prompt.with_name(f"{prompt.stem}.last-good{prompt.suffix}")

    @property
    def log(self) -> Path:
        return self.log_path or self.path.with_suffix(".jsonl")

    card = _beside(".md")
    state = _beside(".state.safetensors")
    files = _beside(".files.csv")
    curve_csv = _beside(".curve.csv")
    curve_png = _beside(".curve.png")

    def everything(self, runs: Sequence[tuple[int | None, int]]) -> list[Path]:
        """All that some runs leave on the disk."""
        prompts = [self.prompt(*run) for run in runs]
        curve = [self.curve_csv, self.curve_png] if len({shots for shots, _ in runs}) > 1 else []
        return [*prompts, self.log, self.card, self.files, *curve]


def check_outputs(
    outputs: Outputs,
    runs: Sequence[tuple[int | None, int]],
    *,
    probe: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuse, before a model is loaded, outputs that could not be written or would be lost.

    Raises:
        OutputError: wrong suffix, missing folder, a log in another file's place, files that exist
            already, a prompt to go on with that has no log.
    """
    suffixes = (".safetensors",) if probe else (".safetensors", ".pt")
    if outputs.path.suffix not in suffixes:
        raise OutputError(
            f'--output ends in {" or ".join(suffixes)}, but "{outputs.path}" does not. Choose such '
            "a name."
        )
    if not outputs.path.parent.is_dir():
        raise OutputError(
            f'The folder "{outputs.path.parent}" of --output does not exist. Make it, or choose '
            "another place."
        )
    if resume and overwrite:
        raise OutputError(RESUME_OR_OVERWRITE)
    log, files = outputs.log, outputs.everything(runs)
    if [*files, outputs.state].count(log) > 1:
        raise OutputError(
            f'--log "{log}" is where another file of this training goes. Choose another name.'
        )
    there = [path for path in files if path.exists()]
    if folder := next((path for path in there if path.is_dir()), None):
        raise OutputError(f'"{folder}" is a folder, not a file. Choose another --output or --log.')
    if there and not (resume or overwrite):
        raise OutputError(
            f'"{there[0]}" exists already. Use --resume to go on with that training, --overwrite '
            "to start again, or another --output."
        )
    prompts = {outputs.prompt(*run) for run in runs}
    prompt = next((path for path in there if path in prompts), None)
    if resume and prompt and not log.exists():
        raise OutputError(
            f'"{prompt}" exists, but not its log "{log}", so nobody knows what to go on with. '
            "Start again with --overwrite, or choose another --output."
        )


@contextmanager
def claim_outputs(
    outputs: Outputs, runs: Sequence[tuple[int | None, int]], **options: bool
) -> Iterator[None]:
    """Be the only training that writes the outputs; arguments are those of `check_outputs`.

    Raises:
        OutputError: as `check_outputs`, which looks again when no other run can come between;
            another run writes them.
    """
    check_free(str(outputs.path))
    check_outputs(outputs, runs, **options)
    with hold(str(outputs.path)):
        check_outputs(outputs, runs, **options)
        yield


# --- the log ---


def open_log(path: Path, append: bool) -> AbstractContextManager[WriteEvent]:
    """A function that writes an event to the JSONL log of a job."""
    return open_lines(str(path), json.dumps, append=append, refuse=_log_refused)


def _log_refused(path: str, error: OSError, can_resume: bool) -> OutputError:
    return OutputError(
        f'The log "{path}" could not be written: {why(error)}. What was learned before '
        "is kept; make room, then go on with --resume."
    )


def take_up(job: TrainJob, outputs: Outputs) -> list[dict[str, Any]]:
    """The events of the earlier start of this job; none where it was stopped before the first.

    Raises:
        OutputError: a file that is no log, or the log of a job with other settings; it is left as
            it was.
    """
    if not outputs.log.exists():
        return []
    with outputs.log.open("rb") as file:
        if not _FIRST.startswith(file.read(len(_FIRST))):
            raise _no_log(outputs)
    events: list[dict[str, Any]] = []
    for line in read_lines(str(outputs.log), lacks_end=lambda rest: _read_event(rest) is not None):
        event = _read_event(line)
        if not events:
            before = event.get("settings") if event else None
            if not isinstance(before, dict):
                raise _no_log(outputs)
            check_same(before, job.describe(), str(outputs.path), "begun with other settings")
        if event is not None:  # other lines were not written by a training
            events.append(event)
    return events


def _read_event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _no_log(outputs: Outputs) -> OutputError:
    return OutputError(
        f'"{outputs.log}" is not the log of a training, so nobody knows what to go on with. Start '
        "again with --overwrite, or choose another --output."
    )


# --- the state ---


def save_state(outputs: Outputs, job: TrainJob, shots: int | None, seed: int, state: State) -> None:
    """Keep what training needs to go on, whole or not at all.

    Raises:
        OutputError: the disk refused.
    """
    tensors = {f"p.{name}": tensor for name, tensor in state.parameters.items()}
    tensors |= {f"m.{name}": tensor for name, tensor in state.momentum.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    head = {"format": STATE_FORMAT, "epoch": str(state.epoch), "run": run_digest(job, shots, seed)}
    content = safetensors_bytes(tensors, metadata=head)
    write_whole(outputs.state, content, "state of the training")


def load_state(outputs: Outputs, job: TrainJob, shots: int | None, seed: int) -> State | None:
    """The state of this run, if it was kept; the state of another run is ignored."""
    try:
        with safetensors.safe_open(outputs.state, framework="pt") as file:
            head = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    if head.get("format") != STATE_FORMAT or head.get("run") != run_digest(job, shots, seed):
        return None
    parameters, momentum = (
        {name[2:]: tensor for name, tensor in tensors.items() if name.startswith(kind)}
        for kind in ("p.", "m.")
    )
    return State(int(head["epoch"]), parameters, momentum)


def run_digest(job: TrainJob, shots: int | None, seed: int) -> str:
    """Identifies the run of a state: a digest of the job's settings, the shots and the seed."""
    text = json.dumps([job.describe(), shots, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_files(job: TrainJob, outputs: Outputs) -> None:
    """Write which pictures every run takes for training and validation.

    Raises:
        OutputError: the disk refused.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["shots", "seed", "split", "path", "label"])
    for shots, seed in job.settings.runs:
        draw = draw_shots(job.dataset, shots, seed, job.settings.classes_split)
        for split, items in (("train", draw.train), ("val", draw.val)):
            for item in items:
                row = [shots_text(shots), seed, split, item.path, draw.classes[item.label]]
                writer.writerow(row)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_whole(outputs.files, content, "list of pictures")
