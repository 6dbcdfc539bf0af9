"""Process the items of an iterable in threads, a few items ahead, with results in order.

One thread pulls items and others process them, so a slow or stalled source never holds back a
finished result. Work that hangs is given up after a time limit: its thread cannot be stopped, so a
new thread replaces it, and the old one ends when its work does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread, current_thread
from typing import Any, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

MOST_BYTES = 512 * 2**20
"""No further work starts while the waiting items and results hold this much."""

_GRACE = 0.05
"""Seconds after which a source without a next item is slow."""

_PATIENCE = 5.0
"""Seconds that `close` waits for the work in progress."""

_SLOW_WORK = 1.0
"""Seconds of waiting for the work on an item after which that work is slow."""


@dataclass(eq=False)
class _Task:
    item: Any
    size: int  # bytes
    result: Any = None
    error: BaseException | None = None
    started: float | None = None
    thread: Thread | None = None
    done: bool = False
    given_up: bool = False


class Ahead(Iterator[T], Generic[S, T]):
    """`map(work, items)` in threads, at most `ahead + 2 * num_workers` items ahead.

    If `items` raises, the results of the items before come first, then the error.

    Args:
        work: makes the result of an item; its exception is raised in place of the result.
        items: iterated in a separate thread.
        num_workers: threads that call `work`, at least one.
        ahead: how many items ahead, besides two a thread.
        take: called on each item before the next one is pulled; its result is processed instead.
        fail: makes a result from an item and an error: what `take` raised, or a TimeoutError.
        weigh: the bytes that an item or a result holds.
        time_limit: seconds after which the work on an item is given up; None: never.
    """

    def __init__(
        self,
        work: Callable[[S], T],
        items: Iterable[S],
        num_workers: int,
        ahead: int = 0,
        *,
        take: Callable[[S], S] | None = None,
        fail: Callable[[S, Exception], T] | None = None,
        weigh: Callable[[Any], int] | None = None,
        time_limit: float | None = None,
    ) -> None:
        self._work, self._items, self._take, self._fail = work, items, take, fail
        self._weigh, self._time_limit = weigh or (lambda value: 0), time_limit
        self._most = ahead + 2 * num_workers
        self._change = Condition()
        self._waiting: deque[_Task] = deque()  # not returned yet, in order
        self._todo: deque[_Task] = deque()
        self._held = 0  # bytes
        self._ended = self._closed = False
        self._failure: BaseException | None = None
        self._threads: list[Thread] = []
        self._start("tpt-source", self._pull)
        for _ in range(num_workers):
            self._start("tpt-decode", self._run)

    def __next__(self) -> T:
        with self._change:
            while not self._is_ready():
                if self._ended and not self._waiting:
                    if self._failure is not None:
                        failure, self._failure = self._failure, None
                        raise failure
                    raise StopIteration
                self._change.wait(self._time_left())
                self._give_up_late()
            task = self._waiting.popleft()
            self._held -= task.size
            self._change.notify_all()
        if task.error is not None:
            raise task.error
        result: T = task.result
        return result

    def is_slow(self) -> bool:
        """Whether the results before the next one should not wait for it."""
        began = time.monotonic()
        with self._change:
            while not (self._is_ready() or (self._ended and not self._waiting)):
                passed = time.monotonic() - began
                if passed >= (_SLOW_WORK if self._waiting else _GRACE):
                    return True
                self._change.wait(_GRACE)
        return False

    def close(self) -> None:
        """End the threads; one that waits for its source, or hangs, ends when that returns."""
        with self._change:
            self._closed = True
            self._todo.clear()
            self._change.notify_all()
        # Work in progress may finish, but a stalled source is not waited for.
        source, *others = self._threads
        for thread in others:
            thread.join(_PATIENCE)
        source.join(1.0)
        self._waiting.clear()

    # --- inside, with the lock held ---

    def _is_ready(self) -> bool:
        return bool(self._waiting) and self._waiting[0].done

    def _time_left(self) -> float | None:
        if self._time_limit is None or not self._waiting:
            return None
        started = self._waiting[0].started
        return (
            self._time_limit if started is None else started + self._time_limit - time.monotonic()
        )

    def _give_up_late(self) -> None:
        task = self._waiting[0] if self._waiting else None
        left = self._time_left()
        if task is None or task.done or task.started is None or left is None or left > 0:
            return
        task.given_up = True
        self._threads = [thread for thread in self._threads if thread is not task.thread]
        self._finish(task, late(self._time_limit or 0.0))
        self._start("tpt-decode", self._run)

    def _finish(self, task: _Task, error: Exception) -> None:
        """End a task that has no result of its own."""
        task.done, task.error = True, error
        if self._fail is not None:
            task.result, task.error = self._fail(task.item, error), None
        task.item = None

    # --- the threads ---

    def _start(self, name: str, run: Callable[[], None]) -> None:
        thread = Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._most and (self._held < MOST_BYTES or not self._waiting)

    def _pull(self) -> None:
        """Pull items while there is room for them."""
        failure: BaseException | None = None
        rest: Iterator[S] = iter(())
        try:
            rest = iter(self._items)
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._closed or self._has_room())
                    if self._closed:
                        return
                self._add(next(rest))
        except StopIteration:
            pass
        except BaseException as error:
            failure = error
        finally:
            del rest  # a generator ends here, in the thread that ran it
            self._items = ()
            with self._change:
                self._ended, self._failure = True, failure
                self._change.notify_all()

    def _add(self, item: S) -> None:
        task = _Task(item, 0)
        try:
            task.item = item if self._take is None else self._take(item)
            task.size = self._weigh(task.item)
        except Exception as error:
            self._finish(task, error)
        with self._change:
            self._held += task.size
            self._waiting.append(task)
            if not task.done:
                self._todo.append(task)
            self._change.notify_all()

    def _run(self) -> None:
        """Process tasks, until the end or until one has been given up."""
        while True:
            with self._change:
                self._change.wait_for(self._may_begin)
                if not self._todo:
                    return
                task = self._todo.popleft()
                task.started, task.thread = time.monotonic(), current_thread()
            result, error = None, None
            try:
                result = self._work(task.item)
            except BaseException as caught:
                error = caught
            with self._change:
                if task.given_up:
                    return
                task.result, task.error, task.item, task.done = result, error, None, True
                if task in self._waiting:
                    size = self._weigh(result) if error is None else 0
                    self._held += size - task.size
                    task.size = size
                self._change.notify_all()
            del result, error, task

    def _may_begin(self) -> bool:
        if not self._todo:
            return self._closed or self._ended
        return self._held < MOST_BYTES or self._todo[0] is self._waiting[0]


def late(seconds: float) -> TimeoutError:
    """The error of work that took longer than this many seconds."""
    return TimeoutError(f"it took longer than {seconds:g} s and was given up")


def map_ahead(
    work: Callable[[S], T], items: Iterable[S], num_workers: int, ahead: int = 0, **settings: Any
) -> Ahead[S, T] | Generator[T, None, None]:
    """`Ahead`; with 0 workers the caller's thread does the work, without reading ahead."""
    if num_workers:
        return Ahead(work, items, num_workers, ahead, **settings)
    return (work(item) for item in items)
