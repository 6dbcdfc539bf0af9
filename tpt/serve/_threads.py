"""Work beside the event loop, in threads that end with it.

A thread that has computed with torch keeps a pool of threads for as long as it lives. Where there
are more of these than cores, OpenMP lets all of them sleep between operations, and the thread that
adapts takes 1.6 times as long (two cores, 64 views of the embedded model in bf16). So no thread but
that one lives on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from tpt.streaming._ahead import late

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T], time_limit: float | None = None) -> T:
    """What `work` returns. A thread without a time limit is waited for when the process ends.

    Raises:
        TimeoutError: it takes longer than `time_limit` seconds.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():  # given up
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome = work(), None
        except BaseException as error:
            outcome = None, error  # type: ignore[assignment]
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    Thread(target=run, name="tpt-work", daemon=time_limit is not None).start()
    try:
        return await asyncio.wait_for(done, time_limit)
    except asyncio.TimeoutError:
        if time_limit is None or not done.cancelled():  # the work's own
            raise
        raise late(time_limit) from None
