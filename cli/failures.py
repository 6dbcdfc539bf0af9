"""Turning the package's errors into the command's: one sentence on stderr and an exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from tpt.errors import MethodError, SourceError, TptError, is_out_of_memory

INTERRUPTED = 130  # what a shell reports for Ctrl-C


class _Teller(logging.Handler):
    """Prints each message that the package logs once, as a line on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self.told:
            self.told.add(record.getMessage())
            click.echo(f"Warning: {record.getMessage()}", err=True)


@contextmanager
def _handling_logs(handler: logging.Handler) -> Iterator[None]:
    """Send the package's logs to `handler`.

    The hub client logs each try to connect; these are dropped, because our error says it.
    """
    ours = logging.getLogger("tpt")
    before, ours.propagate = ours.propagate, False
    theirs = logging.getLogger("huggingface_hub.utils._http")
    ours.addHandler(handler)
    theirs.addFilter(_refuse)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = before
        theirs.removeFilter(_refuse)


def _refuse(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def interruptible(tell: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends the command with an exit code of its own and a line that `tell` makes."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{tell()}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def plain_errors(logs: bool = True) -> Iterator[None]:
    """Print errors that a user can put right without a traceback; wrong usage exits with 2.

    What the package logs is printed too, unless `logs` is False.
    """
    handler = _Teller() if logs else logging.NullHandler()
    try:
        with interruptible(lambda: "Interrupted."), _handling_logs(handler):
            yield
    except (MethodError, SourceError) as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from error
    except TptError as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise click.ClickException(
            "The device ran out of memory. Use a smaller --batch-size or --views, --precision bf16 "
            "or --device cpu. Records written so far are whole; --resume goes on with them."
        ) from error
