"""Which method to use for somebody's own pictures: every method on a small draw, then advice.

With labels, a method is advised if McNemar's exact test against zero-shot, corrected for the number
of methods (Bonferroni), gives p < 0.05; of those within a point of the best, the cheapest. If a
gain passes only the uncorrected test, the advice is to look at more pictures; if none does, not to
adapt. Without labels nobody knows whether a changed answer is better, so the advice is to label
the pictures whose answer changes: the others decide nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tpt.evaluate.image_scores import collect_scores
from tpt.evaluate.metrics import SetMetrics, Versus, measure_set
from tpt.methods import Method

PUBLISHED_SCALE = 100.0  # exp(logit_scale) of the CLIPs that TPT's learning rate was chosen on
PUBLISHED_LR = 5e-3
SIGNIFICANT = 0.05
WITHIN = 0.01  # of the best accuracy: then the cost decides
FEW = 0.02  # of the answers changed: not worth a label
SHELF = ("vte", "mta", "zero", "tps", "tpt", "ctpt", "rtpt", "tda", "oga", "stata")


def suited_rate(scale: float) -> float:
    """TPT's learning rate for a model of this exp(logit_scale), to two digits.

    AdamW's first step moves every number of the context by the rate, whatever the gradient, and a
    move of the class features moves the logits by the scale: 5e-3 at a scale of 100 is 5e-3 * 100 /
    scale elsewhere.
    """
    return float(f"{PUBLISHED_LR * PUBLISHED_SCALE / scale:.2g}")


def list_shelf(scale: float) -> tuple[str, ...]:
    """The methods to look at, as `tpt eval --methods` writes them."""
    rate = suited_rate(scale)
    tuned = ("tpt", "ctpt") if not 0.8 <= rate / PUBLISHED_LR <= 1.25 else ()
    return ("zero-shot", *SHELF, *(f"{name}:lr={rate:g}" for name in tuned))


@dataclass(frozen=True)
class Row:
    """One method on the draw; shares in [0, 1]."""

    name: str
    ms: float  # a picture: views and image tower, as far as it needs them, and its own work
    agreement: float  # share of the answers that are zero-shot's
    confidence: float | None  # mean probability of the answer; None where it votes
    entropy: float | None  # mean marginal entropy of the kept views at the end, nats
    keeps_state: bool
    metrics: SetMetrics | None  # where there are labels

    @property
    def versus(self) -> Versus:
        """How it compares with zero-shot; labelled draws only, and not for zero-shot itself."""
        assert self.metrics is not None
        assert self.metrics.versus is not None
        return self.metrics.versus


@dataclass(frozen=True)
class Advice:
    """The sentence, and the method that it advises."""

    sentence: str
    method: str  # a name of the rows; zero-shot for "do not adapt"


def make_rows(
    lines: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Method],
    classes: int,
    views: int,
    *,
    labelled: bool,
    baseline: str,
) -> list[Row]:
    """The rows from the draw's lines (`tpt.evaluate.runner`), the baseline's first."""
    lines = [line for line in lines if "error" not in line]
    measured: dict[str, SetMetrics] = {}
    if labelled:
        measured = measure_set(collect_scores(lines, list(methods), classes), baseline)
    shared = statistics.median(line["image_ms"] for line in lines)
    plain = [line["methods"][baseline]["top"][0][0] for line in lines]

    def row(name: str, method: Method) -> Row:
        made = [line["methods"][name] for line in lines]
        same = sum(one["top"][0][0] == other for one, other in zip(made, plain, strict=True))
        ends = [_last(one["entropy"]) for one in made if "entropy" in one]
        own = statistics.median(one["ms"] for one in made)
        return Row(
            name=name,
            ms=own + shared / (1 if method.reads_views else views),
            agreement=same / len(lines),
            confidence=statistics.mean(one["top"][0][1] for one in made)
            if method.gives_probabilities
            else None,
            entropy=statistics.mean(ends) if ends and method.reads_views else None,
            keeps_state=bool(method.keeps_state),
            metrics=measured.get(name),
        )

    return [row(name, method) for name, method in methods.items()]


def _last(entropy: tuple[float, float | None]) -> float:
    """The entropy after adaptation; before it, where the method does not adapt."""
    before, after = entropy
    return before if after is None else after


def find_changed(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the pictures on which the methods' answers differ."""
    return [
        line["key"]
        for line in lines
        if "error" not in line and len({made["top"][0][0] for made in line["methods"].values()}) > 1
    ]


def advise(rows: Sequence[Row], pictures: int, changed: int) -> Advice:
    """The advice that the rows of a draw support.

    Args:
        rows: zero-shot's first.
        pictures: how many the rows were measured on.
        changed: on how many of them the methods' answers differ.
    """
    plain, *others = rows
    if plain.metrics is None:
        return Advice(_advise_unlabelled(pictures, changed), plain.name)
    base = plain.metrics.metrics["acc1"] or 0.0
    hopeful = [row for row in others if _gain(row) > 0 and _chance(row) < SIGNIFICANT]
    better = [row for row in hopeful if _chance(row) * len(others) < SIGNIFICANT]
    if not better:
        return Advice(_advise_against(base, others, hopeful, pictures), plain.name)
    most = max(map(_gain, better))
    near = [row for row in better if _gain(row) >= most - WITHIN]
    best = min(near, key=lambda row: row.ms)
    state = (
        " Its answers depend on the other pictures: mix them, do not sort them."
        if best.keeps_state
        else ""
    )
    return Advice(
        f"Use {best.name}: on {pictures:,} of your pictures it is right on "
        f"{100 * (base + _gain(best)):.1f} %, zero-shot on {100 * base:.1f} % "
        f"({_describe_gain(best)}), for {best.ms:.0f} ms a picture instead of {plain.ms:.0f}."
        f"{state}",
        best.name,
    )


def _advise_against(
    base: float, others: Sequence[Row], hopeful: Sequence[Row], pictures: int
) -> str:
    """The sentence where no gain is certain: get more labels, or do not adapt."""
    if not others:
        return "Do not adapt: zero-shot is the only method here. Name others with --methods."
    nearest = max(hopeful or others, key=_gain)
    if hopeful:
        return (
            f"Not decided: on {pictures:,} of your pictures {nearest.name} is better than "
            f"zero-shot's {100 * base:.1f} % ({_describe_gain(nearest)}), but one of {len(others)} "
            "methods may be so by chance. Run again on more labelled pictures, with a larger "
            "--limit; until then do not adapt."
        )
    return (
        f"Do not adapt: on {pictures:,} of your pictures none of the {len(others)} methods is "
        f"better than zero-shot's {100 * base:.1f} % beyond chance (the nearest, "
        f"{nearest.name}: {_describe_gain(nearest)})."
    )


def _advise_unlabelled(pictures: int, changed: int) -> str:
    if changed <= FEW * pictures:
        return (
            f"Do not adapt: the methods change the answer of {changed:,} of {pictures:,} pictures, "
            "which is not worth their cost."
        )
    return (
        f"Do not adapt yet: some method changes the answer of {changed:,} of {pictures:,} "
        "pictures, and without labels nothing says whether for the better; label those, and run "
        "again with --labels."
    )


def _gain(row: Row) -> float:
    return row.versus.difference


def _chance(row: Row) -> float:
    return row.versus.mcnemar_p


def _describe_gain(row: Row) -> str:
    low, high = (100 * end for end in row.versus.interval)
    return f"{100 * _gain(row):+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
