"""Import packages that only some sources need, when such a source is opened."""

from __future__ import annotations

import importlib
from typing import Any

from tpt.errors import SourceError


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module that belongs to an extra.

    Args:
        extra: the extra of this package that installs it.
        what: what needs it, as the beginning of a sentence.

    Raises:
        SourceError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(module.partition(".")[0], extra, what) from error


def missing_extra(package: str, extra: str, what: str) -> SourceError:
    """The error for a package that is not installed."""
    return SourceError(
        f"{what} needs the package {package}. Install it: pip install 'tpt-runtime[{extra}]'."
    )
