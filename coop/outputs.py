"""The files of a training job, and what an earlier start of it has left in them.

Beside `coop.safetensors` stand `coop.jsonl` (the log: settings, every epoch, every finished run),
`coop.files.csv` (which pictures each run took), `coop.md` (a model card), while training
`coop.state.safetensors`, and with several numbers of shots `coop.curve.csv` and `coop.curve.png`.
With several runs each prompt has its own name: `coop-16shot-seed1.safetensors`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import save as safetensors_bytes

from coop.loop import State
from coop.sampling import draw_shots
from coop.train_job import TrainJob, shots_text
from tpt.errors import OutputError
from tpt.runs.whole_files import write_whole
from tpt.streaming.output import name_change

STATE_FORMAT = "tpt-train-state"
_FIRST = b'{"event": "start"'  # how every log begins


@dataclass(frozen=True)
class Outputs:
    """Where everything goes."""

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

    @property
    def card(self) -> Path:
        return self.path.with_suffix(".md")

    @property
    def state(self) -> Path:
        return self.path.with_suffix(".state.safetensors")

    @property
    def files(self) -> Path:
        return self.path.with_suffix(".files.csv")

    @property
    def curve_csv(self) -> Path:
        return self.path.with_suffix(".curve.csv")

    @property
    def curve_png(self) -> Path:
        return self.path.with_suffix(".curve.png")

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
        raise OutputError(
            "--resume goes on with the output and --overwrite starts it again. Give one of them."
        )
    log, files = outputs.log, outputs.everything(runs)
    if [*files, outputs.state].count(log) > 1:
        raise OutputError(
            f'--log "{log}" is where another file of this training goes. Choose another name.'
        )
    there = [path for path in files if path.exists()]
    folder = next((path for path in there if path.is_dir()), None)
    if folder is not None:
        raise OutputError(f'"{folder}" is a folder, not a file. Choose another --output or --log.')
    if there and not (resume or overwrite):
        raise OutputError(
            f'"{there[0]}" exists already. Use --resume to go on with that training, --overwrite '
            "to start again, or another --output."
        )
    prompt = next((path for path in there if path in {outputs.prompt(*run) for run in runs}), None)
    if resume and prompt is not None and not log.exists():
        raise OutputError(
            f'"{prompt}" exists, but not its log "{log}", so nobody knows what to go on with. '
            "Start again with --overwrite, or choose another --output."
        )


class Log:
    """The JSONL log of a job: one event a line, flushed when it is written."""

    def __init__(self, path: Path, append: bool) -> None:
        self.path = path
        try:
            self._file: IO[str] = path.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error

    def write(self, event: str, **facts: Any) -> None:
        """Write and flush one event.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            self._file.write(json.dumps({"event": event, **facts}, ensure_ascii=True) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f'The log "{self.path}" could not be written: {error.strerror or error}. What was '
            "learned before is kept; make room, then go on with --resume."
        )

    def close(self) -> None:
        """Close the file; what could not be flushed was reported by `write`."""
        with contextlib.suppress(OSError):
            self._file.close()


def take_up(job: TrainJob, outputs: Outputs) -> list[dict[str, Any]]:
    """The events of the earlier start of this job; none where it was stopped before the first.

    Raises:
        OutputError: a file that is no log, or the log of a job with other settings.
    """
    if not outputs.log.exists():
        return []
    events = read_log(outputs.log)
    content = outputs.log.read_bytes()
    begun = _FIRST.startswith(content[: len(_FIRST)]) and b"\n" not in content
    if events or not begun:  # a file that holds something else must not be lost
        check_same(job, outputs, events)
        mend_log(outputs.log)
    return events


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an earlier log; a line that a kill has broken is left out."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def mend_log(path: Path) -> None:
    """Cut off a last line that a kill has broken, so that every line is JSON."""
    with path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        try:
            json.loads(content[end:] or b"{}")
        except ValueError:
            file.truncate(end)
        else:
            file.write(b"\n" if content[end:] else b"")


def check_same(job: TrainJob, outputs: Outputs, events: list[dict[str, Any]]) -> None:
    """Refuse to go on with what was begun with other settings.

    Raises:
        OutputError: naming what changed.
    """
    begun = next((event for event in events if event["event"] == "start"), None)
    before = begun.get("settings") if begun else None
    if not isinstance(before, dict):
        raise OutputError(
            f'"{outputs.log}" is not the log of a training, so nobody knows what to go on with. '
            "Start again with --overwrite, or choose another --output."
        )
    now = json.loads(json.dumps(job.describe()))
    changed = name_change(before, now)
    if changed:
        raise OutputError(
            f'"{outputs.path}" was begun with other settings ({changed}). Use the same settings, '
            "another --output, or --overwrite."
        )


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
    """The state of this very run, if it was kept; that of another run counts for nothing."""
    try:
        with safetensors.safe_open(outputs.state, framework="pt") as file:
            head = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    if head.get("format") != STATE_FORMAT or head.get("run") != run_digest(job, shots, seed):
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"p": {}, "m": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    return State(int(head["epoch"]), parts["p"], parts["m"])


def run_digest(job: TrainJob, shots: int | None, seed: int) -> str:
    """What a state belongs to: the job's settings and the run's shots and seed."""
    text = json.dumps([job.describe(), shots, seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_files(job: TrainJob, outputs: Outputs, runs: Sequence[tuple[int | None, int]]) -> None:
    """Write which pictures every run takes for training and validation.

    Raises:
        OutputError: the disk refused.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["shots", "seed", "split", "path", "label"])
    for shots, seed in runs:
        draw = draw_shots(job.dataset, shots, seed, job.settings.classes_split)
        for split, items in (("train", draw.train), ("val", draw.val)):
            for item in items:
                row = [shots_text(shots), seed, split, item.path, draw.classes[item.label]]
                writer.writerow(row)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_whole(outputs.files, content, "list of pictures")
