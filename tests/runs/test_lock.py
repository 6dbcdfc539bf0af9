"""An output has one writer at a time, and nothing of a lock outlives its process."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tpt.errors import OutputError
from tpt.runs.lock import check_free, hold

HOLD = """
import signal, sys
from tpt.runs.lock import hold
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: str = "out") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a file until its input ends."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_by_the_firsts_number_and_host() -> None:
    with holder() as first:
        for take in (hold("out").__enter__, lambda: check_free("out")):
            with pytest.raises(OutputError) as refused:
                take()
            assert str(refused.value) == (
                f'Another run writes to "out": process {first.pid} on {socket.gethostname()}. Wait '
                "until it has ended, or choose another output."
            )
        with hold("other"):
            pass
        first.communicate("")  # it ends as it should
    assert os.listdir() == []
    check_free("out")
    with hold("out"):
        assert os.listdir() == [".tpt-out.lock"]
    assert os.listdir() == []


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_stopped_holds_nothing_and_what_it_left_is_taken_over(
    how: signal.Signals,
) -> None:
    with holder() as first:
        os.kill(first.pid, how)
        first.wait(timeout=60)
    assert os.listdir() == ([] if how == signal.SIGINT else [".tpt-out.lock"])
    check_free("out")
    with hold("out"):
        held = Path(".tpt-out.lock").read_text()
    assert held == f"process {os.getpid()} on {socket.gethostname()}"
    assert os.listdir() == []


def test_a_file_has_one_lock_whatever_it_is_called() -> None:
    os.mkdir("a")
    os.symlink("a", "b")
    os.symlink("a/out", "link")
    with hold("a/out"):
        for name in ("b/out", "a/../a/out", "link", os.path.abspath("a/out")):
            with pytest.raises(OutputError, match="Another run writes to"), hold(name):
                pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OutputError, OSError])
def test_a_run_that_fails_frees_the_output(kind: type[BaseException]) -> None:
    with pytest.raises(kind), hold("out"):
        raise kind
    assert os.listdir() == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"a\nb", b"x" * 1000])
def test_a_holder_that_is_not_known_is_said_so(content: bytes) -> None:
    with FileLock(".tpt-out.lock"):
        Path(".tpt-out.lock").write_bytes(content)
        with pytest.raises(OutputError, match='to "out": an unknown process'), hold("out"):
            pass


def test_a_folder_that_is_not_there_is_a_sentence() -> None:
    told = 'could not be written to "missing/out": No such file'
    with pytest.raises(OutputError, match=told), hold("missing/out"):
        pass
    with pytest.raises(OutputError, match="Not a directory"), hold(f"{__file__}/out"):
        pass
    assert os.listdir() == []


def test_where_there_are_no_locks_a_run_goes_on_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match='file system of "out" has no locks'), hold("out"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_without_the_systems_locks_no_other_kind_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match='file system of "out" has no locks') as told, hold("out"):
        pass
    assert len(told) == 1
    assert os.listdir() == []
