"""Numbers are fetched together, to the last bit."""

from __future__ import annotations

import pytest
import torch

from tpt.methods.base import Adapted
from tpt.methods.fetching import fetch, fetch_outcome, find_sound


def test_tensors_of_any_kind_come_whole() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.tensor([True, False, True]),
        torch.randn(3, 5).t(),
        torch.tensor(float("nan")),
        torch.arange(3),
        torch.randn(7, dtype=torch.float64),
        torch.randn(2, 3).half(),
        torch.zeros(0, 4),
    ]
    for fetched, own in zip(fetch(tensors), tensors, strict=True):
        torch.testing.assert_close(fetched, own, rtol=0, atol=0, equal_nan=True)


def test_an_outcome_is_fetched_with_flags_and_without_what_no_record_says() -> None:
    shift = torch.randn(2, 3, 4)
    out = Adapted(
        logits=torch.randn(2, 3),
        initial_logits=torch.randn(2, 3),
        selected=torch.tensor([[1], [0]]),
        view_entropy=torch.randn(2, 2),
        shift=shift,
    )
    fetched, (odd,) = fetch_outcome(out, torch.tensor([True, False]))
    assert odd == [True, False]
    assert fetched.shift is shift
    assert fetched.entropy is None
    assert torch.equal(fetched.logits, out.logits)
    assert torch.equal(fetched.selected, out.selected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_told_and_disturbs_nobody(value: float) -> None:
    features = torch.randn(3, 2, 4)
    features[1, 1, 2] = value
    harmless, sound = find_sound(features)
    assert sound.tolist() == [True, False, True]
    assert harmless.isfinite().all()
    assert torch.equal(harmless[[0, 2]], features[[0, 2]])
