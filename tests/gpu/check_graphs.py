"""CUDA graphs of the text side on a simulated GPU: recorded numbers are the computed ones."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator

import _simulated_gpu as gpu
import open_clip
import pytest
import torch
from conftest import build_seeded_model, make_views
from torch import Tensor

import tpt
from tpt.prompts._graphs import Recorder, Replayed

NAMES = ["a cat", "dog", "house fly"]
PLACE = torch.device("simulated", 0)


@pytest.fixture(scope="module")
def clip() -> Iterator[tpt.Clip]:
    with gpu.simulating():
        model = gpu.move(copy.deepcopy(build_seeded_model()))
        yield tpt.Clip(model, open_clip.get_tokenizer("ViT-B-16"), micro_batch=4096)


@pytest.fixture(scope="module")
def recording(clip: tpt.Clip) -> tpt.Clip:
    return tpt.Clip(clip.model, clip.tokenizer, micro_batch=4096, cuda_graphs=True)


@pytest.fixture
def recorder(clip: tpt.Clip) -> Recorder:
    return Recorder(PLACE)


@pytest.mark.parametrize("name", ["TPT", "CTPT", "RTPT"])
def test_recorded_numbers_are_the_computed_ones(
    clip: tpt.Clip, recording: tpt.Clip, name: str
) -> None:
    plain = getattr(tpt, name)(tpt.PromptEngine(clip, NAMES))
    recorded = getattr(tpt, name)(tpt.PromptEngine(recording, NAMES))
    for seed in range(5):
        views = torch.stack([make_views(2 * seed, 8), make_views(2 * seed + 1, 8)])
        features = clip.encode_views(views)
        expected = plain.adapt_features(features)
        with gpu.counting() as counts:
            found = recorded.adapt_features(features)
        assert torch.equal(found.logits.cpu(), expected.logits.cpu())
        assert found.gradient is not None
        assert expected.gradient is not None
        assert torch.equal(found.gradient.cpu(), expected.gradient.cpu())
        assert counts.kernels["graph"] == [0, 0, 4, 2, 2][seed]
    last = recorded.adapt_features(clip.encode_views(make_views(20, 8).unsqueeze(0)))
    expected = plain.adapt_features(clip.encode_views(make_views(20, 8).unsqueeze(0)))
    assert torch.equal(last.logits.cpu(), expected.logits.cpu())  # a smaller batch


def test_a_tower_whose_prompts_share_nothing_is_refused(clip: tpt.Clip) -> None:
    model = gpu.move(build_seeded_model(no_causal_mask=True))
    with pytest.raises(tpt.ModelError, match=r"prompts share work; this model's do not"):
        tpt.Clip(model, clip.tokenizer, cuda_graphs=True)
    engine = tpt.PromptEngine(clip, NAMES, path="full")
    assert engine._recorder is None


def test_what_is_returned_is_not_written_over(recorder: Recorder) -> None:
    double = Replayed(lambda x: x * 2, recorder)
    found = [double(torch.full((3,), float(n), device=PLACE)) for n in range(6)]
    assert [one.tolist()[0] for one in found] == [0, 2, 4, 6, 8, 10]


def test_only_shapes_that_come_again_are_recorded_and_only_some(recorder: Recorder) -> None:
    double = Replayed(lambda x: x * 2, recorder)
    for size in range(1, 9):
        double(torch.ones(size, device=PLACE))
    assert not double._recorded
    for size in list(range(1, 9)) * 3:
        assert double(torch.ones(size, device=PLACE)).sum().item() == 2 * size
    assert len(double._recorded) == 4


def test_what_cannot_be_recorded_goes_on_without(recorder: Recorder) -> None:
    waits = Replayed(lambda x: x * float(x.sum()), recorder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            waits(torch.ones(3, device=PLACE))
    with pytest.warns(UserWarning, match="CUDA graph .* failed .*not permitted when stream is cap"):
        assert waits(torch.ones(3, device=PLACE)).tolist() == [3, 3, 3]
    assert waits(torch.ones(3, device=PLACE)).tolist() == [3, 3, 3]


def test_numbers_that_differ_are_not_used(recorder: Recorder) -> None:
    calls: list[int] = []

    def count(x: Tensor) -> Tensor:  # what Python does is not recorded
        calls.append(1)
        return x + len(calls)

    wrong = Replayed(count, recorder)
    for _ in range(2):
        wrong(torch.ones(3, device=PLACE))
    with pytest.warns(UserWarning, match="its numbers are off by"):
        assert wrong(torch.ones(3, device=PLACE)).tolist() == [1 + len(calls)] * 3


def test_an_engine_with_recordings_is_pickled_without_them(recording: tpt.Clip) -> None:
    engine = tpt.PromptEngine(recording, NAMES)
    vectors = engine.start.unsqueeze(0)
    for _ in range(4):
        expected = engine.class_features(vectors)
    assert engine._features_of._recorded
    again = copy.copy(engine._features_of)
    again.__dict__.update(engine._features_of.__getstate__())
    assert not again._recorded
    assert pickle.loads(pickle.dumps(Recorder(PLACE))).device == PLACE
    assert torch.equal(again(vectors).cpu(), expected.cpu())


def test_the_jacobian_needs_no_recording_of_the_gradient(recording: tpt.Clip) -> None:
    engine = tpt.PromptEngine(recording, NAMES)
    pull = torch.ones(2, len(NAMES), recording.embedding_width, device=PLACE)
    expected = [engine.pull_back(pull) for _ in range(4)][-1]
    assert engine._pull_back_of._recorded
    engine.build_jacobian()
    assert not engine._pull_back_of._recorded
    torch.testing.assert_close(engine.pull_back(pull).cpu(), expected.cpu(), atol=1e-4, rtol=1e-3)
