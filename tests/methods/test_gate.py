"""The gate: which images it lets through, what a skipped one looks like, what it saves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from every_method import METHODS
from torch import Tensor

import tpt
from tpt.errors import MethodError
from tpt.methods.registry import make_method

NAMES = ["cat", "dog", "golden retriever", "ice cream"]


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, NAMES)


@pytest.fixture(scope="module")
def features() -> Tensor:
    """Views (12, 16, E) of images of which zero-shot is more sure or less."""
    rng = torch.Generator().manual_seed(1)
    own = torch.randn(12, 1, 32, generator=rng)
    return F.normalize(own + 0.5 * torch.randn(12, 16, 32, generator=rng), dim=-1)


def score(engine: tpt.PromptEngine, image: Tensor, views: int) -> float:
    p = (100 * image @ engine.class_features().T).softmax(-1)
    named = p[0].argmax()
    return sum(float(p[i, named] * (image[0] @ image[i])) for i in range(views)) / views


def middle(engine: tpt.PromptEngine, features: Tensor, views: int = 1) -> float:
    """A threshold that half of the images reach."""
    scores = sorted(score(engine, image, views) for image in features)
    return (scores[5] + scores[6]) / 2


def as_dict(out: tpt.Adapted) -> dict[str, Tensor]:
    return {k: v for k, v in vars(out).items() if v is not None and k != "adapted"}


def assert_same(got: tpt.Adapted, want: tpt.Adapted) -> None:
    assert as_dict(got).keys() == as_dict(want).keys()
    for key, value in as_dict(want).items():
        assert torch.equal(as_dict(got)[key], value), key


@pytest.mark.parametrize("views", [1, 3])
def test_images_below_the_threshold_are_adapted_and_the_others_left(
    engine: tpt.PromptEngine, features: Tensor, views: int
) -> None:
    threshold = middle(engine, features, views)
    gate = tpt.Gate(tpt.TPT(engine, keep=0.25), threshold, views)
    out = gate.adapt_features(features)
    needs = [score(engine, image, views) < threshold for image in features]
    assert out.adapted is not None
    assert out.adapted.tolist() == needs
    assert sum(needs) == 6
    for index, image in enumerate(features):
        one = out.image(index)
        if needs[index]:
            assert_same(one, tpt.TPT(engine, keep=0.25).adapt_features(image))
        else:
            plain = tpt.ZeroShot(engine).adapt_features(image)
            torch.testing.assert_close(one.logits, plain.logits, atol=1e-4, rtol=0)
            assert one.initial_logits is not None
            assert one.loss is one.final_loss is one.vectors is one.gradient is None
            assert one.selected.tolist() == [0]
            assert len(one.view_entropy) == views


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_gated(engine: tpt.PromptEngine, features: Tensor, name: str) -> None:
    threshold = middle(engine, features)
    gate, alone = tpt.Gate(make_method(name, engine), threshold), make_method(name, engine)
    for key in ("reads_views", "keeps_state", "gives_probabilities"):
        assert getattr(gate, key) == getattr(alone, key)
    out = gate.adapt_features(features)
    chosen = alone.adapt_features(features[out.adapted])
    places = out.adapted.nonzero().flatten().tolist()
    for place, index in enumerate(places):
        assert_same(out.image(index), chosen.image(place))
    assert (gate.seen, gate.skipped, len(places)) == (12, 6, 6)


@pytest.mark.parametrize("views", [1, 3])
def test_what_shares_a_batch_changes_no_bit(
    engine: tpt.PromptEngine, features: Tensor, views: int
) -> None:
    gate = tpt.Gate(tpt.TPS(engine), middle(engine, features, views), views)
    together = gate.adapt_features(features)
    for index, image in enumerate(features):
        alone = gate.adapt_features(image)
        assert_same(together.image(index), alone)
        assert torch.equal(together.image(index).adapted, alone.adapted)


@pytest.mark.parametrize(("threshold", "skipped"), [(1e-6, 12), (1.0, 0)])
def test_all_may_be_skipped_or_none(
    engine: tpt.PromptEngine, features: Tensor, threshold: float, skipped: int
) -> None:
    gate = tpt.Gate(tpt.TPT(engine), threshold)
    out = gate.adapt_features(features)
    assert gate.skipped == skipped
    assert gate.share_skipped == skipped / 12
    plain = tpt.ZeroShot(engine).adapt_features(features)
    assert (out.loss is None) is bool(skipped)
    if skipped:
        torch.testing.assert_close(out.logits, plain.logits, atol=1e-4, rtol=0)
    else:
        assert_same(out, tpt.TPT(engine).adapt_features(features))


def test_it_counts_until_it_is_reset(engine: tpt.PromptEngine, features: Tensor) -> None:
    gate = tpt.Gate(tpt.TDA(engine), middle(engine, features))
    assert gate.share_skipped == 0
    for image in features:
        gate.adapt_features(image)
    gate.start_stream()
    gate.adapt_features(features)
    assert (gate.seen, gate.skipped, gate.share_skipped) == (24, 12, 0.5)
    gate.reset()
    assert (gate.seen, gate.skipped) == (0, 0)


def test_a_skipped_image_leaves_no_trace_in_a_methods_state(
    engine: tpt.PromptEngine, features: Tensor
) -> None:
    inner = tpt.TDA(engine)
    gate = tpt.Gate(inner, threshold=1e-6)
    gate.adapt_features(features)
    assert sum(inner.cached.values()) == 0
    inner.adapt_features(features)
    gate.reset()
    assert sum(inner.cached.values()) == 0


def test_a_skipped_image_under_a_method_that_votes_has_view_0s_vote(
    engine: tpt.PromptEngine, features: Tensor
) -> None:
    out = tpt.Gate(tpt.ZERO(engine), middle(engine, features)).adapt_features(features)
    for index in range(12):
        one = out.image(index)
        assert one.votes is not None
        if one.adapted:
            assert int(one.votes.sum()) == 4
        else:
            assert one.votes.tolist() == F.one_hot(one.logits.argmax(), 4).tolist()


def test_templates_of_the_method_make_the_decision(
    engine: tpt.PromptEngine, features: Tensor
) -> None:
    templates = ["a sketch of a {}."]
    out = tpt.Gate(tpt.VTE(engine, templates=templates), 1e-6).adapt_features(features)
    plain = tpt.ZeroShot(engine, templates).adapt_features(features)
    torch.testing.assert_close(out.logits, plain.logits, atol=1e-4, rtol=0)


def test_a_gate_in_a_gate_skips_what_either_skips(
    engine: tpt.PromptEngine, features: Tensor
) -> None:
    inner = tpt.Gate(tpt.TPT(engine), middle(engine, features))
    outer = tpt.Gate(inner, threshold=1.0)
    out = outer.adapt_features(features)
    assert out.adapted.sum() == 6
    assert (inner.skipped, outer.skipped) == (6, 0)


def test_the_decision_can_be_had_alone(engine: tpt.PromptEngine, features: Tensor) -> None:
    threshold = middle(engine, features)
    gate = tpt.Gate(tpt.TPT(engine), threshold)
    left, needs = gate.leave(features[:, :1])
    assert needs.tolist() == [score(engine, image, 1) < threshold for image in features]
    assert not left.adapted.any()
    plain = tpt.ZeroShot(engine).adapt_features(features)
    torch.testing.assert_close(left.logits, plain.logits, atol=1e-4, rtol=0)
    assert (gate.seen, gate.skipped) == (12, 6)


# --- views ---


def encoded(clip: tpt.Clip, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each pass of the image tower takes, as they come."""
    seen: list[int] = []
    encode = clip.encode_images

    def count(images: Tensor) -> Tensor:
        seen.append(len(images))
        return encode(images)

    monkeypatch.setattr(clip, "encode_images", count)
    return seen


