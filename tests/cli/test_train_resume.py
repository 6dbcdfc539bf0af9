"""A training that was stopped, killed or refused by the disk ends with the same vectors."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor

import coop.features
import coop.train_job
import tpt

METHODS = ("coop", "cocoop", "kgcoop", "e2mim")
QUICK = ("--epochs", 4, "--cache-views", 2, "--num-workers", 0)
FAST = ("--shots", 2, *QUICK)
DATA = ("pets", "--output", "p.safetensors")

Train = Callable[..., Result]


@pytest.fixture(autouse=True)
def _pets(make_images: Callable[..., list[str]]) -> None:
    make_images(*(f"pets/{name}/{n}.png" for name in ("cat", "dog", "owl") for n in range(5)))


def tensors_of(path: str) -> dict[str, Tensor]:
    context = tpt.Context.load(path)
    meta = context.meta.tensors() if context.meta else {}
    return {"vectors": context.vectors, **meta}


def same(left: str, right: str) -> bool:
    """Whether two prompts are equal to the last bit."""
    mine, other = tensors_of(left), tensors_of(right)
    return mine.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in mine.items()
    )


def read_events(log: str = "p.jsonl") -> list[dict[str, Any]]:
    """Every line of a log, each of which is JSON."""
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def kinds(log: str = "p.jsonl") -> list[str]:
    return [event["event"] for event in read_events(log)]


@contextmanager
def stopped_after(epochs: int, how: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """As if Ctrl-C were pressed when so many epochs of the command were done."""
    seen: list[int] = []

    def stop(self: object, epoch: Any, total: int) -> None:
        seen.append(epoch.number)
        if len(seen) == epochs:
            raise how

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.train_progress.Plain.epoch", stop)
        yield


@contextmanager
def no_room_for(name: str) -> Iterator[None]:
    """No file of that name can be put in its place."""
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        yield


@contextmanager
def at_most_bytes(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- the same again ---


@pytest.mark.parametrize("method", METHODS)
def test_the_same_command_learns_the_same_vectors(train: Train, method: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--method", method, "--seeds", seed, *FAST)
        assert train("pets", "--output", f"{name}.safetensors", *words).exit_code == 0
    assert same("a.safetensors", "b.safetensors")
    assert not same("a.safetensors", "c.safetensors")


def test_neither_workers_nor_an_overwritten_training_change_the_vectors(train: Train) -> None:
    train("pets", "--output", "a.safetensors", *FAST, "--num-workers", 0)
    train("pets", "--output", "b.safetensors", *FAST, "--seeds", 5)
    train("pets", "--output", "b.safetensors", *FAST, "--num-workers", 3, "--overwrite")
    assert same("a.safetensors", "b.safetensors")
    assert kinds("b.jsonl").count("start") == 1


# --- stopped and continued ---


@pytest.mark.parametrize(
    ("method", "words"),
    [*((method, ()) for method in METHODS), ("coop", ("--cache-views", "off", "--batch-size", 4))],
)
def test_ctrl_c_and_resume_end_with_the_vectors_of_an_unbroken_training(
    train: Train, method: str, words: tuple[Any, ...]
) -> None:
    words = ("--method", method, *FAST, *words)
    train("pets", "--output", "whole.safetensors", *words)
    with stopped_after(2):
        result = train(*DATA, *words)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.endswith("\nInterrupted. Go on with --resume.\n")
    assert not Path("p.safetensors").exists()
    assert kinds() == ["start", "epoch", "epoch"]
    result = train(*DATA, *words, "--resume")
    assert result.exit_code == 0
    assert "Going on after epoch 2 of 4." in result.stderr
    assert kinds() == ["start", "epoch", "epoch", "resume", "epoch", "epoch", "run"]
    assert [e["epoch"] for e in read_events() if e["event"] == "epoch"] == [1, 2, 3, 4]
    assert same("p.safetensors", "whole.safetensors")
    losses = [[e["loss"] for e in read_events(f"{n}.jsonl") if "loss" in e] for n in ("p", "whole")]
    assert losses[0] == losses[1]
    assert not Path("p.state.safetensors").exists()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_may_be_stopped_again_and_again(train: Train, epochs: int) -> None:
    train("pets", "--output", "whole.pt", *FAST)
    words = ("pets", "--output", "p.pt", *FAST, "--resume")  # the first time nothing is there
    for _ in range(4 // epochs):
        with stopped_after(epochs):
            assert train(*words).exit_code == 130
    assert train(*words).exit_code == 0
    assert same("p.pt", "whole.pt")


def test_resume_goes_on_with_another_device_and_other_workers(train: Train) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    with stopped_after(1):
        train(*DATA, *FAST, "--device", "auto", "--num-workers", 2)
    words = ("--device", "cpu", "--num-workers", 0, "--quiet", "--resume")
    result = train(*DATA, *FAST, *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert same("p.safetensors", "whole.safetensors")


def test_several_runs_go_on_with_the_one_that_was_stopped(train: Train) -> None:
    words = ("--shots", "1,2", *QUICK)
    train("pets", "--output", "whole.safetensors", *words)
    with stopped_after(4 + 2):  # in the second of two runs
        assert train(*DATA, *words).exit_code == 130
    done = Path("p-1shot-seed1.safetensors")
    before = (done.read_bytes(), done.stat().st_mtime_ns)
    assert not Path("p-2shot-seed1.safetensors").exists()
    result = train(*DATA, *words, "--resume")
    assert result.exit_code == 0
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before
    assert f"{done} is there already.\nGoing on after epoch 2 of 4.\n" in result.stderr
    assert kinds().count("run") == kinds("whole.jsonl").count("run") == 4
    for run in ("1shot-seed1", "2shot-seed1"):
        assert same(f"p-{run}.safetensors", f"whole-{run}.safetensors")
    for suffix in (".curve.csv", ".files.csv"):
        assert Path(f"p{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()
    card = Path("p.md").read_text()
    assert card == Path("whole.md").read_text().replace("whole", "p")


def test_a_finished_training_is_told_again_without_opening_a_picture(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shots", "1,2", *QUICK)
    first = train(*DATA, *words)
    before = Path("p.jsonl").read_bytes()
    monkeypatch.setattr(coop.features, "decode_ahead", None)
    again = train(*DATA, *words, "--resume")
    assert again.exit_code == 0
    assert again.stdout == first.stdout
    assert Path("p.jsonl").read_bytes() == before


def test_a_prompt_that_went_away_is_trained_again(train: Train) -> None:
    train(*DATA, *FAST)
    os.rename("p.safetensors", "before.safetensors")
    assert train(*DATA, *FAST, "--resume").exit_code == 0
    assert same("p.safetensors", "before.safetensors")


def test_a_log_may_lie_elsewhere(train: Train) -> None:
    os.mkdir("logs")
    words = (*DATA, *FAST, "--log", "logs/train.log")
    with stopped_after(2):
        train(*words)
    assert not Path("p.jsonl").exists()
    assert kinds("logs/train.log") == ["start", "epoch", "epoch"]
    assert "exists already" in train(*words).stderr
    assert train(*words, "--resume").exit_code == 0
    assert kinds("logs/train.log")[-1] == "run"


@pytest.mark.parametrize("cut", [1, 20, 0.5, -1])
def test_a_log_whose_last_line_is_broken_is_gone_on_with_and_is_whole_again(
    train: Train, cut: float
) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    with stopped_after(3):
        train(*DATA, *FAST)
    *lines, last = Path("p.jsonl").read_bytes().splitlines(keepends=True)
    size = int(cut * len(last)) if isinstance(cut, float) else cut
    Path("p.jsonl").write_bytes(b"".join(lines) + last[:size])
    assert train(*DATA, *FAST, "--resume").exit_code == 0
    kept = ["epoch"] * (3 if cut == -1 else 2)  # only the line's end was missing
    assert kinds() == ["start", *kept, "resume", "epoch", "run"]
    assert same("p.safetensors", "whole.safetensors")


@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_log_that_was_killed_in_its_first_line_begins_again(train: Train, size: int) -> None:
    train(*DATA, *FAST)
    whole = Path("p.jsonl").read_bytes()
    os.remove("p.safetensors")
    Path("p.jsonl").write_bytes(whole[:size])
    assert train(*DATA, *FAST, "--resume").exit_code == 0
    assert kinds() == ["start", *["epoch"] * 4, "run"]


@pytest.mark.parametrize("content", ["path,label\na,b\n", '{"path": "a"}\n', "my notes"])
def test_a_file_that_is_no_log_is_not_lost(train: Train, content: str) -> None:
    Path("notes").write_text(content)
    result = train(*DATA, *FAST, "--log", "notes", "--resume")
    assert result.exit_code == 1
    assert '"notes" is not the log of a training, so nobody knows what to go on' in result.stderr
    assert Path("notes").read_text() == content


def test_a_prompt_without_its_log_is_not_trained_over(train: Train) -> None:
    train(*DATA, *FAST)
    os.remove("p.jsonl")
    before = Path("p.safetensors").read_bytes()
    result = train(*DATA, *FAST, "--resume")
    assert result.exit_code == 1
    assert '"p.safetensors" exists, but not its log "p.jsonl", so nobody knows' in result.stderr
    assert Path("p.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--shots", 3), '(shots; shots was ["2"], now ["3"])'),
        (("--seeds", 2), "(seeds; seeds was [1], now [2])"),
        (("--classes", "owl,cat,dog"), '(classes; classes was ["cat", "dog", "owl"], now ["owl"'),
        (("--epochs", 5), "(recipe epochs; recipe epochs was 4, now 5)"),
        (("--method", "kgcoop"), '(recipe method; recipe method was "coop", now "kgcoop")'),
        (("--test", "none"), '(test; test was null, now "none")'),
        (("--template", "a {}."), '(templates; templates was ["a photo of a {}."], now ["a {}."])'),
        (("--precision", "bf16", "--seeds", 3), "(precision, seeds; "),
    ],
)
def test_other_settings_are_refused_by_name(
    train: Train, words: tuple[Any, ...], text: str
) -> None:
    with stopped_after(2):
        train(*DATA, *FAST)
    before = Path("p.jsonl").read_bytes()
    result = train(*DATA, *FAST, *words, "--resume")
    assert result.exit_code == 1
    assert f'"p.safetensors" was begun with other settings {text}' in result.stderr
    assert result.stderr.endswith("another --output, or --overwrite.\n")
    assert Path("p.jsonl").read_bytes() == before


def test_other_pictures_are_other_settings(train: Train) -> None:
    with stopped_after(2):
        train(*DATA, *FAST)
    shutil.copy("pets/cat/0.png", "pets/cat/new.png")
    result = train(*DATA, *FAST, "--resume")
    assert result.exit_code == 1
    assert 'other settings (pictures; pictures was "15, sha256 ' in result.stderr


def test_a_state_of_another_run_counts_for_nothing(train: Train) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    with stopped_after(2):
        train("pets", "--output", "other.safetensors", *FAST, "--seeds", 2)
    with stopped_after(1):
        train(*DATA, *FAST)
    shutil.copy("other.state.safetensors", "p.state.safetensors")
    result = train(*DATA, *FAST, "--resume")
    assert result.exit_code == 0
    assert "Going on" not in result.stderr
    assert same("p.safetensors", "whole.safetensors")


@pytest.mark.parametrize("damage", [b"", b"no state", None])
def test_a_damaged_state_counts_for_nothing(train: Train, damage: bytes | None) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    with stopped_after(2):
        train(*DATA, *FAST)
    state = Path("p.state.safetensors")
    state.write_bytes(state.read_bytes()[:-9] if damage is None else damage)
    assert train(*DATA, *FAST, "--resume").exit_code == 0
    assert same("p.safetensors", "whole.safetensors")


def test_a_stopped_training_is_not_begun_again_unasked(train: Train) -> None:
    with stopped_after(2):
        train(*DATA, *FAST)
    assert '"p.jsonl" exists already. Use --resume' in train(*DATA, *FAST).stderr
    result = train(*DATA, *FAST, "--overwrite")
    assert result.exit_code == 0
    assert "Going on" not in result.stderr
    assert kinds() == ["start", *["epoch"] * 4, "run"]


def test_ctrl_c_while_pictures_are_encoded_loses_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(coop.features, "decode_ahead", stop)
        result = train(*DATA, *FAST)
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted. Go on with --resume.\n")
    assert train(*DATA, *FAST, "--resume").exit_code == 0


# --- a disk that is full ---


def test_a_prompt_that_finds_no_room_is_saved_later_without_training_again(train: Train) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    train(*DATA, *FAST, "--seeds", 9)
    before = Path("p.safetensors").read_bytes()
    with no_room_for("p.safetensors"):
        result = train(*DATA, *FAST, "--overwrite")
    assert result.exit_code == 1
    assert 'could not be saved to "p.safetensors": No space left on device.' in result.stderr
    assert "A file that was there before is unchanged" in result.stderr
    assert Path("p.safetensors").read_bytes() == before
    assert not [name for name in os.listdir() if name.startswith(".tpt-")]
    result = train(*DATA, *FAST, "--resume")
    assert result.exit_code == 0
    assert "Going on after epoch 4 of 4." in result.stderr
    assert kinds() == ["start", *["epoch"] * 4, "resume", "run"]
    assert same("p.safetensors", "whole.safetensors")


def test_a_state_that_finds_no_room_does_not_cost_the_prompt(train: Train) -> None:
    with no_room_for("p.state.safetensors"):
        assert train(*DATA, *FAST).exit_code == 0
    assert tpt.Context.load("p.safetensors").info.seed == 1


def test_a_log_that_finds_no_room_leaves_the_state_to_go_on_from(train: Train) -> None:
    train("pets", "--output", "whole.safetensors", *FAST)
    size = Path("whole.jsonl").read_bytes().index(b'"epoch": 3')
    with log_of_at_most(size):
        result = train(*DATA, *FAST)
    assert result.exit_code == 1
    assert 'The log "p.jsonl" could not be written: No space left on device.' in result.stderr
    assert result.stderr.endswith("make room, then go on with --resume.\n")
    assert "Traceback" not in result.stderr
    result = train(*DATA, *FAST, "--resume")
    assert result.exit_code == 0
    assert "Going on after epoch 3 of 4." in result.stderr
    assert same("p.safetensors", "whole.safetensors")


@contextmanager
def log_of_at_most(size: int) -> Iterator[None]:
    """A log takes so many characters, then its disk is full."""
    dumps, left = json.dumps, [size]

    def count(event: Any, **options: Any) -> str:
        text = dumps(event, **options)
        if isinstance(event, dict) and "event" in event:
            left[0] -= len(text)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coop.outputs.json.dumps", count)
        yield


def test_a_limit_on_the_size_of_files_is_a_sentence_too(train: Train) -> None:
    with at_most_bytes(300):
        result = train(*DATA, *FAST)
    assert result.exit_code == 1
    assert 'The log "p.jsonl" could not be written: File too large.' in result.stderr
    assert train(*DATA, *FAST, "--resume").exit_code == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_device_under_the_log_is_a_sentence(train: Train) -> None:
    result = train(*DATA, *FAST, "--log", "/dev/full", "--overwrite")
    assert result.exit_code == 1
    assert 'The log "/dev/full" could not be written: No space left on device.' in result.stderr


@pytest.mark.parametrize(
    ("name", "what"),
    [("p.md", "model card"), ("p.files.csv", "list of pictures"), ("p.curve.csv", "curve")],
)
def test_what_stands_beside_finds_room_later(train: Train, name: str, what: str) -> None:
    words = ("--shots", "1,2", *QUICK)
    with no_room_for(name):
        result = train(*DATA, *words)
    assert result.exit_code == 1
    assert f'The {what} could not be saved to "{name}": No space left' in result.stderr
    again = train(*DATA, *words, "--resume")
    assert again.exit_code == 0
    assert Path(name).exists()
    assert again.stderr.count(" is there already.") == (0 if name == "p.files.csv" else 2)


# --- processes ---

KEEPING = "import coop.runs; coop.runs._KEEP_EVERY = 0.0; "


def start_and_wait(command: list[str], words: tuple[object, ...]) -> subprocess.Popen[str]:
    """A training in its own process that has done some epochs and is still at work."""
    *python, program = command
    process = subprocess.Popen(
        [*python, KEEPING + program, "train", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = Path("p.jsonl"), time.monotonic() + 240
    while not log.exists() or log.read_bytes().count(b'"event": "epoch"') < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_is_continued_to_the_same_vectors(
    train: Train, command: list[str], how: signal.Signals
) -> None:
    words = ("--shots", 2, "--epochs", 60, "--cache-views", 2, "--batch-size", 2)
    process = start_and_wait(command, (*DATA, *words))
    os.kill(process.pid, how)
    _, stderr = process.communicate(timeout=60)
    assert not Path("p.safetensors").exists()
    assert "Traceback" not in stderr
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert stderr.endswith("Interrupted. Go on with --resume.\n")
    else:
        assert process.returncode == -how
    result = train(*DATA, *words, "--resume")
    assert result.exit_code == 0
    assert "Going on after epoch " in result.stderr
    assert kinds()[-1] == "run"
    train("pets", "--output", "whole.safetensors", *words)
    assert same("p.safetensors", "whole.safetensors")
