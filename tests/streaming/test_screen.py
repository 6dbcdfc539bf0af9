"""Screening: what is encoded precisely, and that answers are those of an unscreened run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tpt
from tpt.errors import MethodError
from tpt.evaluate.evaluation import EvalSettings, check_options
from tpt.evaluate.method_pool import Starts
from tpt.evaluate.method_specs import parse_methods
from tpt.methods.registry import make_method
from tpt.streaming.predict_job import build_predict_job
from tpt.streaming.predict_settings import PredictSettings
from tpt.streaming.screen import SCREENED, Screen, find_likely

NAMES = ["cat", "dog", "a house", "cup"]


@pytest.fixture(scope="module")
def screen() -> Screen:
    return Screen(tpt.load_clip("tiny", device="cpu", precision="bf16"))


def pictures(count: int) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (70, 90, 3), dtype=np.uint8) for _ in range(count)]


class Counting(tpt.Clip):
    """How many views were encoded."""

    encoded = 0

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.encoded += len(images)
        return super().encode_images(images)


@pytest.mark.parametrize("name", SCREENED)
def test_screened_answers_are_those_of_all_views(tiny: tpt.Clip, screen: Screen, name: str) -> None:
    clip = Counting(tiny.model, tiny.tokenizer, name="tiny")
    method = make_method(name, tpt.PromptEngine(clip, NAMES))
    images, views = pictures(4), tpt.Views(clip, n=40)
    exact = list(tpt.stream(images, method, views))
    clip.encoded = 0
    screened = list(tpt.stream(images, method, views, screen=screen))
    kept = screened[0].adapt.views_kept
    assert clip.encoded == 4 * (1 + 2 * kept)
    for one, other in zip(exact, screened, strict=True):
        assert one.predictions[0].index == other.predictions[0].index
        assert other.zero_shot.score == pytest.approx(one.zero_shot.score, abs=1e-5)


def test_view_0_and_the_surest_views_are_likely(tiny: tpt.Clip) -> None:
    engine = tpt.PromptEngine(tiny, NAMES)
    features = torch.nn.functional.normalize(torch.randn(3, 40, 128), dim=-1)
    methods = [tpt.TPT(engine), tpt.ZERO(engine)]
    likely = find_likely(features, methods[:1])
    selected = methods[0].adapt_features(features).selected  # (3, 4)
    assert likely.shape == (3, 1 + 2 * 4)
    assert likely[:, 0].tolist() == [0, 0, 0]
    for some, chosen in zip(likely.tolist(), selected.tolist(), strict=True):
        assert set(chosen) <= set(some)
        assert len(set(some)) == len(some)
    assert find_likely(features, methods).shape == (3, 1 + 2 * 12)
    assert find_likely(features[:, :5], methods[1:]).shape == (3, 3)
    assert find_likely(features[:, :1], methods[1:]).tolist() == [[0]] * 3


def test_features_of_all_views_merge_to_the_same(tiny: tpt.Clip, screen: Screen) -> None:
    method = tpt.TPT(tpt.PromptEngine(tiny, NAMES))
    views = tpt.Views(tiny, n=20)(pictures(2))
    encoded = screen.encode(tiny, views, [method])
    merged = screen.merge(screen.low.encode_views(views), tiny.encode_views(views), [method])
    torch.testing.assert_close(encoded, merged, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "mta"}, "--screen is not offered with --method mta.*tpt and ctpt give"),
        ({"precision": "bf16"}, r"--precision bf16 was asked for. Leave one of them out"),
    ],
)
def test_what_screening_was_not_measured_for_is_refused(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(MethodError, match=text):
        build_predict_job(
            PredictSettings(tuple(NAMES), "tiny", device="cpu", screen=True, **settings)
        )


def test_an_evaluation_refuses_the_same() -> None:
    def check(methods: str) -> None:
        check_options(EvalSettings(parse_methods([methods]), Starts({}), "tiny", screen=True))

    check("zero-shot,tpt,ctpt")
    for methods in ("zero-shot,mta", "tpt,vte", "zero-shot"):
        with pytest.raises(MethodError, match=r"--screen (has no meaning|is not offered)"):
            check(methods)


def test_a_screened_run_is_one_in_fp32_and_says_so() -> None:
    job = build_predict_job(PredictSettings(tuple(NAMES), "tiny", device="cpu", screen=True))
    assert job.settings["screen"] is True
    assert job.settings["precision"] == "fp32"
    assert job.screen is not None
    assert job.screen.low.precision == "bf16"


def test_an_evaluation_screens_what_is_outside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from cli.main import main

    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, pixels in enumerate(pictures(2)):
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    words = ["eval", str(tmp_path / "set"), "--model", "tiny", "--views", "20", "--device", "cpu"]
    words += ["--outside", str(tmp_path / "set" / "dog")]
    kept, screened, encode = [], [], Screen.encode

    def count(self: Screen, clip: tpt.Clip, views: torch.Tensor, **rest: Any) -> torch.Tensor:
        screened.append(len(views))
        return encode(self, clip, views, **rest)

    monkeypatch.setattr(Screen, "encode", count)
    for extra in ((), ("--screen",)):
        folder = tmp_path / f"out{len(extra)}"
        done = CliRunner().invoke(main, [*words, "--output", str(folder), *extra])
        assert done.exit_code == 0, done.output
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        kept.append([line["methods"]["tpt"]["kept"] for line in found if "methods" in line])
    assert kept[0] == kept[1]
    assert sum(screened) == 4 + 2
    assert json.loads((tmp_path / "out1/results.json").read_text())["settings"]["screen"] is True
