"""Turning the package's errors into the command's: one sentence on stderr and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tpt.errors import MethodError, SourceError, TptError

INTERRUPTED = 130  # what a shell reports for Ctrl-C


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors that a user can put right lose their traceback; wrong usage exits with 2.

    Warnings become lines on stderr, each told once.
    """
    told: set[str] = set()

    def tell(message: Warning | str, *rest: object, **more: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            click.echo(f"Warning: {message}", err=True)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module="tpt|cli")
            warnings.showwarning = tell
            yield
    except KeyboardInterrupt as error:
        click.echo("\nInterrupted.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except (MethodError, SourceError) as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from error
    except TptError as error:
        raise click.ClickException(str(error)) from error
    except RuntimeError as error:
        # torch's, without importing torch here; on a CPU it has no class of its own.
        if type(error).__name__ != "OutOfMemoryError" and "DefaultCPUAllocator" not in str(error):
            raise
        raise click.ClickException(
            "The device ran out of memory. Use a smaller --batch-size or --views, --precision bf16 "
            "or --device cpu. Records written so far are whole; --resume goes on with them."
        ) from error
