"""The training loop: its rates, its steps, its batches, and going on from where it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from torch import Tensor

import tpt
from coop.learners import E2MIM, Batch, CoCoOp, CoOp, KgCoOp, Learner, Loss
from coop.loop import Epoch, LoopSettings, State, TrainError, cut_order, epoch_rng, train
from coop.outputs import Outputs, load_state, save_state

CLASSES = ("cat", "dog", "truck")
TEMPLATE = "a photo of a {}."


class Bowl:
    """Pulls one vector towards the mean of the batch's features, and notes what it was given."""

    def __init__(self, start: Tensor) -> None:
        self.parameters = {"vectors": start.clone().requires_grad_()}
        self.batches: list[Batch] = []

    def loss(self, batch: Batch) -> Loss:
        self.batches.append(batch)
        total = (self.parameters["vectors"] - batch.features.mean(0)).square().sum() / 2
        logits = F.one_hot(torch.zeros_like(batch.labels), 3).float()  # always class 0
        return Loss(total, logits, {"twice": 2 * total})

    def context(self) -> tpt.Context:
        return tpt.Context(self.parameters["vectors"])


class Poisoned(Bowl):
    """A bowl whose n-th loss (from 1) is changed."""

    def __init__(self, start: Tensor, place: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(start)
        self.place, self.change = place, change

    def loss(self, batch: Batch) -> Loss:
        loss = super().loss(batch)
        if len(self.batches) == self.place:
            return Loss(self.change(loss.total), loss.logits, loss.terms)
        return loss


def start_vectors() -> Tensor:
    return torch.tensor([[1.0, -2.0, 3.0]])


def settings(epochs: int, lr: float = 0.02, batch_size: int = 4, seed: int = 1) -> LoopSettings:
    return LoopSettings(epochs, lr, batch_size, seed)


def draw_pool(count: int, width: int = 3, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn((count, width), generator=rng), dim=-1)


def train_bowl(bowl: Bowl, count: int, wanted: LoopSettings) -> Iterator[Epoch]:
    """Train on pictures whose labels are their numbers."""
    pool = draw_pool(count)
    return train(bowl, lambda epoch: pool, torch.arange(count), wanted)


# --- rates and steps ---


def test_fifty_epochs_at_their_published_rates() -> None:
    epochs = list(train_bowl(Bowl(start_vectors()), 4, settings(50, lr=2e-3)))
    want = [1e-5] + [2e-3 * (1 + math.cos(math.pi * (e - 1) / 50)) / 2 for e in range(1, 50)]
    assert [epoch.number for epoch in epochs] == list(range(50))
    assert [epoch.lr for epoch in epochs] == pytest.approx(want, rel=1e-12)
    assert epochs[-1].lr == pytest.approx(7.885e-6, abs=5e-10)  # as the public log prints it


def test_every_step_is_sgd_with_momentum_and_weight_decay_at_the_epochs_rate() -> None:
    """buffer = 0.9 buffer + (gradient + 5e-4 p); p = p - lr buffer, no Nesterov, no dampening."""
    start, pool = start_vectors().double(), draw_pool(6).double()
    bowl = Bowl(start)
    states = [e.state for e in train(bowl, lambda _: pool, torch.arange(6), settings(8, 0.3, 3))]

    vectors, buffer = start.clone(), torch.zeros_like(start)
    for epoch in range(8):
        rate = 1e-5 if epoch == 0 else 0.3 * (1 + math.cos(math.pi * (epoch - 1) / 8)) / 2
        for batch in bowl.batches[2 * epoch : 2 * epoch + 2]:
            gradient = vectors - batch.features.mean(0)
            buffer = 0.9 * buffer + (gradient + 5e-4 * vectors)
            vectors = vectors - rate * buffer
        exact = {"atol": 1e-12, "rtol": 0}
        torch.testing.assert_close(states[epoch].parameters["vectors"], vectors, **exact)
        torch.testing.assert_close(states[epoch].momentum["vectors"], buffer, **exact)
    assert (vectors - start).norm() > 0.5


def test_an_epoch_tells_the_means_over_its_batches() -> None:
    bowl = Bowl(start_vectors())
    pool, labels = draw_pool(8), torch.tensor([0, 0, 0, 1, 1, 2, 0, 1])
    (epoch,) = train(bowl, lambda _: pool, labels, settings(1, batch_size=2))
    again = Bowl(start_vectors())
    # The warm-up rate moves the vector too little for the losses to notice.
    losses = [again.loss(batch).total.item() for batch in bowl.batches]
    assert epoch.loss == pytest.approx(sum(losses) / 4, rel=1e-4)
    assert epoch.terms == pytest.approx({"twice": 2 * epoch.loss})
    assert epoch.accuracy == 0.5  # four of eight pictures are of class 0
    assert epoch.seconds > 0


# --- batches ---


@pytest.mark.parametrize(
    ("count", "size", "want"),
    [
        (64, 32, [32, 32]),
        (40, 32, [32]),
        (63, 32, [32]),
        (32, 32, [32]),
        (31, 32, [31]),
        (10, 32, [10]),
        (1, 32, [1]),
        (5, 1, [1, 1, 1, 1, 1]),
        (5, 2, [2, 2]),
    ],
)
def test_a_short_last_batch_is_dropped_where_there_is_a_full_one(
    count: int, size: int, want: list[int]
) -> None:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    parts = cut_order(order, size)
    assert [len(part) for part in parts] == want
    assert torch.equal(torch.cat(parts), order[: sum(want)])
    bowl = Bowl(start_vectors())
    list(train_bowl(bowl, count, settings(1, batch_size=size)))
    assert [len(batch.labels) for batch in bowl.batches] == want


def test_an_epoch_sees_every_picture_once_in_an_order_of_its_own() -> None:
    bowl = Bowl(start_vectors())
    list(train_bowl(bowl, 12, settings(3, batch_size=4)))
    orders = [
        torch.cat([batch.labels for batch in bowl.batches[3 * e : 3 * e + 3]]).tolist()
        for e in range(3)
    ]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_batch_carries_its_own_pictures_features_and_the_whole_epochs() -> None:
    bowl, pool = Bowl(start_vectors()), draw_pool(10)
    list(train_bowl(bowl, 10, settings(2, batch_size=3)))
    for batch in bowl.batches:
        assert torch.equal(batch.features, pool[batch.labels])
        assert torch.equal(batch.pool, pool)
        assert batch.pool_labels.tolist() == list(range(10))


def test_every_epoch_reads_its_own_views() -> None:
    bowl = Bowl(start_vectors())
    pools = [draw_pool(4, seed=number) for number in range(3)]
    list(train(bowl, pools.__getitem__, torch.arange(4), settings(3)))
    assert [torch.equal(b.pool, p) for b, p in zip(bowl.batches, pools, strict=True)] == [True] * 3


def test_the_seed_decides_the_order() -> None:
    orders = []
    for seed in (1, 1, 2):
        bowl = Bowl(start_vectors())
        list(train_bowl(bowl, 12, settings(1, batch_size=12, seed=seed)))
        orders.append(bowl.batches[0].labels.tolist())
    assert orders[0] == orders[1] != orders[2]


def test_an_epochs_chance_follows_from_seed_and_number_alone() -> None:
    draws = {
        (seed, number): tuple(torch.rand(4, generator=epoch_rng(seed, number)).tolist())
        for seed in (0, 1, 11)
        for number in (0, 1, 11)
    }
    assert len(set(draws.values())) == 9
    torch.manual_seed(3)
    assert tuple(torch.rand(4, generator=epoch_rng(1, 11)).tolist()) == draws[1, 11]


# --- going on ---


def make_coop(clip: tpt.Clip) -> Learner:
    return CoOp(make_engine(clip))


def make_cocoop(clip: tpt.Clip) -> Learner:
    return CoCoOp(make_engine(clip), seed=4)


def make_kgcoop(clip: tpt.Clip) -> Learner:
    return KgCoOp(make_engine(clip), [TEMPLATE])


def make_e2mim(clip: tpt.Clip) -> Learner:
    return E2MIM(make_engine(clip), [TEMPLATE])


def make_engine(clip: tpt.Clip) -> tpt.PromptEngine:
    vectors = 0.1 * torch.randn((2, clip.width), generator=torch.Generator().manual_seed(1))
    return tpt.PromptEngine(clip, CLASSES, tpt.Context(vectors))


def assert_same_state(got: State, want: State) -> None:
    assert got.epoch == want.epoch
    for mine, other in ((got.parameters, want.parameters), (got.momentum, want.momentum)):
        assert set(mine) == set(other)
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def store(state: State, folder: Path) -> State:
    """The state as a killed run finds it on the disk."""
    outputs = Outputs(folder / "prompt.safetensors", many=False)
    job = SimpleNamespace(describe=lambda: {"data": "pets"})
    save_state(outputs, job, 16, 1, state)  # type: ignore[arg-type]
    found = load_state(outputs, job, 16, 1)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("make", [make_coop, make_cocoop, make_kgcoop, make_e2mim])
def test_going_on_from_a_state_ends_with_the_unbroken_runs_bits(
    golden: SimpleNamespace, make: Callable[[tpt.Clip], Learner], stop: int, tmp_path: Path
) -> None:
    labels = torch.arange(7) % len(CLASSES)
    pools = [draw_pool(7, golden.clip.embedding_width, seed=number) for number in range(5)]
    wanted = settings(5, lr=2e-3, batch_size=3)
    whole = list(train(make(golden.clip), pools.__getitem__, labels, wanted))
    kept = store(whole[stop - 1].state, tmp_path)
    assert_same_state(kept, whole[stop - 1].state)

    rest = list(train(make(golden.clip), pools.__getitem__, labels, wanted, kept))
    assert [epoch.number for epoch in rest] == list(range(stop, 5))
    for again, before in zip(rest, whole[stop:], strict=True):
        assert_same_state(again.state, before.state)
        assert (again.lr, again.loss, again.terms, again.accuracy) == (
            before.lr,
            before.loss,
            before.terms,
            before.accuracy,
        )
    first, last = whole[0].state, whole[-1].state
    assert not any(torch.equal(first.parameters[n], last.parameters[n]) for n in last.parameters)


def test_a_state_is_a_copy_that_later_epochs_leave_alone() -> None:
    epochs = train_bowl(Bowl(start_vectors()), 4, settings(3))
    first = next(epochs).state
    vectors, momentum = first.parameters["vectors"].clone(), first.momentum["vectors"].clone()
    list(epochs)
    assert torch.equal(first.parameters["vectors"], vectors)
    assert torch.equal(first.momentum["vectors"], momentum)


def test_training_leaves_the_state_it_went_on_from_alone() -> None:
    first = next(train_bowl(Bowl(start_vectors()), 4, settings(3))).state
    vectors, momentum = first.parameters["vectors"].clone(), first.momentum["vectors"].clone()
    pool = draw_pool(4)
    list(train(Bowl(start_vectors()), lambda _: pool, torch.arange(4), settings(3), first))
    assert torch.equal(first.parameters["vectors"], vectors)
    assert torch.equal(first.momentum["vectors"], momentum)


def test_a_state_of_the_last_epoch_leaves_nothing_to_do() -> None:
    whole = list(train_bowl(Bowl(start_vectors()), 4, settings(2)))
    bowl = Bowl(torch.zeros(1, 3))
    pool = draw_pool(4)
    last = whole[-1].state
    assert list(train(bowl, lambda _: pool, torch.arange(4), settings(2), last)) == []
    assert torch.equal(bowl.parameters["vectors"], whole[-1].state.parameters["vectors"])


# --- divergence ---


def diverge(epochs: Iterator[Epoch]) -> tuple[list[Epoch], str]:
    """The epochs that came before a divergence, and what it says."""
    before: list[Epoch] = []
    return before, refusal(TrainError, before.extend, epochs)


@pytest.mark.parametrize(
    ("change", "word"), [(lambda t: t * math.nan, "nan"), (lambda t: t * math.inf, "inf")]
)
def test_a_loss_that_is_no_number_stops_at_the_last_good_epoch(
    change: Callable[[Tensor], Tensor], word: str
) -> None:
    """Two batches an epoch: the fifth loss is the third epoch's first."""
    bowl = Poisoned(start_vectors(), 5, change)
    epochs, message = diverge(train_bowl(bowl, 8, settings(6, lr=0.02)))
    assert [epoch.number for epoch in epochs] == [0, 1]
    assert f"The loss became {word} in epoch 3 of 6 (learning rate 0.0" in message
    assert "Try a smaller --lr than 0.02, or --precision fp32." in message
    assert torch.equal(bowl.parameters["vectors"], epochs[-1].state.parameters["vectors"])
    assert bool(bowl.context().vectors.isfinite().all())


def test_a_first_epoch_that_diverges_leaves_the_start() -> None:
    bowl = Poisoned(start_vectors(), 1, lambda total: total * math.nan)
    epochs, message = diverge(train_bowl(bowl, 4, settings(6)))
    assert epochs == []
    assert "in epoch 1 of 6 (learning rate 1e-05)" in message
    assert torch.equal(bowl.parameters["vectors"], start_vectors())


def test_an_epoch_whose_last_step_breaks_the_vectors_does_not_count() -> None:
    """The loss is still a number; the vectors after the step are none."""
    bowl = Bowl(start_vectors())
    epochs, message = diverge(train_bowl(bowl, 4, settings(6, lr=3e38)))
    assert [epoch.number for epoch in epochs] == [0]
    assert "The vectors became NaN or infinite in epoch 2 of 6 (learning rate 3e+38)" in message
    assert "Try a smaller --lr than 3e+38" in message
    assert torch.equal(bowl.parameters["vectors"], epochs[-1].state.parameters["vectors"])


def test_a_real_prompt_at_a_huge_rate_goes_back_to_its_last_good_vectors(
    golden: SimpleNamespace,
) -> None:
    learner, pool = make_coop(golden.clip), draw_pool(6, golden.clip.embedding_width)
    epochs = train(learner, lambda _: pool, torch.arange(6) % 3, settings(4, lr=1e38))
    good, message = diverge(epochs)
    assert "Try a smaller --lr than 1e+38" in message
    last = good[-1].state.parameters["vectors"]
    assert torch.equal(learner.context().vectors, last)


def test_training_can_go_on_at_a_smaller_rate_from_the_last_good_epoch() -> None:
    poisoned = Poisoned(start_vectors(), 3, lambda total: total * math.nan)
    before, _ = diverge(train_bowl(poisoned, 4, settings(6, lr=9)))
    bowl, pool = Bowl(start_vectors()), draw_pool(4)
    state = before[-1].state
    rest = list(train(bowl, lambda _: pool, torch.arange(4), settings(6, lr=0.01), state))
    assert [epoch.number for epoch in rest] == [2, 3, 4, 5]
    assert bool(bowl.context().vectors.isfinite().all())
