"""The advice: significant gains alone, the cheapest of the best, and the rate for a scale."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tpt.evaluate.advice import Row, advise, find_changed, list_shelf, make_rows, suited_rate
from tpt.evaluate.metrics import SetMetrics, Versus


def row(name: str, gain: float = 0.0, p: float = 1.0, ms: float = 10.0, **more: Any) -> Row:
    versus = None if name == "zero-shot" else Versus(gain, (gain - 0.02, gain + 0.02), p, 9, 3)
    metrics = SetMetrics(200, {"acc1": 0.6 + gain}, {}, None, versus)
    facts = {"agreement": 0.9, "confidence": 0.7, "entropy": None, "keeps_state": False}
    return Row(name, ms, **{**facts, "metrics": metrics, **more})


PLAIN = row("zero-shot", ms=5.0)


@pytest.mark.parametrize(
    ("scale", "rate"), [(100.0, 0.005), (26.0, 0.019), (50.0, 0.01), (14.3, 0.035)]
)
def test_the_rate_suits_the_scale(scale: float, rate: float) -> None:
    assert suited_rate(scale) == rate


def test_the_shelf_has_the_suited_rate_where_it_differs() -> None:
    assert "tpt:lr=0.019" in list_shelf(26.0)
    assert not [name for name in list_shelf(100.0) if ":" in name]


def test_a_gain_beyond_chance_is_advised_with_its_cost() -> None:
    found = advise([PLAIN, row("vte", 0.05, 0.001, 90.0), row("tpt", 0.01, 0.6)], 200, 30)
    assert found.method == "vte"
    assert found.sentence == (
        "Use vte: on 200 of your pictures it is right on 65.0 %, zero-shot on 60.0 % (+5.0 points, "
        "95 % interval +3.0 to +7.0), for 90 ms a picture instead of 5."
    )


def test_of_those_near_the_best_the_cheapest() -> None:
    rows = [PLAIN, row("tpt", 0.055, 0.001, 300.0), row("tda", 0.05, 0.001, 6.0)]
    assert advise(rows, 200, 30).method == "tda"
    rows[1] = row("tpt", 0.08, 0.001, 300.0)
    assert advise(rows, 200, 30).method == "tpt"


def test_state_is_told() -> None:
    rows = [PLAIN, row("tda", 0.05, 0.001, keeps_state=True)]
    assert "mix them, do not sort them" in advise(rows, 200, 30).sentence


@pytest.mark.parametrize(
    "rows",
    [
        [row("vte", -0.05, 0.001)],
        [row("vte", 0.0, 1.0)],
    ],
)
def test_chance_and_losses_are_no_reason_to_adapt(rows: list[Row]) -> None:
    found = advise([PLAIN, *rows], 200, 30)
    assert found.method == "zero-shot"
    assert found.sentence.startswith("Do not adapt: on 200 of your pictures none of the")
    assert "vte: " in found.sentence


def test_what_one_of_many_may_gain_by_chance_is_not_decided() -> None:
    rows = [row("vte", 0.03, 0.03), row("tpt", 0.05, 0.2)]  # 0.03 of two methods is 0.06
    found = advise([PLAIN, *rows], 200, 30)
    assert found.method == "zero-shot"
    assert found.sentence.startswith("Not decided: on 200 of your pictures vte is better")
    assert "a larger --limit" in found.sentence


def test_zero_shot_alone_is_no_reason_to_adapt() -> None:
    assert advise([PLAIN], 200, 0).sentence.startswith("Do not adapt: zero-shot is the only")


def test_an_entropy_of_zero_at_the_end_counts() -> None:
    answer = {"top": [[0, 1.0]], "ms": 1.0}
    ends = {"zero-shot": None, "tpt": [0.4, 0.0], "vte": [0.4, None]}
    made = {name: answer | ({"entropy": end} if end else {}) for name, end in ends.items()}
    kind = SimpleNamespace(reads_views=True, gives_probabilities=True, keeps_state=False)
    rows = make_rows(
        [{"image_ms": 1.0, "methods": made}],
        dict.fromkeys(ends, kind),  # type: ignore[arg-type]
        2,
        8,
        labelled=False,
        baseline="zero-shot",
    )
    assert [row.entropy for row in rows] == [None, 0.0, 0.4]


@pytest.mark.parametrize(("changed", "words"), [(4, "Do not adapt: the"), (40, "label those")])
def test_without_labels_nothing_is_claimed(changed: int, words: str) -> None:
    rows = [row("zero-shot", metrics=None), row("vte", metrics=None)]
    found = advise(rows, 200, changed)
    assert found.method == "zero-shot"
    assert words in found.sentence


def test_the_pictures_whose_answers_differ_are_found() -> None:
    def line(key: str, *answers: int) -> dict[str, Any]:
        made = {f"m{n}": {"top": [[answer, 0.5]]} for n, answer in enumerate(answers)}
        return {"key": key, "methods": made}

    lines = [line("a", 0, 0), line("b", 0, 1), {"key": "c", "error": {}}]
    assert find_changed(lines) == ["b"]
