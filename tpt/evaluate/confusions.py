"""Which classes a method moves answers between: counts of (true class, answer before, after).

"Before" is the baseline's top class for a picture, "after" the method's; only pictures where the
two differ count. The rows of `predictions.jsonl` are read one by one and only counts are kept: at
most K x K x K numbers a method for K classes, and never more than pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """Pictures of one class whose answer went from one class to another."""

    truth: str
    before: str
    after: str
    count: int


@dataclass(frozen=True)
class Confusion:
    """The changed answers of one method on one set, most frequent first."""

    dataset: str
    method: str
    changes: tuple[Change, ...]
    rarer: int = 0  # changes that are not among `changes`
    rarer_images: int = 0  # and their pictures


class ChangeCounter:
    """Counts the changed answers of one result set; "before" are the baseline's."""

    def __init__(self, baseline: str = "zero-shot") -> None:
        self.baseline = baseline
        self._counts: dict[str, Counter[tuple[int, int, int]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of `predictions.jsonl`; a picture that failed counts nowhere."""
        for method, before, after in compare_answers(row, self.baseline):
            counts = self._counts.setdefault(method, Counter())
            if before != after:
                counts[row["label"], before, after] += 1

    def confusions(
        self, dataset: str, classes: Sequence[str], limit: int = 15
    ) -> tuple[Confusion, ...]:
        """The `limit` most frequent changes of every method, and how many more there are.

        Equally frequent changes come in the order of the classes. A method that changed no answer
        has an entry without changes.

        Args:
            classes: the set's class names, in the order of its labels.
        """
        found = []
        for method, counts in self._counts.items():
            frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            changes = tuple(
                Change(classes[truth], classes[before], classes[after], count)
                for (truth, before, after), count in frequent[:limit]
            )
            rest = [count for _, count in frequent[limit:]]
            found.append(Confusion(dataset, method, changes, len(rest), sum(rest)))
        return tuple(found)


def compare_answers(row: Mapping[str, Any], baseline: str) -> Iterator[tuple[str, int, int]]:
    """(method, the baseline's top class, the method's) of a row, for all but the baseline.

    A row yields nothing if the picture failed, and skips a method that gave no answer.
    """
    answers = row.get("methods", {})
    before = answers.get(baseline, {}).get("top")
    for method, answer in answers.items():
        if method != baseline and before and answer.get("top"):
            yield method, before[0][0], answer["top"][0][0]
