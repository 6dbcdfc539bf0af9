"""The errors of this package: one line each, in full sentences.

Every message says what was expected, what came, and what to do next. The command line prints them
without a traceback; a program that imports `tpt` catches `TptError` for all of them.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable


class TptError(Exception):
    """Base of all errors that a user can correct."""


class ModelError(TptError):
    """A model, its weights, its tokenizer, a device or a precision cannot be used."""


class PromptError(TptError):
    """A context, a prompt file or class names cannot be used with this model."""


class MethodError(TptError):
    """A method's settings, or the features it was given, cannot be used."""


class ImageError(TptError):
    """One image cannot be read; the others are not affected."""


class LargeImageError(ImageError):
    """One image has more pixels than are decoded."""


class SourceError(TptError):
    """The images to read cannot be found."""


class OutputError(TptError):
    """Records cannot be written, or an earlier run cannot be continued."""


class ServeError(TptError):
    """The service cannot be started."""


def why(error: BaseException) -> str:
    """What an exception says, on one printable line; the system's words alone for an `OSError`."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Another library's error on one line, for use in a message: "KeyError: 'x'".

    It is cut to 600 characters; torch's errors can be pages long, and come with every picture.
    """
    return textwrap.shorten(f"{type(error).__name__}: {error}", 600, placeholder=" ...")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine has no memory left; without torch."""
    name = type(error).__name__
    return name in ("OutOfMemoryError", "MemoryError") or (
        isinstance(error, RuntimeError)  # torch has no class of its own for a CPU
        and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
    )


def name_failure(error: Exception, what: str) -> tuple[str, str]:
    """(public error type, message) for an image that failed.

    Args:
        what: the stage, as the beginning of a sentence: "Decoding".
    """
    if isinstance(error, TptError):
        return _public_type(error), str(error)
    if is_out_of_memory(error):
        return (
            "OutOfMemoryError",
            f"{what} needs more memory than there is. Use fewer --views, --precision bf16 or "
            "--device cpu.",
        )
    return type(error).__name__, f"{what} failed for this image: {describe_error(error)}."


def _public_type(error: TptError) -> str:
    """The name of the error's type, or of the public base of a private type of ours."""
    kinds = type(error).__mro__
    public = (k for k in kinds if not k.__module__.startswith("tpt.") or k.__module__ == __name__)
    return next(public).__name__


def suggest(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x" or "y"?' for up to three known words close to `word`, else ''."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    if not close:
        return ""
    return " Did you mean " + " or ".join(f'"{by_lower[name]}"' for name in close) + "?"
