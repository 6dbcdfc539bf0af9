"""One picture's failure stays its own: a stage gives a result, or says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tpt.errors import name_failure
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
    return Failure(*name_failure(error, what))
