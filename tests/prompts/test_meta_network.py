"""CoCoOp's meta-network: what it computes, how it is drawn, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from tpt.errors import PromptError
from tpt.prompts.meta_network import NAMES, MetaNet


def draw(feature_width: int = 32, width: int = 8, seed: int = 0) -> MetaNet:
    return MetaNet.draw(feature_width, width, torch.Generator().manual_seed(seed))


def random_features(count: int) -> Tensor:
    return torch.randn((count, 32), generator=torch.Generator().manual_seed(0))


def official(feature_width: int, hidden: int, width: int) -> nn.Sequential:
    """The network as the public program builds it."""
    layers = [
        ("linear1", nn.Linear(feature_width, hidden)),
        ("relu", nn.ReLU(inplace=True)),
        ("linear2", nn.Linear(hidden, width)),
    ]
    return nn.Sequential(OrderedDict(layers))


def message_of(tensors: dict[str, Tensor]) -> str:
    with pytest.raises(PromptError) as caught:
        MetaNet.from_tensors(tensors)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# --- what it computes ---


def test_a_shift_by_hand() -> None:
    net = MetaNet(
        torch.tensor([[1.0, 2.0], [3.0, -1.0]]),
        torch.tensor([0.5, -4.0]),
        torch.tensor([[2.0, 7.0], [-1.0, 7.0], [0.0, 7.0]]),
        torch.tensor([10.0, 20.0, 30.0]),
    )
    # W1 x + b1 is (5.5, -3): the second hidden unit is silent.
    assert net(torch.tensor([[1.0, 2.0]])).tolist() == [[21.0, 14.5, 30.0]]


def test_it_is_the_official_network_by_the_official_names() -> None:
    network = official(32, 5, 8)
    net = MetaNet.from_tensors(network.state_dict())
    features = random_features(7)
    with torch.no_grad():
        assert torch.equal(net(features), network(features))
    assert (net.feature_width, net.width) == (32, 8)
    assert tuple(net.tensors()) == tuple(network.state_dict()) == NAMES


def test_gradients_reach_the_tensors_it_was_made_of() -> None:
    tensors = [tensor.clone().requires_grad_() for tensor in draw().tensors().values()]
    MetaNet(*tensors)(random_features(64)).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.norm() > 0 for tensor in tensors)


# --- a fresh one ---


@pytest.mark.parametrize(("feature_width", "hidden"), [(512, 32), (32, 2), (24, 1), (8, 1)])
def test_the_hidden_layer_is_a_sixteenth_of_the_features(feature_width: int, hidden: int) -> None:
    shapes = [tuple(tensor.shape) for tensor in draw(feature_width, 64).tensors().values()]
    assert shapes == [(hidden, feature_width), (hidden,), (64, hidden), (64,)]


def test_a_fresh_network_is_spread_as_torchs_linear_layers_are() -> None:
    tensors = draw(2048, 512).tensors()
    for name, inputs in zip(NAMES, (2048, 2048, 128, 128), strict=True):
        limit = 1 / math.sqrt(inputs)
        values = tensors[name]
        assert values.abs().max() <= limit
        assert values.min() < -0.9 * limit
        assert values.max() > 0.9 * limit
        # The standard deviation of a uniform distribution within +-a is a / sqrt(3).
        assert values.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.15)


def test_the_seed_decides_a_fresh_network() -> None:
    first, same, other = (draw(seed=seed).tensors() for seed in (0, 0, 1))
    for name in NAMES:
        assert torch.equal(first[name], same[name])
        assert not torch.equal(first[name], other[name])


# --- what is refused ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_is_read_as_plain_float32(dtype: torch.dtype) -> None:
    given = {name: t.to(dtype).requires_grad_() for name, t in draw().tensors().items()}
    for name, tensor in MetaNet.from_tensors(given).tensors().items():
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
        assert torch.equal(tensor, given[name].detach().float())


@pytest.mark.parametrize("lost", [NAMES[:1], NAMES[2:], NAMES])
def test_what_is_missing_is_named(lost: tuple[str, ...]) -> None:
    tensors = {name: t for name, t in draw().tensors().items() if name not in lost}
    message = message_of(tensors)
    assert f"lacks {' and '.join(lost)}; expected {', '.join(NAMES)}" in message


def test_a_tensor_that_is_none_is_missing() -> None:
    assert "lacks linear2.bias;" in message_of({**draw().tensors(), "linear2.bias": [1.0]})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("linear1.weight", (3, 32)),
        ("linear1.weight", (32,)),
        ("linear1.bias", (3,)),
        ("linear1.bias", (2, 1)),
        ("linear1.bias", ()),
        ("linear2.weight", (8, 3)),
        ("linear2.weight", (2, 8)),
        ("linear2.weight", (8, 2, 1)),
        ("linear2.bias", (7,)),
        ("linear2.bias", (8, 1)),
        ("linear2.bias", ()),
    ],
)
def test_shapes_that_do_not_follow_from_one_another_are_refused(
    name: str, shape: tuple[int, ...]
) -> None:
    message = message_of({**draw().tensors(), name: torch.ones(shape)})
    assert f"{shape}" in message
    assert "expected (H, E), (H,), (D, H) and (D,) with H hidden units" in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    tensors = draw().tensors()
    tensors[name].view(-1)[1] = bad
    assert "The meta-network holds numbers that are NaN or infinite" in message_of(tensors)


def test_a_network_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw().bias_1 = torch.zeros(2)  # type: ignore[misc]
