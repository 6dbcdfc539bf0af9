"""Decoding in processes: one that ends, however it does, costs the picture it was at."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tpt
from tpt.streaming import _processes
from tpt.streaming._processes import Decoders
from tpt.streaming.records import Record

COUNT = 8
FAULTS = {
    "os.abort()": "was ended by SIGABRT.",
    "os._exit(3)": "was ended with exit code 3.",
    "os._exit(0)": "was ended with exit code 0.",
    "os.kill(os.getpid(), signal.SIGKILL)": "was ended by SIGKILL.",
    "ctypes.string_at(1)": "was ended by SIGSEGV.",
    "os.write(answers, b'{}' + bytes([10]))": "was ended by SIGKILL.",
}


@pytest.fixture(scope="module")
def method(golden: SimpleNamespace) -> tpt.ZeroShot:
    return tpt.ZeroShot(tpt.PromptEngine(golden.clip, ["cat", "dog", "cup"]))


@pytest.fixture(autouse=True)
def ends_alone() -> Iterator[None]:
    yield
    assert children() == []


def children() -> list[str]:
    """The processes that this one has started and that are still there, as `ps` names them."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "decoding_process" in line]


def write_files(folder: Path, suffix: str = ".png") -> list[str]:
    paths = [str(folder / f"{number}{suffix}") for number in range(COUNT)]
    for number, path in enumerate(paths):
        pixels = np.random.RandomState(number).randint(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def break_decoder(patch: pytest.MonkeyPatch, place: int, fault: str) -> None:
    """From now on, the decoder of a file with this number does this."""
    program = _processes.PROGRAM.replace(
        "serve(limit)",
        f"""
import ctypes, os, signal, time
from tpt.images import decoding_process as home
load, answers = home.load_encoded, os.dup(1)
def broken(name, data):
    if name.endswith("{place}.png'"):
        {fault}
        time.sleep(60)
    return load(name, data)
home.load_encoded = broken
serve(limit)
""",
    )
    patch.setattr(_processes, "PROGRAM", program)


def timeless(records: Any) -> list[Record]:
    return [replace(r, adapt=replace(r.adapt, ms=0.0) if r.adapt else None) for r in records]


def predict(images: Any, method: tpt.ZeroShot, **options: Any) -> list[Record]:
    return timeless(tpt.stream(images, method, decode_in="processes", **options))


@pytest.mark.parametrize(
    ("fault", "place"), [*((fault, COUNT - 1) for fault in FAULTS), ("os.abort()", 0)]
)
def test_a_decoder_that_ends_its_process_costs_one_picture(
    method: tpt.ZeroShot, fault: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_files(tmp_path)
    sound = timeless(tpt.stream(paths, method))
    monkeypatch.setattr(_processes, "_LAST_WORDS", 0.2)
    break_decoder(monkeypatch, place, fault)
    records = predict(paths, method, batch_size=COUNT)
    failed = records.pop(place)
    sound.pop(place)
    assert records == sound
    assert failed.error is not None
    assert failed.error.type == "ImageError"
    assert failed.error.message == (
        f"'{paths[place]}' cannot be decoded: the process that decoded it {FAULTS[fault]} Convert "
        "it to PNG or JPEG with another program, or leave it out."
    )


@pytest.mark.parametrize(("workers", "place"), [(0, 4), (1, 4), (3, 3)])
def test_the_pictures_after_it_have_another_process(
    method: tpt.ZeroShot,
    workers: int,
    place: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = write_files(tmp_path)
    break_decoder(monkeypatch, place, "os.abort()")
    records = predict(paths * 2, method, num_workers=workers)
    assert [r.index for r in records if r.error is not None] == [place, COUNT + place]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_decoder_that_hangs_is_ended_after_the_time_limit(
    method: tpt.ZeroShot, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_files(tmp_path)
    break_decoder(monkeypatch, 5, "pass")
    started = time.monotonic()
    records = predict(paths, method, num_workers=workers, time_limit=0.5)
    assert time.monotonic() - started < 20
    assert [r.index for r in records if r.error is not None] == [5]
    error = records[5].error
    assert error is not None
    assert error.type == "TimeoutError"
    assert "it took longer than 0.5 s and was given up" in error.message


def test_records_are_those_of_threads(method: tpt.ZeroShot, tmp_path: Path) -> None:
    """Whatever the pictures come as, and whatever is wrong with them."""
    paths = write_files(tmp_path, ".jpg")
    data = Path(paths[0]).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "ends.jpg").write_bytes(data[:-2])
    (tmp_path / "words.jpg").write_text("no picture")
    bad = [tmp_path / name for name in ("cut.jpg", "ends.jpg", "words.jpg", "gone.jpg")]

    def items() -> Iterator[Any]:
        yield from (paths[1], Path(paths[2]), data, bytearray(data), io.BytesIO(data), *bad)
        with open(paths[3], "rb") as file:
            yield file
        yield Image.open(paths[4])
        yield np.asarray(Image.open(paths[5]))
        yield from (io.BytesIO(data[:99]), b"", None)

    found = predict(items(), method)
    assert found == timeless(tpt.stream(items(), method))
    assert sum(r.error is not None for r in found) == 6


def test_a_process_that_was_ended_while_idle_costs_nothing(tmp_path: Path) -> None:
    path = write_files(tmp_path)[0]
    with Decoders(None) as decoders:
        first = decoders(path)
        (process,) = decoders._idle
        process.kill()
        process.wait()
        assert isinstance(again := decoders(path), tpt.images.decode.Picture)
        assert isinstance(first, tpt.images.decode.Picture)
        assert (again.pixels == first.pixels).all()


def test_the_processes_import_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = "assert not {'torch', 'open_clip'} & {*sys.modules}, 'torch'\nserve(limit)"
    monkeypatch.setattr(_processes, "PROGRAM", _processes.PROGRAM.replace("serve(limit)", check))
    with Decoders(None) as decoders:
        assert isinstance(decoders(write_files(tmp_path)[0]), tpt.images.decode.Picture)


def test_closing_waits_for_no_decoder(
    method: tpt.ZeroShot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_files(tmp_path)
    break_decoder(monkeypatch, 1, "pass")
    records = tpt.stream(iter(paths), method, decode_in="processes", num_workers=2)
    next(records)
    started = time.monotonic()
    records.close()
    assert time.monotonic() - started < 3


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "pipe.txt").write_text("")
    program = (  # a run in the background ignores the signal
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "predict", "-", "--classes", "cat,dog"]
    command += ["--views", "2", "--decode-in", "processes"]
    run = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert run.stdin is not None
    assert run.stdout is not None
    run.stdin.write(f"{tmp_path / '0.png'}\n")
    run.stdin.flush()
    assert '"predictions"' in run.stdout.readline()
    assert count_session(run.pid) >= 2
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it, to all of them
    assert run.wait(30) == 130
    run.stdin.close()
    run.stdout.close()
    assert count_session(run.pid) == 0


def count_session(number: int) -> int:
    listed = subprocess.run(["ps", "-s", str(number), "-o", "pid="], capture_output=True, text=True)
    return len(listed.stdout.split())


def test_a_word_that_is_no_way_to_decode_is_refused(method: tpt.ZeroShot) -> None:
    with pytest.raises(tpt.MethodError, match="decode_in must be"):
        tpt.stream([], method, decode_in="fibres")


def test_a_system_without_timers_is_told(
    method: tpt.ZeroShot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "setitimer")
    with pytest.raises(tpt.MethodError, match="needs a system with POSIX timers"):
        tpt.stream([], method, decode_in="processes")
