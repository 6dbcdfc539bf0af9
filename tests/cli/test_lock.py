"""Two runs never write to one output: the second is refused by the first's process and host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
Make = Callable[..., list[str]]

FAST = ("--classes", "cat,dog", "--views", "2", "--device", "cpu")
HOLD = """
import sys
from tpt.runs.lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (("predict", "in", *FAST, "--output", "out"), "out"),
        (("predict", "in", *FAST, "--output", "out", "--resume"), "out"),
        (("predict", "in", *FAST, "--output", "out", "--overwrite"), "out"),
        (("eval", "in", "--output", "out"), "out/predictions.jsonl"),
        (("eval", "in", "--output", "out", "--resume"), "out/predictions.jsonl"),
        (("transfer", "in", "too", "--output", "out"), "out/predictions.jsonl"),
        (("train", "in", "--output", "out.safetensors"), "out.safetensors"),
        (("train", "in", "--output", "out.safetensors", "--overwrite"), "out.safetensors"),
        (("corrupt", "in", "out", "--kind", "fog"), "out/corruptions.json"),
    ],
)
def test_an_output_that_another_process_writes_is_refused(
    run_tpt: Run, make_images: Make, words: tuple[str, ...], held: str
) -> None:
    make_images(*(f"{a}/{b}/{n}.png" for a in ("in", "too") for b in ("cat", "dog") for n in "01"))
    Path(held).parent.mkdir(exist_ok=True)
    if held == "out":  # a file that the other process has begun
        Path(held).write_text("theirs\n")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, held], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        result = run_tpt(*words)
        other.communicate(b"")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        f'Error: Another run writes to "{held}": process {other.pid} on {socket.gethostname()}. '
        "Wait until it has ended, or choose another output."
    )
    assert {p.name for p in Path().rglob("*") if p.is_file()} <= {"0.png", "1.png", "out"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_a_run_ends_as_alone_though_others_tried_to_write_to_its_output(
    run_tpt: Run, command: list[str], make_images: Make, forget_ms: Callable[[bytes], bytes]
) -> None:
    make_images(*(f"in/{number}.png" for number in range(16)))
    words = ("predict", "in", *FAST, "--output")
    first = subprocess.Popen([*command, *words, "out"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not os.path.exists("out") or os.path.getsize("out") == 0:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGSTOP)
    begun = Path("out").read_bytes()
    for more in ((), ("--resume",), ("--overwrite",)):
        second = run_tpt(*words, "out", *more)
        assert second.exit_code == 1
        assert f"process {first.pid} on {socket.gethostname()}. Wait" in second.stderr
    assert Path("out").read_bytes() == begun
    os.kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=240)
    assert first.returncode == 0
    run_tpt(*words, "whole")
    assert forget_ms(Path("out").read_bytes()) == forget_ms(Path("whole").read_bytes())
    assert not [name for name in os.listdir() if name.startswith(".tpt-")]


def test_standard_output_and_a_dry_run_need_no_lock(run_tpt: Run, make_images: Make) -> None:
    make_images("in/0.png")
    for words in (("--output", "/dev/null"), (), ("--output", "out", "--dry-run")):
        assert run_tpt("predict", "in", *FAST, *words).exit_code == 0
    assert os.listdir() == ["in"]
