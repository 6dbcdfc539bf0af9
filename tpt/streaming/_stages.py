"""Run a stage of the pipeline so that one picture's failure does not affect the others."""

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
    """The result of a stage for each item, or its failure.

    The items are processed together. If that raises, each is tried alone, so that only the bad ones
    fail.

    Args:
        work: returns one result an item.
        what: the stage, as the beginning of a sentence.
        alone: process one item at a time from the start, because a retry would change a state.
        whole: the items depend on one another, so if one fails, all fail.
    """
    if len(items) > 1 and (whole or not alone):
        try:
            return list(work(items))
        except Exception as error:
            if whole:
                return [describe_failure(error, what)] * len(items)
            # The loop below finds out which items fail.
    settled: list[T | Failure] = []
    for item in items:
        try:
            settled += work([item])
        except Exception as error:
            settled.append(describe_failure(error, what))
    return settled


def describe_failure(error: Exception, what: str) -> Failure:
    """The failure of one picture at the stage `what`, and what the user can do."""
    return Failure(*name_failure(error, what))
