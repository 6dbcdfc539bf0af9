"""The service without HTTP: admission, the queue, prediction and shutdown.

    accept -> the class list is made ready -> decode -> batch -> record

Every stage is bounded: accepted pictures, held bytes, pictures decoded ahead, class lists, time.
Call all methods but `load` in the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal

from tpt.serve._decoding import Decoder
from tpt.serve._details import describe_details
from tpt.serve._jobs import Base, load_base, make_job, name_fully
from tpt.serve._lists import ClassLists
from tpt.serve._threads import run_in_thread
from tpt.serve._worker import Ticket, Worker
from tpt.serve.errors import BusyError, UnavailableError
from tpt.serve.metrics import Metrics
from tpt.serve.settings import Asked, ServeSettings, Upload
from tpt.streaming.loading import Loaded
from tpt.streaming.predict_job import PredictJob
from tpt.streaming.predict_settings import PredictSettings
from tpt.streaming.records import Record

State = Literal["loading", "ready", "draining"]


@dataclass(frozen=True, eq=False)
class Answer:
    """The result for one picture."""

    record: Record
    details: dict[str, Any] | None = None  # for the page


class Service:
    """One model, one queue, one thread that adapts."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.taken = 0  # pictures accepted and not answered yet
        self.held = 0  # bytes of requests
        self.metrics = Metrics(lambda: self.taken)
        self.state: State = "loading"
        self._idle = asyncio.Event()
        self._idle.set()

    # --- start and end ---

    def load(self, wanted: PredictSettings) -> Base:
        """Load the model and make the service's own class list ready; blocks.

        Raises:
            TptError: the settings cannot be used.
        """
        base = load_base(wanted)
        self._own = make_job(name_fully(Asked(), base), base) if base.classes is not None else None
        return base

    def open(self, base: Base) -> None:
        """Start to answer requests."""
        own = self.settings
        self.base = base
        size = base.clip.batch_size if own.max_batch is None else own.max_batch
        self._worker = Worker(size, own.max_wait_ms / 1e3, self.metrics)
        self._lists = ClassLists(partial(make_job, base=base), own.cached_lists)
        ahead = own.num_workers + size
        self._decoder = Decoder(own.num_workers, ahead, own.max_pixels, own.timeout_s)
        if self.state == "loading":
            self.state = "ready"

    async def drain(self) -> None:
        """Accept nothing more, and wait until everything accepted is answered."""
        self.state = "draining"
        await self._idle.wait()

    def close(self) -> None:
        if hasattr(self, "_worker"):
            self._worker.close()
            self._lists.close()

    # --- admission ---

    def check_loaded(self) -> None:
        """Refuse requests that need the model while it is loading.

        Raises:
            UnavailableError: the model is loading.
        """
        if not hasattr(self, "base"):
            raise UnavailableError("The model is loading. Try again in a few seconds.", 5)

    def check_open(self) -> None:
        """Refuse, before its body is read, a request that would not be accepted.

        Raises:
            UnavailableError: the service is loading or draining.
            BusyError: the queue is full.
        """
        self.check_loaded()
        if self.state == "draining":
            raise UnavailableError("The service is ending and takes no new work. Try again.", 5)
        if self.taken >= self.settings.queue:
            raise self._busy(1)

    @contextmanager
    def accept(self, count: int) -> Iterator[None]:
        """Hold a place in the queue for each of a request's pictures.

        Raises:
            UnavailableError, BusyError: as `check_open`.
        """
        self.check_open()
        if self.taken + count > self.settings.queue:
            raise self._busy(count)
        self.taken += count
        self._idle.clear()
        try:
            yield
        finally:
            self.taken -= count
            if not self.taken:
                self._idle.set()

    def _busy(self, count: int) -> BusyError:
        seconds = max(1, math.ceil(self.taken * self._worker.seconds))
        return BusyError(
            f"The queue is full: {self.taken} of {self.settings.queue} places are taken, and "
            f"{count} more are needed. Try again in about {seconds} s.",
            seconds,
        )

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """A function that counts more bytes of a request, which are held until it is answered.

        Raises:
            BusyError: in the function: all requests together would hold too much.
        """
        size = 0

        def add(more: int) -> None:
            nonlocal size
            if self.held + more > self.settings.max_held:
                raise BusyError(
                    f"The service holds {self.held:,} bytes of requests; the limit is "
                    f"{self.settings.max_held:,}. Try again in a few seconds.",
                    2,
                )
            self.held += more
            size += more

        try:
            yield add
        finally:
            self.held -= size

    # --- prediction ---

    async def predict(
        self, uploads: Sequence[Upload], asked: Asked, top_k: int | None, details: bool = False
    ) -> list[Answer]:
        """The answers to an accepted request, in the order of its pictures.

        Raises:
            TptError: the request's classes, templates or method cannot be used.
        """
        asked = name_fully(asked, self.base)
        if self._own is not None and asked == name_fully(Asked(), self.base):
            return await self._predict_all(uploads, self._own, top_k, details)
        started = perf_counter()
        async with self._lists.use(asked) as job:
            self.metrics.observe("classes", perf_counter() - started)
            return await self._predict_all(uploads, job, top_k, details)

    async def _predict_all(
        self, uploads: Sequence[Upload], job: PredictJob, top_k: int | None, details: bool
    ) -> list[Answer]:
        top_k = self.settings.top_k if top_k is None else top_k
        tasks = [
            asyncio.ensure_future(self._predict_one(upload, job, top_k, details))
            for upload in uploads
        ]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _predict_one(
        self, upload: Upload, job: PredictJob, top_k: int, details: bool
    ) -> Answer:
        started, outcome = perf_counter(), "dropped"
        try:
            async with self._decoder.decode(upload) as loaded:
                self.metrics.observe("decode", perf_counter() - started)
                answer = await self._adapt(loaded, job, top_k, details)
            outcome = "ok" if answer.record.error is None else "error"
            return answer
        finally:
            self.metrics.images.labels(outcome).inc()

    async def _adapt(self, loaded: Loaded, job: PredictJob, top_k: int, details: bool) -> Answer:
        if loaded.picture is None:
            return Answer(Record(loaded.path, 0, error=loaded.error))
        ticket = Ticket(loaded, job.method, job.views, top_k)
        outcome = await asyncio.wrap_future(self._worker.submit(ticket))
        shown = None
        if details and outcome.adapted is not None:
            describe = partial(describe_details, loaded.picture, outcome.adapted, job, top_k)
            shown = await run_in_thread(describe, self.settings.timeout_s)
        return Answer(outcome.record, shown)
