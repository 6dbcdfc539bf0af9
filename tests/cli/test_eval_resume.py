"""A run of `tpt eval` that was cut short ends with the bytes of an unbroken one, or is refused."""

from __future__ import annotations

import errno
import json
import os
import re
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
from tpt.evaluate import measure, runner
from tpt.runs import journal
from tpt.runs import whole_files as files

Run = Callable[..., Result]
Make = Callable[..., list[str]]

WORDS = ("--methods", "tpt", "--views", "2", "--device", "cpu", "--num-workers", "0")
OUT = Path("out")
LINES = OUT / "predictions.jsonl"
MADE_FROM_LINES = ("results.json", "tables.md", "tables.tex", "report.html")


@pytest.fixture
def sets(make_images: Make) -> tuple[str, ...]:
    """Two sets of four pictures, of which one is broken."""
    make_images(*(f"{a}/{b}/{n}.png" for a in ("one", "two") for b in ("cat", "dog") for n in "01"))
    Path("one/dog/0.png").write_text("no picture")
    return ("one", "two")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the pictures that were decoded since the list was last cleared."""
    seen: list[str] = []
    load = runner.load_sample

    def watch(index: int, sample: Any) -> Any:
        seen.append(sample.source)
        return load(index, sample)

    monkeypatch.setattr(runner, "load_sample", watch)
    return seen


def all_files(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def cut(at: int) -> None:
    LINES.write_bytes(LINES.read_bytes()[:at])


def refuse(run_tpt: Run, *words: object, code: int = 1) -> str:
    """The message of a run that is refused and changes nothing."""
    before = all_files(OUT)
    result = run_tpt("eval", *words, "--output", "out")
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert all_files(OUT) == before
    return result.stderr.splitlines()[-1]


# --- going on ---


@pytest.mark.parametrize(("size", "cuts"), [(1, (0, 5.5, 8)), (3, (0.01, 4.99, 15, 16))])
def test_a_run_cut_anywhere_is_completed_to_the_same_bytes(
    run_tpt: Run, sets: tuple[str, ...], still_clock: None, size: int, cuts: tuple[float, ...]
) -> None:
    words = ("eval", *sets, *WORDS, "--batch-size", size, "--corrupt", "contrast:2", "--output")
    assert run_tpt(*words, "whole").exit_code == 3
    whole = all_files("whole")
    lines = whole["predictions.jsonl"].splitlines(keepends=True)
    assert len(lines) == 16
    for count in cuts:  # lines, and a part of one
        shutil.copytree("whole", OUT, dirs_exist_ok=True)
        number = int(count)
        rest = lines[number][: round(len(lines[number]) * (count % 1))] if count % 1 else b""
        LINES.write_bytes(b"".join(lines[:number]) + rest)
        for name in MADE_FROM_LINES:
            (OUT / name).unlink()
        result = run_tpt(*words, "out", "--resume")
        assert result.exit_code == 3
        assert all_files(OUT) == whole, f"cut after {count} lines"


def test_only_what_is_missing_is_computed(
    run_tpt: Run, sets: tuple[str, ...], decoded: list[str]
) -> None:
    words = ("eval", *sets, *WORDS, "--output", "out", "--resume")
    run_tpt(*words)
    cut(LINES.read_bytes().rindex(b'{"set":"two","key":"dog/0.png"') + 9)
    decoded.clear()
    result = run_tpt(*words)
    assert decoded == ["two/dog/0.png", "two/dog/1.png"]
    assert result.exit_code == 3  # the earlier run's broken picture still counts
    assert "2 of 2 images in " in result.stderr
    assert "6 were done before." in result.stderr


def test_a_finished_run_is_measured_again_without_looking_at_a_picture(
    run_tpt: Run, sets: tuple[str, ...], decoded: list[str]
) -> None:
    words = ("eval", "two", *WORDS, "--output", "out", "--resume")
    first = run_tpt(*words)
    before = all_files(OUT)
    for name in MADE_FROM_LINES:
        (OUT / name).unlink()
    decoded.clear()
    result = run_tpt(*words)
    assert result.exit_code == 0
    assert result.stdout == first.stdout
    assert decoded == []
    assert all_files(OUT) == before


def test_a_finished_run_is_measured_again_when_a_picture_is_no_longer_readable(
    run_tpt: Run, sets: tuple[str, ...]
) -> None:
    words = ("eval", "two", "--methods", "tpt:lr=1", "--views", "4", "--output", "out", "--resume")
    first = run_tpt(*words)
    for path in Path("two").rglob("*.png"):
        path.write_text("gone bad")
    result = run_tpt(*words)
    assert (result.exit_code, result.stdout) == (0, first.stdout)


def test_what_a_stream_has_taught_is_gone_so_its_set_starts_again_and_no_other(
    run_tpt: Run, sets: tuple[str, ...], still_clock: None, decoded: list[str]
) -> None:
    words = ("eval", *sets, "--methods", "tda", "--num-workers", 0, "--output")
    run_tpt(*words, "whole")
    run_tpt(*words, "out")
    cut(LINES.read_bytes().rindex(b'{"set":"two","key":"dog/1.png"'))
    decoded.clear()
    assert run_tpt(*words, "out", "--resume").exit_code == 3
    assert decoded == ["two/cat/0.png", "two/cat/1.png", "two/dog/0.png", "two/dog/1.png"]
    assert all_files(OUT) == all_files("whole")


def test_resume_begins_a_folder_that_is_not_there(run_tpt: Run, sets: tuple[str, ...]) -> None:
    result = run_tpt("eval", "two", *WORDS, "--output", "new/out", "--resume")
    assert result.exit_code == 0
    assert Path("new/out/results.json").exists()


def test_a_strict_stop_is_continued_without_strict(
    run_tpt: Run, sets: tuple[str, ...], still_clock: None
) -> None:
    words = ("eval", "one", *WORDS, "--output")
    run_tpt(*words, "whole")
    stopped = run_tpt(*words, "out", "--strict")
    assert stopped.exit_code == 1
    assert "Error: 'dog/0.png': 'one/dog/0.png' is not an image" in stopped.stderr
    assert len(LINES.read_bytes().splitlines()) == 2
    assert not (OUT / "results.json").exists()
    assert run_tpt(*words, "out", "--resume").exit_code == 3
    assert all_files(OUT) == all_files("whole")


def test_overwrite_starts_again(run_tpt: Run, sets: tuple[str, ...], still_clock: None) -> None:
    run_tpt("eval", "one", *WORDS, "--output", "out")
    run_tpt("eval", "two", *WORDS, "--output", "whole")
    assert run_tpt("eval", "two", *WORDS, "--output", "out", "--overwrite").exit_code == 0
    assert all_files(OUT) == all_files("whole")


# --- not going on ---


@pytest.fixture
def begun(run_tpt: Run, sets: tuple[str, ...]) -> tuple[object, ...]:
    """A run that was broken off in its second set, and its words."""
    words = (*sets, *WORDS)
    run_tpt("eval", *words, "--output", "out")
    cut(LINES.read_bytes().rindex(b'{"set":"two","key":"dog/1.png"'))
    return words


def test_other_settings_are_refused_by_name(run_tpt: Run, begun: tuple[object, ...]) -> None:
    changes = {
        ("--seed", 1): "(seed; seed was 0, now 1)",
        ("--augment", "augmix"): '(augment; augment was "crop", now "augmix")',
        ("--views", 3): "(views; views was 2, now 3)",
        ("--lr", 0.1): "(method tpt: settings lr; settings lr was 0.005, now 0.1)",
        ("--methods", "vte"): "(methods: now with vte)",
        ("--template", "the {}"): '(method zero-shot: context words; context words was "a photo of',
        ("--limit", 2): "(set one: 4 pictures then, 2 now)",
        ("--corrupt", "fog:1"): "(set one: now with one/fog/1)",
        ("--classes", "cat,dog,cup"): "(set one: classes now with cup)",
        ("--classes", "dog,cat"): "(set one: its pictures have other names or other classes)",
    }
    for change, told in changes.items():
        message = refuse(run_tpt, *begun, *change, "--resume")
        assert told in message
        assert '"out/predictions.jsonl" was made with other settings or pictures' in message
        assert message.endswith("Use the same, another --output, or --overwrite.")


def test_another_order_of_the_sets_is_refused(run_tpt: Run, begun: tuple[object, ...]) -> None:
    message = refuse(run_tpt, "two", "one", *WORDS, "--resume")
    assert "(sets: now in another order)" in message


def test_pictures_that_came_or_went_are_refused(
    run_tpt: Run, begun: tuple[object, ...], make_images: Make
) -> None:
    make_images("two/dog/9.png")
    message = refuse(run_tpt, *begun, "--resume")
    assert "(set two: 4 pictures then, 5 now)" in message
    os.remove("two/dog/0.png")
    message = refuse(run_tpt, *begun, "--resume")
    assert "(set two: its pictures have other names or other classes)" in message


def test_a_folder_of_another_run_is_left_alone(run_tpt: Run, begun: tuple[object, ...]) -> None:
    message = refuse(run_tpt, *begun)
    assert message == (
        'Error: "out/predictions.jsonl" exists already. Use --resume to go on with it, --overwrite '
        "to start again, or another --output."
    )
    message = refuse(run_tpt, *begun, "--resume", "--overwrite", code=2)
    assert message == (
        "Error: --resume continues the output and --overwrite starts it again. Give one of them."
    )


@pytest.mark.parametrize("damage", [None, "", "{}", "[]", '{"settings": [1]}', '{"settings": 1}'])
def test_a_folder_that_nobody_knows_the_settings_of_is_not_continued(
    run_tpt: Run, begun: tuple[object, ...], damage: str | None
) -> None:
    sidecar = OUT / "predictions.jsonl.settings.json"
    sidecar.unlink()
    if damage is not None:
        sidecar.write_text(damage)
    message = refuse(run_tpt, *begun, "--resume")
    assert "missing or damaged, so nobody knows how it was made. Start again with" in message


def test_settings_of_another_form_are_other_settings(
    run_tpt: Run, begun: tuple[object, ...]
) -> None:
    for settings in ({}, {"methods": 3, "sets": [1]}, {"methods": [{"name": 1}], "sets": [{}]}):
        text = json.dumps({"settings": settings})
        (OUT / "predictions.jsonl.settings.json").write_text(text)
        assert "was made with other settings" in refuse(run_tpt, *begun, "--resume")


@pytest.mark.parametrize(
    ("number", "line", "told"),
    [
        (2, b"\0\0\0", "line 2, which is not a prediction"),
        (2, b'{"set":"one"}', "line 2, which is not a prediction"),
        (2, b'{"set":"one","key":"cat/1.png","label":0}', "line 2, which is not a prediction"),
        (2, b'{"set":"one","key":"dog/1.png","error":{}}', "line 2, 'dog/1.png' of 'one'"),
        (6, b'{"set":"one","key":"cat/1.png","error":{}}', "line 6, 'cat/1.png' of 'one'"),
        (9, b'{"set":"two","key":"dog/2.png","error":{}}', "more lines than these pictures make"),
    ],
)
def test_lines_that_belong_to_no_picture_are_left_alone(
    run_tpt: Run, sets: tuple[str, ...], number: int, line: bytes, told: str
) -> None:
    run_tpt("eval", *sets, *WORDS, "--output", "out")
    lines = LINES.read_bytes().splitlines()
    lines[number - 1 : number] = [line]
    LINES.write_bytes(b"\n".join(lines) + b"\n")
    message = refuse(run_tpt, *sets, *WORDS, "--resume")
    assert f'"out/predictions.jsonl" cannot be continued: it holds {told}' in message
    assert "Use --overwrite to start again" in message


# --- stops ---


class FullDisk:
    """A file that takes so many lines, and of the next one the first bytes."""

    def __init__(self, path: str, mode: str, room: int) -> None:
        self._file, self.room = open(path, mode, buffering=0), room  # noqa: SIM115

    def write(self, data: bytes) -> int:
        self.room -= 1
        if self.room < 0:
            self._file.write(data[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def test_a_full_disk_is_told_and_what_was_written_is_kept(
    run_tpt: Run, sets: tuple[str, ...], still_clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("eval", "two", *WORDS, "--output")
    run_tpt(*words, "whole")

    def open_full(path: str, mode: str) -> Any:
        return FullDisk(path, mode, room=2) if mode == "ab" else open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open", open_full, raising=False)
        result = run_tpt(*words, "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        'Error: Records could not be written to "out/predictions.jsonl": No space left on device. '
        "What was written before is whole; make room, then go on with --resume."
    )
    assert len(LINES.read_bytes().splitlines()) == 3  # the last one is broken
    assert run_tpt(*words, "out", "--resume").exit_code == 0
    assert all_files(OUT) == all_files("whole")


def test_a_disk_that_fills_up_at_the_end_costs_no_predictions(
    run_tpt: Run, sets: tuple[str, ...], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = ("eval", "two", *WORDS, "--output", "out")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        result = run_tpt(*words)
    assert result.exit_code == 1
    assert "could not be saved" in result.stderr
    assert "No space left on device" in result.stderr
    assert sorted(all_files(OUT)) == ["predictions.jsonl", "predictions.jsonl.settings.json"]
    decoded.clear()
    assert run_tpt(*words, "--resume").exit_code == 0
    assert decoded == []
    assert set(MADE_FROM_LINES) < set(all_files(OUT))


def test_ctrl_c_tells_what_was_done_and_how_to_go_on(
    run_tpt: Run, sets: tuple[str, ...], still_clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("eval", "two", *WORDS, "--output")
    run_tpt(*words, "whole")
    adapt, calls = tpt.TPT.adapt_checked, [0]

    def interrupt(self: tpt.TPT, features: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return adapt(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(tpt.TPT, "adapt_checked", interrupt)
        result = run_tpt(*words, "out")
    assert result.exit_code == 130
    assert "\nInterrupted after 2 of 4 images in " in result.stderr
    assert result.stderr.endswith(" Go on with --resume.\n")
    assert len(LINES.read_bytes().splitlines()) == 2
    assert run_tpt(*words, "out", "--resume").exit_code == 0
    assert all_files(OUT) == all_files("whole")


def test_ctrl_c_while_measuring_costs_no_prediction_and_that_is_told(
    run_tpt: Run, sets: tuple[str, ...], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    words = ("eval", "two", *WORDS, "--output", "out")
    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure_set", interrupt)
        result = run_tpt(*words)
    assert result.exit_code == 130
    assert result.stderr.endswith(
        "\nInterrupted while measuring; every picture is predicted. Go on with --resume.\n"
    )
    decoded.clear()
    assert run_tpt(*words, "--resume").exit_code == 0
    assert decoded == []
    assert set(MADE_FROM_LINES) < set(all_files(OUT))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_a_killed_process_is_continued_to_the_same_bytes(
    run_tpt: Run, command: list[str], make_images: Make
) -> None:
    make_images(*(f"set/{name}/{number}.png" for name in ("cat", "dog") for number in range(40)))
    words = ("eval", "set", "--methods", "tpt", "--views", "8", "--device", "cpu", "--output")
    process = subprocess.Popen(
        [*command, *words, "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not LINES.exists() or LINES.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    begun = LINES.read_bytes()
    assert 5 <= begun.count(b"\n") < 80
    assert run_tpt(*words, "out", "--resume").exit_code == 0
    assert LINES.read_bytes().startswith(begun[: begun.rindex(b"\n") + 1])
    run_tpt(*words, "whole")

    def forget_ms(data: bytes) -> bytes:
        return re.sub(rb'"(image_)?ms":[0-9.e-]+', b"", data)

    whole = Path("whole/predictions.jsonl").read_bytes()
    assert forget_ms(LINES.read_bytes()) == forget_ms(whole)