@pytest.mark.parametrize("cheap", [1, 3])
def test_only_images_that_need_it_have_their_other_views_encoded(
    engine: tpt.PromptEngine,
    golden: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    cheap: int,
) -> None:
    views = torch.stack([golden.views(seed, 8) for seed in (31, 32, 33, 34)])
    known = golden.clip.encode_views(views)
    scores = sorted(score(engine, image, cheap) for image in known)
    gate = tpt.Gate(tpt.TPT(engine), (scores[0] + scores[1]) / 2, cheap)
    seen = encoded(golden.clip, monkeypatch)
    out = gate.adapt(views)
    assert sum(seen) == 4 * cheap + 8 - cheap
    assert gate.skipped == 3
    want = gate.adapt_features(known)
    assert torch.equal(out.adapted, want.adapted)
    torch.testing.assert_close(out.logits, want.logits, atol=5e-2, rtol=0)
    alone = gate.adapt(views[0])
    assert torch.equal(alone.logits, out.logits[0])


def test_a_method_that_reads_one_view_has_one_encoded(
    engine: tpt.PromptEngine, golden: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = encoded(golden.clip, monkeypatch)
    out = tpt.Gate(tpt.TDA(engine), threshold=1.0).adapt(golden.views(1, 6))
    assert seen == [1]
    assert out.logits.shape == (4,)


def test_fewer_views_than_it_looks_at_are_all_looked_at(
    engine: tpt.PromptEngine, golden: SimpleNamespace
) -> None:
    gate = tpt.Gate(tpt.VTE(engine), threshold=1.0, views=5)
    assert gate.adapt(golden.views(1, 2)).view_entropy.shape == (2,)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 16, 32), (0, 3, 32, 32)])
