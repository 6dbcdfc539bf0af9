"""A run that was cut short, killed or interrupted ends with the bytes of an unbroken run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import tpt
from tpt.streaming import loading

FAST = ("--classes", "cat,dog,cup", "--views", "2", "--device", "cpu")
NAMES = ["in/1.png", 'in/2 "two",\nsecond.png', "in/3.png", "in/4.png", "in/5.png"]
BAD = "in/3.png"

Run = Callable[..., Result]
Make = Callable[..., list[str]]


@pytest.fixture
def images(make_images: Make) -> list[str]:
    """Five images of which one is bad and one has a name that CSV has to quote."""
    make_images(*NAMES)
    Path(BAD).write_text("no image")
    return NAMES


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were decoded since the list was last cleared."""
    seen: list[str] = []
    decode = loading.load_picture

    def watch(item: Any) -> Any:
        seen.append(item)
        return decode(item)

    monkeypatch.setattr(loading, "load_picture", watch)
    return seen


def borders_of(whole: bytes, form: str) -> list[int]:
    """Where records end."""
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    return [end for end in ends if form != "csv" or whole[:end].count(b'"') % 2 == 0]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(
    run_tpt: Run, images: list[str], still_clock: None, form: str, size: int
) -> None:
    words = ("predict", "in", *FAST, "--batch-size", size, "--format", form, "--output")
    assert run_tpt(*words, "whole").exit_code == 3
    whole = Path("whole").read_bytes()
    borders = borders_of(whole, form)
    assert len(borders) == len(NAMES) + (form == "csv")
    middles = [(a + b) // 2 for a, b in zip([0, *borders], borders, strict=False)]
    cuts = {0, 1, *borders, *(end - 1 for end in borders), *(end + 1 for end in borders[:-1])}
    if form == "csv":  # in the middle of a name, after the line break that it holds
        middles.append(whole.index(b'""two"",\n') + len(b'""two"",\n'))
    for cut in sorted(cuts | set(middles)):
        Path("out").write_bytes(whole[:cut])
        shutil.copy("whole.settings.json", "out.settings.json")
        assert run_tpt(*words, "out", "--resume").exit_code == 3
        assert Path("out").read_bytes() == whole, f"cut at byte {cut}"


@pytest.mark.parametrize(("size", "start"), [(1, 3), (2, 2), (3, 3), (4, 0)])
def test_a_run_goes_on_at_the_border_of_the_broken_batch(
    run_tpt: Run, images: list[str], decoded: list[str], size: int, start: int
) -> None:
    words = ("predict", "in", *FAST, "--batch-size", size, "--output", "out", "--resume")
    run_tpt(*words)
    lines = Path("out").read_bytes().splitlines(keepends=True)
    Path("out").write_bytes(b"".join(lines[:3]) + b'{"path": "in/4')
    decoded.clear()
    result = run_tpt(*words, "--num-workers", 0)
    assert decoded == NAMES[start:]
    assert "2 of 2 images in " in result.stderr
    assert "3 were done before." in result.stderr


def test_a_finished_file_is_left_alone(run_tpt: Run, images: list[str], decoded: list[str]) -> None:
    words = ("predict", "in", *FAST, "--output", "out", "--resume")
    run_tpt(*words)
    before = Path("out").read_bytes()
    decoded.clear()
    result = run_tpt(*words)
    assert result.exit_code == 3  # the earlier run's bad image still counts
    assert decoded == []
    assert Path("out").read_bytes() == before
    assert "0 of 0 images in " in result.stderr
    assert "5 were done before." in result.stderr


def test_a_finished_file_without_bad_images_exits_with_0(run_tpt: Run, make_images: Make) -> None:
    make_images("a.png", "b.png")
    words = ("predict", ".", *FAST, "--output", "out", "--resume")
    assert run_tpt(*words).exit_code == 0
    assert run_tpt(*words).exit_code == 0


def test_images_that_came_later_are_appended(
    run_tpt: Run, make_images: Make, still_clock: None, decoded: list[str]
) -> None:
    make_images("in/2.png", "in/4.png", "in/6.png")
    words = ("predict", "in", *FAST, "--batch-size", 2, "--output", "out", "--resume")
    run_tpt(*words)
    before = Path("out").read_bytes()
    make_images("in/new/unused.png", "in/1.png", "in/5.png", "in/7.png")
    decoded.clear()
    assert run_tpt(*words, "--num-workers", 0).exit_code == 0
    after = Path("out").read_bytes()
    assert decoded == ["in/1.png", "in/5.png", "in/7.png"]
    assert after.startswith(before)
    added = [json.loads(line)["path"] for line in after[len(before) :].splitlines()]
    assert added == decoded


def test_a_strict_stop_is_continued_without_strict(
    run_tpt: Run, images: list[str], still_clock: None
) -> None:
    words = ("predict", "in", *FAST, "--output")
    run_tpt(*words, "whole")
    assert run_tpt(*words, "out", "--strict").exit_code == 1
    assert run_tpt(*words, "out", "--strict", "--resume").exit_code == 1
    assert len(Path("out").read_bytes().splitlines()) == 2
    assert run_tpt(*words, "out", "--resume").exit_code == 3
    assert Path("out").read_bytes() == Path("whole").read_bytes()


def test_resume_begins_a_file_that_is_not_there(
    run_tpt: Run, images: list[str], still_clock: None
) -> None:
    run_tpt("predict", "in", *FAST, "--output", "whole")
    assert run_tpt("predict", "in", *FAST, "--output", "out", "--resume").exit_code == 3
    assert Path("out").read_bytes() == Path("whole").read_bytes()


@pytest.mark.parametrize(
    ("output", "hint"),
    [(["--output", "out"], True), (["--output", "out", "--format", "table"], False)],
)
def test_ctrl_c_tells_what_was_done_and_how_to_go_on(
    run_tpt: Run,
    make_images: Make,
    still_clock: None,
    monkeypatch: pytest.MonkeyPatch,
    output: list[str],
    hint: bool,
) -> None:
    make_images("1.png", "2.png", "3.png", "4.png")
    words = ("predict", ".", *FAST, *output)
    adapt = tpt.TPT.adapt_checked
    calls: list[int] = []

    def interrupt(self: tpt.TPT, features: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return adapt(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(tpt.TPT, "adapt_checked", interrupt)
        result = run_tpt(*words)
    assert result.exit_code == 130
    assert "\nInterrupted after 2 of 4 images in " in result.stderr
    assert ("Go on with --resume." in result.stderr) == hint
    if hint:
        assert len(Path("out").read_bytes().splitlines()) == 2
        assert run_tpt(*words, "--resume").exit_code == 0
        assert Path("out").read_bytes() == run_tpt("predict", ".", *FAST).stdout_bytes


def start_and_wait(command: list[str], words: tuple[str, ...], lines: int) -> subprocess.Popen[str]:
    """A run in its own process that has written some of its records and is still at work."""
    process = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, deadline = Path("out"), time.monotonic() + 240
    while not out.exists() or out.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_is_continued_to_the_same_bytes(
    run_tpt: Run,
    command: list[str],
    make_images: Make,
    forget_ms: Callable[[bytes], bytes],
    how: signal.Signals,
    size: int,
) -> None:
    make_images(*(f"in/{number}.png" for number in range(64)))
    Path("in/5.png").write_text("no image")
    words = ("predict", "in", *FAST, "--views", "8", "--batch-size", str(size), "--output")
    process = start_and_wait(command, (*words, "out"), lines=6)
    os.kill(process.pid, how)
    _, stderr = process.communicate(timeout=60)
    begun = Path("out").read_bytes()
    assert 6 <= begun.count(b"\n") < 64
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "\nInterrupted after " in stderr
        assert stderr.endswith(" Go on with --resume.\n")
    else:
        assert process.returncode == -how
    assert "Traceback" not in stderr
    assert run_tpt(*words, "out", "--resume").exit_code == 3
    assert Path("out").read_bytes().startswith(begun[: begun.rindex(b"\n") + 1])
    run_tpt(*words, "whole")
    assert forget_ms(Path("out").read_bytes()) == forget_ms(Path("whole").read_bytes())
