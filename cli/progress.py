"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

_EVERY = 30.0  # seconds between plain lines


@dataclass
class Tally:
    """Counts of the images so far."""

    total: int | None  # None: nobody knows
    done: int = 0
    failed: int = 0
    warned: int = 0
    changed: int = 0
    skipped: int = 0  # left alone by a gate
    rejected: int = 0  # none of the classes
    started: float = field(default_factory=time.monotonic)

    def add(self, record: dict[str, Any]) -> None:
        """Count a record, or a line of an evaluation."""
        self.done += 1
        self.failed += "error" in record
        self.warned += "warning" in record
        first, before = record.get("predictions", [])[:1], record.get("zero_shot")
        self.changed += bool(first and before and first[0]["index"] != before["index"])
        self.rejected += "rejected" in record
        self.skipped += bool(record.get("adapt", {}).get("skipped"))

    def rate(self) -> float:
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def left(self) -> str:
        """'about 12 min left', at the rate so far; "" where that is not known."""
        if self.total is None:
            return ""
        seconds = (self.total - self.done) / max(self.rate(), 1e-9)
        for unit, length in (("h", 3600), ("min", 60)):
            if seconds >= 1.5 * length:
                return f"about {seconds / length:.3g} {unit} left"
        return f"about {seconds:.0f} s left"

    def summary(self) -> str:
        """'5,000 of 5,000 images in 123 s (40.6/s), 2 failed, 310 changed by adaptation'."""
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [
            f"{self.done:,}{of} images in "
            f"{time.monotonic() - self.started:.1f} s ({self.rate():.3g}/s)"
        ]
        share = 100 * self.skipped / max(1, self.done)
        counts = (
            (self.failed, "failed"),
            (self.warned, "with a warning"),
            (self.changed, "changed by adaptation"),
            (self.skipped, f"left alone by the gate ({share:.0f} %)"),
            (self.rejected, "rejected as none of the classes"),
        )
        parts += [f"{count:,} {what}" for count, what in counts if count]
        return ", ".join(parts)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Yield a function to call with the tally after every record."""
    if quiet:
        yield lambda tally: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _plain_lines()


def _plain_lines() -> Callable[[Tally], None]:
    last = time.monotonic()

    def show(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            told = [f"{tally.summary()} so far", tally.left()]
            click.echo(", ".join(filter(None, told)), err=True)

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Tally], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]:.3g}/s"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[failed]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None, rate=0.0, failed="")

        def show(tally: Tally) -> None:
            failed = f"{tally.failed} failed" if tally.failed else ""
            bars.update(
                task, total=tally.total, completed=tally.done, rate=tally.rate(), failed=failed
            )

        yield show
