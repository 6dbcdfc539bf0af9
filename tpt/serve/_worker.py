"""The one thread that adapts: it takes the decoded pictures of all clients in batches.

A batch may mix class lists and methods: its pictures' views are encoded together, and each method
gets its own. Views depend only on a picture's content, so results do not depend on the batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Condition, Thread

from torch import Tensor

from tpt.images.views import Views
from tpt.methods.base import Adapted, Method
from tpt.serve.metrics import Metrics
from tpt.streaming.batches import adapt_batch, encode, make_record, part_failures
from tpt.streaming.loading import Loaded
from tpt.streaming.records import Failure, Record


@dataclass(frozen=True, eq=False)
class Outcome:
    """A picture's record, and the method's result if there is one."""

    record: Record
    adapted: Adapted | None


@dataclass(frozen=True, eq=False)
class Ticket:
    """A decoded picture that waits for its batch."""

    loaded: Loaded
    method: Method
    views: Views
    top_k: int
    done: Future[Outcome] = field(default_factory=Future)
    entered: float = field(default_factory=time.perf_counter)


class Worker:
    """Answers tickets in order of arrival.

    Args:
        max_batch: most pictures computed together.
        max_wait: seconds that a picture waits for others to share its batch.
        metrics: counts batches and times.
    """

    def __init__(self, max_batch: int, max_wait: float, metrics: Metrics) -> None:
        self._max_batch, self._max_wait, self._metrics = max_batch, max_wait, metrics
        self._change = Condition()
        self._waiting: deque[Ticket] = deque()
        self._closed = False
        self.seconds = 0.1  # per picture, a running average
        self._thread = Thread(target=self._run, name="tpt-adapt", daemon=True)
        self._thread.start()

    def submit(self, ticket: Ticket) -> Future[Outcome]:
        """The outcome of a ticket; cancelling it drops work that has not begun."""
        with self._change:
            self._waiting.append(ticket)
            self._change.notify()
        return ticket.done

    def close(self) -> None:
        """End after the current batch."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(5.0)

    def _run(self) -> None:
        while batch := self._take():
            started = time.perf_counter()
            for ticket in batch:
                self._metrics.observe("wait", started - ticket.entered)
            self._metrics.batch.observe(len(batch))
            try:
                outcomes = predict_mixed(batch)
            except BaseException as error:  # the thread must go on, and no client wait forever
                for ticket in batch:
                    ticket.done.set_exception(error)
                continue
            finally:
                spent = time.perf_counter() - started
                self._metrics.observe("adapt", spent)
                self.seconds += 0.1 * (spent / len(batch) - self.seconds)
            for ticket, outcome in zip(batch, outcomes, strict=True):
                ticket.done.set_result(outcome)
            del batch, outcomes, ticket, outcome  # else pictures would live until the next batch

    def _take(self) -> list[Ticket]:
        """The next batch of tickets that were not cancelled; empty at the end."""
        batch: list[Ticket] = []
        with self._change:
            while not self._closed:
                self._change.wait_for(lambda: self._waiting or self._closed)
                self._pick(batch)
                if batch:
                    break
            until = time.monotonic() + self._max_wait
            while batch and len(batch) < self._max_batch and not self._closed:
                left = until - time.monotonic()
                if left <= 0 or not self._change.wait_for(lambda: bool(self._waiting), left):
                    break
                self._pick(batch)
        return batch

    def _pick(self, batch: list[Ticket]) -> None:
        while self._waiting and len(batch) < self._max_batch:
            ticket = self._waiting.popleft()
            if ticket.done.set_running_or_notify_cancel():
                batch.append(ticket)


def predict_mixed(batch: Sequence[Ticket]) -> list[Outcome]:
    """The outcomes of a batch, in order."""
    started = time.perf_counter()
    items = [replace(ticket.loaded, index=place) for place, ticket in enumerate(batch)]
    outcomes = _adapt_mixed(batch, items)
    ms = (time.perf_counter() - started) * 1e3 / len(batch)
    results = []
    for item, ticket in zip(items, batch, strict=True):
        outcome = outcomes[item.index]
        record = make_record(item, outcome, ticket.method, ticket.top_k, ms)
        adapted = outcome if isinstance(outcome, Adapted) and record.error is None else None
        results.append(Outcome(record, adapted))
    return results


def _adapt_mixed(batch: Sequence[Ticket], items: Sequence[Loaded]) -> dict[int, Adapted | Failure]:
    outcomes: dict[int, Adapted | Failure] = {}
    rows: dict[int, Tensor] = {}
    for group in _group(batch, lambda one: (one.views.n, one.views.kind, one.method.first_views)):
        some, first = [items[p] for p in group], batch[group[0]]
        check = any(batch[p].method.weighs_others for p in group)
        count = first.method.first_views
        found = encode(some, first.views.clip, first.views, count, check=check)
        rows |= part_failures(found, some, outcomes)[0]
    for group in _group(batch, lambda one: id(one.method)):
        whole, first = [items[p] for p in group if p in rows], batch[group[0]]
        if whole:
            outcomes |= adapt_batch(whole, first.method, first.views, rows)
    return outcomes


def _group(batch: Sequence[Ticket], key: Callable[[Ticket], Hashable]) -> list[list[int]]:
    """The batch's positions, grouped by the tickets' keys."""
    groups: dict[Hashable, list[int]] = {}
    for place, ticket in enumerate(batch):
        groups.setdefault(key(ticket), []).append(place)
    return list(groups.values())
