"""`results.json` in the form that the page needs: results by set and method, and verdicts.

A verdict is the outcome of McNemar's exact test against the baseline: "better" or "worse" if
p < 0.05, as in the tables, else "same" (no significant difference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tpt.report.eval_tables import SIGNIFICANT

VERDICTS = {
    "better": "significantly better",
    "same": "no significant difference",
    "worse": "significantly worse",
    "unknown": "not compared",
}

MOST_CARDS = 12


@dataclass(frozen=True)
class Facts:
    """What was run, in the order of the run."""

    baseline: str
    methods: tuple[str, ...]  # those with results, the baseline first
    sets: tuple[dict[str, Any], ...]  # those with results
    cells: dict[tuple[str, str], dict[str, Any]]  # (set, method) -> its entry of "results"

    @property
    def shifted(self) -> list[str]:
        """The names of the shifted sets; of all sets if none is shifted."""
        shifted = [entry for entry in self.sets if entry["role"] == "shift"]
        return [entry["name"] for entry in shifted or self.sets]

    def get_result(self, dataset: str, method: str) -> dict[str, Any] | None:
        return self.cells.get((dataset, method))

    def get_accuracy(self, dataset: str, method: str) -> float | None:
        """Top-1 accuracy in [0, 1], or None where it was not measured."""
        result = self.get_result(dataset, method)
        return result["metrics"]["acc1"] if result else None


def read_facts(results: Mapping[str, Any]) -> Facts:
    """The facts in `results`, in order; methods and sets without any result are left out."""
    baseline = results["baseline"]
    cells = {(entry["dataset"], entry["method"]): entry for entry in results["results"]}
    datasets, run = {dataset for dataset, _ in cells}, {method for _, method in cells}
    names = [entry["name"] for entry in results["methods"] if entry["name"] in run]
    methods = sorted(names, key=lambda name: name != baseline)
    sets = tuple(entry for entry in results["sets"] if entry["name"] in datasets)
    return Facts(baseline, tuple(methods), sets, cells)


def judge(result: dict[str, Any] | None) -> str:
    """A key of VERDICTS for one entry of "results"."""
    versus = result["versus_baseline"] if result else None
    if versus is None or versus["mcnemar_p"] is None:
        return "unknown"
    if versus["mcnemar_p"] >= SIGNIFICANT:
        return "same"
    return "better" if versus["difference"] > 0 else "worse"


def get_parent(dataset: str) -> str:
    """The tree a set comes from: "pacs" of "pacs/sketch"."""
    return dataset.split("/")[0] or dataset


def group_sets(facts: Facts, by_corruption: bool = False) -> dict[str, list[dict[str, Any]]]:
    """The sets by their tree, or by their tree and corruption, in the order of the run."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in facts.sets:
        title = get_parent(entry["name"])
        if by_corruption and entry["corruption"]:
            title = f"{title}, {entry['corruption']}"
        groups.setdefault(title, []).append(entry)
    return groups


@dataclass(frozen=True)
class Card:
    """The headline of a set, or of a tree of sets: the best method against the baseline."""

    name: str
    sets: int  # the numbers are means over so many sets
    method: str  # the best one
    accuracy: float
    interval: Sequence[float] | None  # of the accuracy; None for a mean
    rival: str | None  # the best method other than the baseline
    difference: float | None  # the rival's accuracy minus the baseline's
    paired: Sequence[float] | None  # interval of the difference; None for a mean
    verdict: str  # on the rival: a key of VERDICTS; "mean" for several sets
    counts: dict[str, int]  # on how many sets the rival has each verdict


def make_cards(facts: Facts) -> list[Card]:
    """A card a shifted set; if there are more than twelve, a card a tree of sets."""
    many = len(facts.shifted) > MOST_CARDS
    trees: dict[str, list[str]] = {}
    for name in facts.shifted:
        trees.setdefault(get_parent(name) if many else name, []).append(name)
    parts = ((tree if len(names) > 1 else names[0], names) for tree, names in trees.items())
    cards = (_make_card(facts, title, names) for title, names in parts)
    return [card for card in cards if card is not None]


def _make_card(facts: Facts, title: str, names: Sequence[str]) -> Card | None:
    means = {}
    for method in facts.methods:
        values = [facts.get_accuracy(name, method) for name in names]
        if all(value is not None for value in values):
            means[method] = fmean(value for value in values if value is not None)
    if not means:
        return None
    best = max(means, key=means.__getitem__)  # of equals the first: the baseline
    others = [method for method in means if method != facts.baseline]
    rival = max(others, key=means.__getitem__, default=None)
    base = means.get(facts.baseline)
    difference = None if rival is None or base is None else means[rival] - base
    verdicts = [judge(facts.get_result(name, rival)) for name in names] if rival else []
    interval: Sequence[float] | None = None
    paired: Sequence[float] | None = None
    verdict = "mean"
    if len(names) == 1:
        interval = facts.cells[names[0], best]["intervals"]["acc1"]
        verdict = verdicts[0] if verdicts else "unknown"
        versus = facts.cells[names[0], rival]["versus_baseline"] if rival else None
        if versus:  # as measured: in floats 0.5875 - 0.55 is not 0.0375
            difference, paired = versus["difference"], versus["interval"]
    return Card(
        name=title,
        sets=len(names),
        method=best,
        accuracy=means[best],
        interval=interval,
        rival=rival,
        difference=difference,
        paired=paired,
        verdict=verdict,
        counts={verdict: verdicts.count(verdict) for verdict in VERDICTS},
    )


@dataclass(frozen=True)
class Score:
    """One method against the baseline over all shifted sets."""

    method: str
    counts: dict[str, int]  # sets by verdict
    total: int
    mean: float  # mean difference in [-1, 1] over these sets


def make_scores(facts: Facts) -> list[Score]:
    """A score for each method other than the baseline."""
    scores = []
    for method in facts.methods:
        entries = [facts.get_result(name, method) for name in facts.shifted]
        found = [entry for entry in entries if entry and entry["versus_baseline"]]
        if not found:  # the baseline has none
            continue
        verdicts = [judge(entry) for entry in found]
        counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
        mean = fmean(entry["versus_baseline"]["difference"] for entry in found)
        scores.append(Score(method, counts, len(found), mean))
    return scores
