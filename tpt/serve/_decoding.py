"""Decode uploads: a few at a time, a few ahead, each in a bounded time and size.

A decoder that hangs cannot be stopped. Its thread runs on, but its place is free for the next
upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tpt.images.decode import load_picture
from tpt.serve._threads import run_in_thread
from tpt.serve.settings import Upload
from tpt.streaming._ahead import MOST_BYTES
from tpt.streaming._stages import describe_failure
from tpt.streaming.loading import Loaded, load_as


class Decoder:
    """Decodes uploads; those without room wait.

    Args:
        num_workers: pictures decoded at a time.
        ahead: more pictures that may wait, decoded.
        max_pixels: of one picture.
        time_limit: seconds for one picture.
    """

    def __init__(self, num_workers: int, ahead: int, max_pixels: int, time_limit: float) -> None:
        self._most, self._max_pixels, self._time_limit = num_workers + ahead, max_pixels, time_limit
        self._threads = asyncio.Semaphore(num_workers)
        self._change = asyncio.Condition()
        self._count = self._bytes = 0  # of pictures decoded, or being decoded

    @asynccontextmanager
    async def decode(self, upload: Upload) -> AsyncIterator[Loaded]:
        """The picture of an upload, or its error; the block holds its room."""
        async with self._change:
            await self._change.wait_for(self._has_room)
            self._count += 1
        size = 0
        try:
            async with self._threads:
                loaded = await self._load(upload)
            size = loaded.picture.pixels.nbytes if loaded.picture is not None else 0
            self._bytes += size
            yield loaded
        finally:
            self._count, self._bytes = self._count - 1, self._bytes - size
            await asyncio.shield(self._notify())

    def _has_room(self) -> bool:
        return self._count < self._most and (self._bytes < MOST_BYTES or not self._count)

    async def _notify(self) -> None:
        async with self._change:
            self._change.notify_all()

    async def _load(self, upload: Upload) -> Loaded:
        def load() -> Loaded:
            return load_as(0, upload.name, lambda: load_picture(upload, self._max_pixels))

        try:
            return await run_in_thread(load, self._time_limit)
        except TimeoutError as late:
            return Loaded(0, upload.name, None, describe_failure(late, "Decoding"))
