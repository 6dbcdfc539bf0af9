"""How many kernels and synchronisations a picture costs: a bound for every stage, far from none."""

from __future__ import annotations

import _simulated_gpu as gpu
import pytest
import torch
from _simulated_gpu import Counts
from launches import measure


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
    assert found["predict"].waits.total() == 1


def test_with_cuda_graphs_the_text_side_is_two_launches(counts: dict[str, Counts]) -> None:
    found = measure(classes=3, batch=8, layers=12, augment="crop", name="tpt", graphs=True)
    assert found["method"].kernels["graph"] == 2
    assert found["method"].kernels.total() < 0.15 * counts["method"].kernels.total()
    assert found["predict"].waits.total() == 1


def test_kernels_do_not_depend_on_the_class_list(counts: dict[str, Counts]) -> None:
    few = measure(classes=3, batch=8, layers=12, augment="crop", name="tpt")
    assert few["method"].kernels == counts["method"].kernels


def test_a_batch_waits_for_the_device_once(counts: dict[str, Counts]) -> None:
    assert counts["predict"].waits.total() == counts["judge"].waits.total() == 1
    assert "to the host (tpt/methods/fetching.py" in next(iter(counts["predict"].waits))
    assert not counts["encode"].waits


@pytest.mark.parametrize("name", ["zero-shot", "vte", "zero", "mta", "tps", "ctpt", "rtpt"])
def test_no_method_waits_for_the_device(name: str) -> None:
    found = measure(classes=3, batch=2, layers=1, augment="crop", name=name)
    assert found["predict"].waits.total() == found["judge"].waits.total() == 1


def test_augmix_waits_for_nothing() -> None:
    found = measure(classes=3, batch=2, layers=1, augment="augmix", name="vte")
    assert not found["views"].waits


def test_what_is_counted() -> None:
    with gpu.simulating():
        x = torch.ones(3, 4, device="simulated:0")
        with gpu.counting() as counts:
            y = x.view(4, 3).t()[1:]  # views
            (y + 1).sum().item()
            x[x > 0].tolist()
            x.softmax(-1)
            fetched = x.cpu()  # from here on the host
            float((fetched + 1).sum())
            torch.ones(2).to(x.device)
            torch.ones(2).pin_memory().to(x.device)
            torch.ones(2).pin_memory().to(x.device, non_blocking=True)
    assert dict(counts.kernels) == {"add": 1, "sum": 1, "gt": 1, "_softmax": 1}
    found = {name.split(" (")[0]: times for name, times in counts.waits.items()}
    assert found == {
        "_local_scalar_dense": 1,
        "index": 1,
        "tolist": 1,
        "to the host": 1,
        "from memory that is not locked": 1,
        "a copy that blocks": 1,
    }
    assert counts.events == ["copy"]


def test_tensors_of_two_places_are_not_mixed() -> None:
    with gpu.simulating():
        there = torch.ones(3, device="simulated:0")
        with pytest.raises(RuntimeError, match=r"add: all tensors are expected on the GPU"):
            there + torch.ones(3)
        assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number


def test_a_copy_aside_arrives_when_it_is_waited_for() -> None:
    with gpu.simulating():
        module = torch.get_device_module("simulated")
        aside = module.Stream()
        with module.stream(aside):
            sent = torch.ones(3).pin_memory().to("simulated:0", non_blocking=True)
        assert sent.tolist() == [0, 0, 0]
        module.current_stream().wait_stream(aside)
        assert sent.tolist() == [1, 1, 1]
