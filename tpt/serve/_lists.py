"""Prepare class lists beside the batch loop, and keep a bounded number of them.

A list of 1,000 classes of ViT-B/16 holds about 1.5 GB (`PromptEngine.start_graph`). So the bound is
on all lists in memory: a new list waits until an unused one can be dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tpt.serve._threads import run_in_thread
from tpt.serve.settings import Asked
from tpt.streaming.predict_job import PredictJob

_MAKERS = 2  # lists made at a time: one of three names need not wait for one of a thousand


@dataclass(eq=False)
class _Entry:
    made: asyncio.Future[PredictJob]
    users: int = 1  # its making counts as one


class ClassLists:
    """Jobs by their class list, templates and method.

    Args:
        make: makes a job; called in a thread.
        most: jobs in memory at a time.
    """

    def __init__(self, make: Callable[[Asked], PredictJob], most: int) -> None:
        self._make, self._most = make, most
        self._entries: OrderedDict[Asked, _Entry] = OrderedDict()  # least recently used first
        self._makers = asyncio.Semaphore(_MAKERS)
        self._change = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._entries)

    @asynccontextmanager
    async def use(self, asked: Asked) -> AsyncIterator[PredictJob]:
        """The job of a request, kept alive while it is used.

        Raises:
            TptError: the request's classes, templates or method cannot be used.
        """
        entry = await self._claim(asked)
        try:
            yield await asyncio.shield(entry.made)
        finally:
            await asyncio.shield(self._release(entry))

    async def _claim(self, asked: Asked) -> _Entry:
        async with self._change:
            while asked not in self._entries and not self._make_room():
                await self._change.wait()
            entry = self._entries.get(asked)
            if entry is None:
                entry = _Entry(asyncio.ensure_future(self._make_one(asked)))
                self._entries[asked] = entry
                self._watch(asked, entry)
            self._entries.move_to_end(asked)
            entry.users += 1
            return entry

    async def _make_one(self, asked: Asked) -> PredictJob:
        async with self._makers:
            return await run_in_thread(partial(self._make, asked))

    def _make_room(self) -> bool:
        if len(self._entries) < self._most:
            return True
        idle = next((key for key, entry in self._entries.items() if not entry.users), None)
        if idle is not None:
            del self._entries[idle]
        return idle is not None

    def _watch(self, asked: Asked, entry: _Entry) -> None:
        """When the entry is made, release the making's hold; drop a failed entry."""

        def forget(made: asyncio.Future[PredictJob]) -> None:
            if made.cancelled() or made.exception() is not None:
                self._entries.pop(asked, None)
            self._releasing = asyncio.ensure_future(self._release(entry))

        entry.made.add_done_callback(forget)

    async def _release(self, entry: _Entry) -> None:
        async with self._change:
            entry.users -= 1
            self._change.notify_all()

    def close(self) -> None:
        for entry in self._entries.values():
            entry.made.cancel()
