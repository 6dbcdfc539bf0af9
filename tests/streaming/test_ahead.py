"""Work ahead of the reader: nothing that is done waits for a source that stands still."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tpt.streaming import _ahead
from tpt.streaming._ahead import Ahead, map_ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("tpt-")]


class Gated:
    """A source that gives an item when the test says so."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)

    def __iter__(self) -> Iterator[int]:
        for number in range(100):
            self.gate.acquire()
            yield number


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_result_is_there_while_the_source_waits(workers: int) -> None:
    source = Gated()
    results = Ahead(lambda x: x * x, source, workers, 8)
    for number in range(5):
        source.gate.release()
        assert next(results) == number * number
    assert results.is_slow()
    results.close()
    source.gate.release()
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == []


def test_a_source_that_has_ended_or_gives_at_once_is_not_slow() -> None:
    results = Ahead(lambda x: x, range(3), 2)
    for _ in range(3):
        next(results)
        assert not results.is_slow()
    with pytest.raises(StopIteration):
        next(results)
    results.close()


def test_work_that_hangs_is_given_up_and_the_others_go_on() -> None:
    release = threading.Event()

    def work(item: int) -> int:
        if item in (1, 2, 6):
            release.wait(30)
        return item

    def fail(item: int, error: Exception) -> str:
        return f"{item}: {error}"

    results: Any = Ahead(work, range(9), 2, time_limit=0.1, fail=fail)
    late = "it took longer than 0.1 s and was given up"
    expected = [f"{n}: {late}" if n in (1, 2, 6) else n for n in range(9)]
    assert list(results) == expected
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 2  # nobody waits for those that hang
    release.set()


def test_what_an_item_cannot_be_taken_as_is_its_own_failure() -> None:
    def take(item: int) -> int:
        if item == 1:
            raise ValueError("no")
        return item

    results: Any = Ahead(
        lambda x: x, range(3), 2, take=take, fail=lambda item, error: (item, str(error))
    )
    assert list(results) == [0, (1, "no"), 2]
    results.close()


def test_items_are_taken_before_the_next_is_asked_for() -> None:
    def source() -> Iterator[list[int]]:
        buffer = [0]
        for number in range(6):
            buffer[0] = number
            yield buffer

    results = Ahead(lambda x: x[0], source(), 3, 8, take=list)
    assert list(results) == list(range(6))
    results.close()


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ahead, "MOST_BYTES", 250)
    alive, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return item

    results = Ahead(work, range(40), 2, 30, weigh=lambda value: 100)
    time.sleep(0.05)
    for number, result in enumerate(results):
        assert result == number
        with lock:
            alive -= 1
    assert most <= 5  # three fill the bound, each thread may have begun one more
    results.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_source_that_breaks_is_told_after_what_it_gave(workers: int) -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise ConnectionError("gone")

    results = map_ahead(lambda x: x, source(), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ConnectionError, match="gone"):
        next(results)
    results.close()
    assert threads() == []


def test_a_generator_is_closed_when_its_reader_is() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    results = Ahead(lambda x: x, source(), 2)
    next(results)
    results.close()
    assert closed.wait(5)
    assert threads() == []
