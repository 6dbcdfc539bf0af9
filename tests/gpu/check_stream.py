"""A stream on a simulated GPU: one wait a batch, and the next batch is launched before it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import _simulated_gpu as gpu
import numpy as np
import open_clip
import pytest
import torch
from conftest import build_seeded_model
from launches import PICTURES

import tpt
from tpt.model import transfers
from tpt.streaming import batches

NAMES = ["a cat", "dog", "house fly"]
PATHS = [str(path) for path in PICTURES[:7]]


@pytest.fixture(scope="module")
def clip() -> Iterator[tpt.Clip]:
    with gpu.simulating():
        model = gpu.move(copy.deepcopy(build_seeded_model()))
        yield tpt.Clip(model, open_clip.get_tokenizer("ViT-B-16"), micro_batch=4096)


@pytest.fixture
def method(clip: tpt.Clip) -> tpt.TPT:
    made = tpt.TPT(tpt.PromptEngine(clip, NAMES))
    made.engine.start_graph()
    return made


def labels(records: list[Any]) -> list[tuple[str, float]]:
    assert [record.error for record in records] == [None] * len(records)
    return [(r.predictions[0].label, round(r.predictions[0].score, 5)) for r in records]


def test_a_stream_waits_once_a_batch_and_copies_pictures_aside(method: tpt.TPT) -> None:
    views = tpt.Views(method.engine.clip, n=8)
    with gpu.counting() as counts:
        records = list(tpt.stream(PATHS, method, views, batch_size=3))
    labels(records)
    assert counts.waits.total() == 3, counts.waits
    assert counts.events.count("copy aside") == counts.events.count("record_stream") == len(PATHS)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_records_do_not_depend_on_what_is_launched_ahead(
    method: tpt.TPT, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    views = tpt.Views(method.engine.clip, n=8)
    ahead = list(tpt.stream(PATHS, method, views, batch_size=size))
    monkeypatch.setattr(tpt.Clip, "works_ahead", False)
    after = list(tpt.stream(PATHS, method, views, batch_size=size))
    assert [record.path for record in ahead] == PATHS
    assert labels(ahead) == labels(after)


def test_the_next_batch_is_launched_before_this_one_is_waited_for(
    method: tpt.TPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    launch, fetch = batches.launch, batches.fetch_outcome
    monkeypatch.setattr(batches, "launch", lambda *a: order.append("launch") or launch(*a))
    monkeypatch.setattr(batches, "fetch_outcome", lambda *a: order.append("wait") or fetch(*a))
    views = tpt.Views(method.engine.clip, n=8)
    list(tpt.stream(PATHS, method, views, batch_size=3))
    assert order == ["launch", "launch", "wait", "launch", "wait", "wait"]
    order.clear()
    list(tpt.stream(iter(PATHS[:2]), method, views, batch_size=1))  # a camera's may be late
    assert order == ["launch", "wait", "launch", "wait"]


def test_a_picture_that_fails_is_tried_alone_and_the_others_go_on(
    method: tpt.TPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = tpt.Views(method.engine.clip, n=8)
    expected = labels(list(tpt.stream(PATHS, method, views, batch_size=3)))
    draw = tpt.Views._rng
    broken = tpt.images.decode.load_picture(PATHS[1]).digest

    def fail(self: tpt.Views, key: str, purpose: str) -> Any:
        if key == broken:
            raise RuntimeError("no views of this one")
        return draw(self, key, purpose)

    monkeypatch.setattr(tpt.Views, "_rng", fail)
    records = list(tpt.stream(PATHS, method, views, batch_size=3))
    assert records[1].error is not None
    assert "no views of this one" in records[1].error.message
    del records[1], expected[1]
    assert labels(records) == expected


def test_where_no_memory_can_be_locked_copies_wait(
    method: tpt.TPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = tpt.Views(method.engine.clip, n=8)
    expected = labels(list(tpt.stream(PATHS, method, views, batch_size=3)))

    def refuse(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    with gpu.counting() as counts:
        assert labels(list(tpt.stream(PATHS, method, views, batch_size=3))) == expected
    assert counts.waits.total() > 3


def test_views_can_be_copied_and_pickled(clip: tpt.Clip) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    views = tpt.Views(clip, n=3)
    made = views([pixels])
    assert isinstance(pickle.loads(pickle.dumps(views._send)), transfers.Sender)
    assert torch.equal(copy.copy(views)([pixels]).cpu(), made.cpu())


def test_on_a_cpu_nothing_is_copied() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    cpu = torch.device("cpu")
    assert transfers.pin(pixels, cpu) is pixels
    assert transfers.Sender()([pixels], cpu)[0].data_ptr() == pixels.ctypes.data
