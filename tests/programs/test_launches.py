"""How many kernels and synchronisations a picture costs: a bound for every stage, far from none."""

from __future__ import annotations

import pytest
import torch
from launches import Counts, counting, measure
from program_runs import run


@pytest.fixture(scope="module")
def counts() -> dict[str, Counts]:
    """Eight pictures, twelve layers, classes of several lengths."""
    return measure(classes=30, batch=8, layers=12, augment="crop", name="tpt")


def test_kernels_of_the_text_side_do_not_grow(counts: dict[str, Counts]) -> None:
    assert counts["method"].kernels.total() / 8 < 110


def test_kernels_of_views_and_of_all_together_do_not_grow(counts: dict[str, Counts]) -> None:
    assert counts["views"].kernels.total() / 8 < 20
    assert counts["predict"].kernels.total() / 8 < 160


def test_with_the_start_s_jacobian_the_text_side_has_half_the_kernels(
    counts: dict[str, Counts],
) -> None:
    found = measure(classes=3, batch=8, layers=12, augment="crop", name="tpt", jacobian=True)
    assert found["method"].kernels.total() < 0.45 * counts["method"].kernels.total()
    assert found["predict"].waits == {"cpu": 1}


def test_kernels_do_not_depend_on_the_class_list(counts: dict[str, Counts]) -> None:
    few = measure(classes=3, batch=8, layers=12, augment="crop", name="tpt")
    assert few["method"].kernels == counts["method"].kernels


def test_a_batch_waits_for_the_device_once(counts: dict[str, Counts]) -> None:
    assert counts["predict"].waits == {"cpu": 1}
    assert not counts["encode"].waits
    assert counts["judge"].waits == {"cpu": 1}


@pytest.mark.parametrize("name", ["zero-shot", "vte", "zero", "mta", "tps", "ctpt", "rtpt"])
def test_no_method_waits_for_the_device(name: str) -> None:
    found = measure(classes=3, batch=2, layers=1, augment="crop", name=name)
    assert found["predict"].waits == found["judge"].waits == {"cpu": 1}


def test_what_is_counted() -> None:
    x = torch.ones(3, 4)
    with counting() as counts:
        y = x.view(4, 3).t()[1:]  # views
        (y + 1).sum().item()
        x[x > 0].tolist()
        x.softmax(-1)
        fetched = x.cpu()  # from here on the host
        float((fetched + 1).sum())
    assert dict(counts.kernels) == {"add": 1, "sum": 1, "gt": 1, "_softmax": 1}
    assert dict(counts.waits) == {"_local_scalar_dense": 1, "index": 1, "tolist": 1, "cpu": 1}


@pytest.mark.slow
def test_launches_are_printed() -> None:
    small = ("--classes", 3, "--batch", 2, "--layers", 1, "--augment", "augmix", "--most", 2)
    printed = run("benchmarks/launches", *small)
    assert "3 classes, batch 2, tpt:" in printed
    assert "synchronisations a batch: predict" in printed
