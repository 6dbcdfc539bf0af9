"""Turning the package's errors into the command's: one sentence on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tpt.errors import MethodError, SourceError, TptError

INTERRUPTED = 130  # what a shell reports for Ctrl-C


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors that a user can put right lose their traceback; wrong usage exits with 2."""
    try:
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
