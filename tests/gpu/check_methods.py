"""Every method on a simulated GPU: the CPU's numbers, no tensor of another place, one wait."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import _simulated_gpu as gpu
import open_clip
import pytest
import torch
from conftest import build_seeded_model, make_views
from every_method import ALL, METHODS
from launches import PICTURES

import tpt
from tpt.images.decode import load_picture
from tpt.methods import Method
from tpt.methods.registry import make_method
from tpt.streaming.batches import launch_batch
from tpt.streaming.loading import Loaded
from tpt.streaming.records import Record
from tpt.streaming.screen import Screen

NAMES = ["a cat", "dog", "house fly", "spider_web", "tub"]
DECIDING = ("tda", "oga", "stata", "batclip")  # on the host, from picture to picture, as they are
ITEMS = [Loaded(place, None, load_picture(path)) for place, path in enumerate(PICTURES[:3])]


@pytest.fixture(scope="module")
def here() -> tpt.Clip:
    """The seeded model on the CPU, which takes the pictures of a batch together as a GPU does."""
    clip = tpt.Clip(build_seeded_model(), open_clip.get_tokenizer("ViT-B-16"), micro_batch=4096)
    clip.images_a_pass = lambda waiting: waiting  # type: ignore[method-assign]
    return clip


@pytest.fixture(scope="module")
def there(here: tpt.Clip) -> Iterator[tpt.Clip]:
    with gpu.simulating():
        model = gpu.move(copy.deepcopy(here.model))
        yield tpt.Clip(model, here.tokenizer, micro_batch=4096)


def predict(clip: tpt.Clip, name: str, kind: str, **rest: Any) -> list[Record]:
    method = make_method(name, tpt.PromptEngine(clip, NAMES))
    return list(launch_batch(ITEMS, method, tpt.Views(clip, n=12, kind=kind), 3, **rest)())


def assert_same(found: list[Record], expected: list[Record]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.error is None
        assert one.error == other.error
        assert [p.label for p in one.predictions] == [p.label for p in other.predictions]
        for mine, theirs in zip(one.predictions, other.predictions, strict=True):
            assert mine.votes == theirs.votes
            assert mine.score == pytest.approx(theirs.score, abs=2e-4)


@pytest.mark.parametrize("kind", ["crop", "augmix"])
@pytest.mark.parametrize("name", list(ALL))
def test_a_method_says_what_it_says_on_a_cpu(
    here: tpt.Clip, there: tpt.Clip, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    with gpu.counting() as counts:
        found = predict(there, name, kind)
    for home in ("tpt.images.resample", "tpt.images.views"):
        monkeypatch.setattr(f"{home}.works_on_bytes", lambda device: False)
    assert_same(found, predict(here, name, kind))
    fetched = [line for line in counts.waits if "tpt/methods/fetching.py" in line]
    assert len(fetched) == 1


@pytest.mark.parametrize("name", [name for name in ALL if name not in DECIDING])
def test_a_batch_waits_once(there: tpt.Clip, name: str) -> None:
    method = make_method(name, tpt.PromptEngine(there, NAMES))
    views = tpt.Views(there, n=12)
    list(launch_batch(ITEMS, method, views, 3)())  # what is made once a class list
    with gpu.counting() as counts:
        list(launch_batch(ITEMS, method, views, 3)())
    assert counts.waits.total() == 1, counts.waits


def test_screened_views_wait_for_nothing(there: tpt.Clip) -> None:
    with gpu.counting() as counts:
        found = predict(there, "tpt", "crop", screen=Screen(there))
    assert all(record.error is None for record in found)
    assert not any("screen.py" in line for line in counts.waits)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in DECIDING])
def test_features_that_are_given_may_be_on_the_host(
    here: tpt.Clip, there: tpt.Clip, name: str
) -> None:
    views = make_views(3, 8)
    features = here.encode_views(views.unsqueeze(0))[0]
    expected = make_method(name, tpt.PromptEngine(here, NAMES)).adapt_features(features)
    found = make_method(name, tpt.PromptEngine(there, NAMES)).adapt_features(features)
    assert found.logits.device.type == "simulated"
    torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=2e-3, rtol=1e-3)


def test_a_gate_on_the_device(here: tpt.Clip, there: tpt.Clip) -> None:
    def gated(clip: tpt.Clip) -> Method:
        return tpt.Gate(tpt.TPT(tpt.PromptEngine(clip, NAMES)), threshold=0.5)

    images = [item.picture.pixels for item in ITEMS if item.picture]
    expected = list(tpt.stream(images, gated(here), tpt.Views(here, n=12)))
    found = list(tpt.stream(images, gated(there), tpt.Views(there, n=12)))
    assert [r.predictions[0].label for r in found] == [r.predictions[0].label for r in expected]
