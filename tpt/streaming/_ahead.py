"""Work in threads on what an iterable gives, a few items ahead, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def map_ahead(
    work: Callable[[S], T], items: Iterable[S], num_workers: int, ahead: int = 0
) -> Generator[T, None, None]:
    """`map(work, items)` in threads, at most `ahead + 2 * num_workers` items ahead.

    With no workers the caller's thread works. Where `items` breaks, the results of what it gave
    come first, then its error.
    """
    if num_workers == 0:
        yield from map(work, items)
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="tpt-decode")
    failure: Exception | None = None
    rest = iter(items)
    try:
        while True:
            while failure is None and len(waiting) < ahead + 2 * num_workers:
                try:
                    item = next(rest)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                waiting.append(pool.submit(work, item))
            if not waiting:
                break
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
