"""Turning the package's errors into the command's: one sentence on stderr and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tpt.errors import MethodError, SourceError, TptError


@contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that a user can put right lose their traceback; wrong usage exits with 2."""
    try:
        yield
    except (MethodError, SourceError) as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from error
    except TptError as error:
        raise click.ClickException(str(error)) from error
