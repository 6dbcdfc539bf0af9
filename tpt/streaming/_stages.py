"""One picture's failure stays its own: a stage gives a result, or says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tpt.errors import TptError, describe_error, is_out_of_memory
from tpt.streaming.records import Failure

S = TypeVar("S")
T = TypeVar("T")


def settle(
    work: Callable[[Sequence[S]], Sequence[T]],
    items: Sequence[S],
    what: str,
    *,
    alone: bool = False,
    whole: bool = False,
) -> list[T | Failure]:
    """What a stage gives for each item, or its failure.

    The items are worked on together. Where that raises, each is tried alone, so that the others
    have their results.

    Args:
        work: gives as many results as it is given items.
        items: the items.
        what: the stage, as the beginning of a sentence.
        alone: one item at a time from the start, where trying again would change a state.
        whole: the items decide about one another, so a failure is that of all.
    """
    if len(items) > 1 and (whole or not alone):
        try:
            return list(work(items))
        except Exception as error:
            if whole:
                return [describe_failure(error, what)] * len(items)
            # Whose failure it is shows below.
    settled: list[T | Failure] = []
    for item in items:
        try:
            settled += work([item])
        except Exception as error:
            settled.append(describe_failure(error, what))
    return settled


def describe_failure(error: Exception, what: str) -> Failure:
    """The failure of one picture at a stage, with what can be done."""
    if isinstance(error, TptError):
        return Failure(_public_kind(error), str(error))
    if is_out_of_memory(error):
        return Failure(
            "OutOfMemoryError",
            f"{what} needs more memory than there is. Use fewer --views, --precision bf16 or "
            "--device cpu.",
        )
    return Failure(type(error).__name__, f"{what} failed for this image: {describe_error(error)}.")


def _public_kind(error: TptError) -> str:
    """The error's type, or the public one that a private type here stands for."""
    kinds = type(error).__mro__
    public = (
        k
        for k in kinds
        if not k.__module__.startswith("tpt.") or k.__module__ == TptError.__module__
    )
    return next(public).__name__
