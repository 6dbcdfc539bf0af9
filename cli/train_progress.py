"""Progress of a training on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich import progress
from rich.console import Console

if TYPE_CHECKING:
    from coop.loop import Epoch

_EVERY = 20.0  # seconds between plain lines


class Silent:
    """Prints only warnings."""

    def say(self, text: str) -> None:
        if text.startswith("Warning"):
            click.echo(text, err=True)

    def encode(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        pass


class Plain:
    """Prints a line now and then, and one for the last epoch of every run."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def encode(self, what: str, done: int, total: int) -> None:
        if self._is_due():
            self.say(f"Encoding {what}: {done:,} of {total:,}")

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        if self._is_due() or epoch.number + 1 == epochs:
            self.say(
                f"Epoch {epoch.number + 1} of {epochs}: loss {epoch.loss:.4f}, learning rate "
                f"{epoch.lr:.2e}, accuracy {100 * epoch.accuracy:.1f} %"
            )

    def _is_due(self) -> bool:
        if time.monotonic() - self._last < _EVERY:
            return False
        self._last = time.monotonic()
        return True


class Bars:
    """One bar for what is being encoded, one for the epochs; use as a context manager."""

    def __init__(self) -> None:
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        # Soft: a path that is longer than the line stays whole.
        self._bars.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def encode(self, what: str, done: int, total: int) -> None:
        self._show(f"Encoding {what}", done, total)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        text = f"loss {epoch.loss:.4f}  lr {epoch.lr:.2e}  accuracy {100 * epoch.accuracy:.1f} %"
        self._show(text, epoch.number + 1, epochs)

    def _show(self, text: str, done: int, total: int) -> None:
        if done == 1:  # a new bar, with a clock of its own
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(text, total=total)
        self._bars.update(
            self._task, description=text, completed=done, total=total, visible=done < total
        )