def test_views_of_another_shape_are_refused(
    engine: tpt.PromptEngine, shape: tuple[int, ...]
) -> None:
    with pytest.raises(MethodError) as caught:
        tpt.Gate(tpt.TPT(engine)).adapt(torch.zeros(shape))
    assert f"Views have shape {shape}; expected" in str(caught.value)


def test_features_of_another_width_are_refused(engine: tpt.PromptEngine) -> None:
    with pytest.raises(MethodError, match=r"expected \(N, 32\), or \(B, N, 32\)"):
        tpt.Gate(tpt.TPT(engine)).adapt_features(torch.ones(4, 31))


def test_a_stream_has_records_of_both_kinds(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, ["cat", "dog", "old_ship"])
    rng = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, 40, 48), generator=rng).byte() for _ in range(6)]
    confidences = [r.zero_shot.score for r in tpt.stream(pixels, tpt.ZeroShot(engine))]
    gate = tpt.Gate(tpt.TPT(engine), threshold=(min(confidences) + max(confidences)) / 2)
    records = list(tpt.stream(pixels, gate, tpt.Views(tiny, n=4), batch_size=3))
    assert [record.error for record in records] == [None] * 6
    assert 0 < gate.skipped < gate.seen == 6
    for record, confidence in zip(records, confidences, strict=True):
        as_zero_shot = record.predictions[0].score == record.zero_shot.score
        assert as_zero_shot is (confidence >= gate.settings.threshold)


# --- settings ---


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan"), "0.9"])
def test_a_threshold_outside_its_range_is_refused(engine: tpt.PromptEngine, threshold: Any) -> None:
    with pytest.raises(MethodError, match=r"left as it is, in \(0, 1\]") as caught:
        tpt.Gate(tpt.TPT(engine), threshold)
    assert f"got {threshold}." in str(caught.value)


@pytest.mark.parametrize("views", [0, 1.5])
def test_a_gate_looks_at_one_view_at_least(engine: tpt.PromptEngine, views: Any) -> None:
    with pytest.raises(
        MethodError, match="how many views the gate looks at, a whole number from 1"
    ):
        tpt.Gate(tpt.TPT(engine), views=views)


def test_several_views_of_a_method_that_reads_one_are_refused(engine: tpt.PromptEngine) -> None:
    with pytest.raises(MethodError, match="look at 3 views, but TDA reads the plain one alone"):
        tpt.Gate(tpt.TDA(engine), views=3)


def test_the_decision_starts_where_the_method_does(
    engine: tpt.PromptEngine, features: Tensor
) -> None:
    class Flipped(tpt.VTE):
        def start_classes(self, plain: Tensor) -> Tensor:
            return super().start_classes(plain).flip(0)

    plain, flipped = (tpt.Gate(m(engine)).leave(features)[0].logits for m in (tpt.VTE, Flipped))
    torch.testing.assert_close(flipped, plain.flip(1))


def test_a_stream_encodes_one_view_once_for_gate_and_method(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tpt.TDA(tpt.PromptEngine(tiny, NAMES))
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    (want,) = tpt.stream([picture], method)
    seen = encoded(tiny, monkeypatch)
    gates = tpt.Gate(tpt.Gate(method, threshold=1.0), threshold=1.0)
    (got,) = tpt.stream([picture], gates)
    assert seen == [1]
    assert got.predictions == want.predictions
