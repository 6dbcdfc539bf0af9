"""Run work beside the event loop, each in a thread that ends with the work.

A thread that has computed with torch keeps a pool of threads while it lives. With more of these
than cores, OpenMP makes all of them sleep between operations, and the thread that adapts takes 1.6
times as long (two cores, 64 views of the embedded model in bf16). So only that thread is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from tpt.streaming._ahead import late

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T], time_limit: float | None = None) -> T:
    """What `work` returns. The process waits at its end for work without a time limit.

    Raises:
        TimeoutError: it takes longer than `time_limit` seconds.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # a thread cannot be cancelled

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    done = asyncio.wrap_future(result)
    Thread(target=run, name="tpt-work", daemon=time_limit is not None).start()
    try:
        return await asyncio.wait_for(done, time_limit)
    except asyncio.TimeoutError:
        if time_limit is None or not done.cancelled():  # the work's own
            raise
        raise late(time_limit) from None
