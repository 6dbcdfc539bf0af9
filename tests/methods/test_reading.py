"""Reading logits: a temperature, two rules of confidence, and when the answer is none."""

from __future__ import annotations

import pytest
import torch

from tpt.errors import MethodError
from tpt.methods.reading import Reading, parse_reject

LOGITS = torch.tensor([2.0, 1.0, -1.0])


def test_by_default_nothing_is_changed_and_nothing_rejected() -> None:
    assert Reading().scale(LOGITS) is LOGITS
    assert not Reading().rejects(torch.zeros(3))


def test_a_temperature_divides_and_keeps_the_order() -> None:
    scaled = Reading(temperature=2.0).scale(LOGITS)
    assert scaled.tolist() == [1.0, 0.5, -0.5]


def test_confidence_is_the_largest_probability_or_the_energy() -> None:
    assert Reading().confidence(LOGITS) == LOGITS.softmax(-1).max()
    half = Reading(temperature=2.0)
    assert half.confidence(LOGITS) == (LOGITS / 2).softmax(-1).max()
    assert half.confidence(LOGITS, "energy") == LOGITS.logsumexp(-1)
    assert Reading(rule="energy").confidence(LOGITS) == LOGITS.logsumexp(-1)


@pytest.mark.parametrize(
    ("reading", "rejected"),
    [
        (Reading(threshold=0.7), False),  # the largest probability is 0.705
        (Reading(threshold=0.71), True),
        (Reading(temperature=2.0, threshold=0.7), True),
        (Reading(rule="energy", threshold=2.3), False),  # logsumexp is 2.349
        (Reading(rule="energy", threshold=2.4), True),
        (Reading(other=0), True),
        (Reading(other=2), False),
    ],
)
def test_rejection_is_by_the_rule_or_by_the_other_class(reading: Reading, rejected: bool) -> None:
    assert reading.rejects(LOGITS) is rejected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.4", ("probability", 0.4)),
        ("probability:0.4", ("probability", 0.4)),
        ("energy:-2.5", ("energy", -2.5)),
        ("off", None),
    ],
)
def test_a_threshold_is_read(text: str, found: tuple[str, float] | None) -> None:
    assert parse_reject(text) == found


@pytest.mark.parametrize("text", ["", "low", "energy:", "entropy:0.5", "nan", "inf", ":0.4x"])
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(MethodError, match="is not a threshold: expected a probability"):
        parse_reject(text)
