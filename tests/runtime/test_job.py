"""A job is checked before it starts, and its settings say all that decides the records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tpt
from tpt.prompts.context import Blend
from tpt.prompts.meta import MetaNet
from tpt.runtime import job
from tpt.runtime.job import Job, JobSettings, build_job, check_method_options

CLASSES = ("cat", "dog")
WANTED = JobSettings(classes=CLASSES, model="tiny", device="cpu")


@pytest.fixture
def asked(tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `load_clip` was asked for; it always gives the embedded model."""
    calls: list[dict[str, Any]] = []

    def load(name: str, pretrained: str | None, **options: Any) -> tpt.Clip:
        calls.append({"name": name, "pretrained": pretrained, **options})
        return tiny

    monkeypatch.setattr(job, "load_clip", load)
    return calls


@pytest.fixture
def build(asked: list[dict[str, Any]]) -> Callable[..., Job]:
    return lambda **changes: build_job(replace(WANTED, **changes))


@pytest.fixture
def prompt_file(tiny: tpt.Clip, tmp_path: Path) -> str:
    """A prompt trained for the embedded model and three classes."""
    context = tpt.Context.from_words(tiny, "a sketch of a").described(
        classes=("red fox", "owl", "elk")
    )
    path = tmp_path / "prompt.safetensors"
    context.save(path)
    return str(path)


def test_unsaid_settings_are_the_published_ones(build: Callable[..., Job]) -> None:
    made = build()
    assert isinstance(made.method, tpt.TPT)
    assert (made.views.n, made.views.kind, made.views.seed) == (64, "crop", 0)
    facts = {"keep": 0.1, "steps": 1, "lr": 5e-3, "reset": "image", "views_kept": 6}
    assert facts.items() <= made.settings.items()
    assert made.settings["context"]["words"] == "a photo of a"


def test_what_was_said_arrives_where_it_belongs(
    build: Callable[..., Job], asked: list[dict[str, Any]]
) -> None:
    said = {"keep": 0.5, "steps": 2, "lr": 0.1, "reset": "stream"}
    made = build(**said, views=8, augment="augmix", seed=5, precision="bf16", device="cuda:1")
    assert vars(made.method.settings) == said  # type: ignore[attr-defined]
    assert (made.views.n, made.views.kind, made.views.seed) == (8, "augmix", 5)
    assert asked == [
        {
            **{"name": "tiny", "pretrained": None, "device": "cuda:1"},
            **{"precision": "bf16", "seed": 5},
        }
    ]
    assert {**said, "views": 8, "augment": "augmix", "views_kept": 4}.items() <= (
        made.settings.items()
    )


def test_settings_are_plain_data_that_survive_json(build: Callable[..., Job]) -> None:
    settings = build().settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings.keys() == {
        *("model", "pretrained", "precision", "method", "keep", "steps", "lr", "reset"),
        *("views", "augment", "views_kept", "seed", "context", "templates", "classes"),
    }


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"keep": 0.5}, {"keep", "views_kept"}),
        ({"views": 32}, {"views", "views_kept"}),
        ({"steps": 2}, {"steps"}),
        ({"lr": 0.01}, {"lr"}),
        ({"reset": "stream"}, {"reset"}),
        ({"augment": "augmix"}, {"augment"}),
        ({"seed": 1}, {"seed"}),
        ({"precision": "bf16"}, {"precision"}),
        ({"classes": ("cat", "cow")}, {"classes"}),
        ({"templates": ("a sketch of a {}",)}, {"context", "templates"}),
    ],
)
def test_whatever_changes_the_records_changes_the_settings(
    build: Callable[..., Job], change: dict[str, Any], names: set[str]
) -> None:
    before, after = build().settings, build(**change).settings
    assert {key for key in before if before[key] != after[key]} == names


def test_zero_shot_has_no_settings_of_tuning(build: Callable[..., Job]) -> None:
    made = build(method="zero_shot", templates=("a {}", "the {}"))
    assert isinstance(made.method, tpt.ZeroShot)
    assert made.method.templates == ("a {}", "the {}")
    assert made.settings.keys() == {
        *("model", "pretrained", "precision", "method", "seed", "context", "templates", "classes"),
    }


def test_the_environment_names_versions_and_device(build: Callable[..., Job]) -> None:
    environment = build().environment
    assert environment["tpt_runtime"] == tpt.__version__
    assert environment["torch"] == torch.__version__
    assert environment["device"].startswith("cpu (")


# --- prompt files ---


def test_a_prompt_file_brings_its_context_classes_and_model(
    build: Callable[..., Job], asked: list[dict[str, Any]], prompt_file: str
) -> None:
    made = build(init=prompt_file, classes=None, model=None)
    assert made.engine.classes == ("red fox", "owl", "elk")
    assert asked[0]["name"] == "tiny"
    assert made.settings["context"]["words"] == "a sketch of a"
    assert made.environment["init"] == prompt_file


def test_classes_that_are_said_win_over_those_of_the_prompt_file(
    build: Callable[..., Job], prompt_file: str
) -> None:
    assert build(init=prompt_file).engine.classes == CLASSES


def test_other_vectors_under_the_same_file_name_are_other_settings(
    build: Callable[..., Job], prompt_file: str
) -> None:
    before = build(init=prompt_file).settings["context"]
    context = tpt.Context.load(prompt_file)
    replace(context, vectors=context.vectors + 1e-3).save(prompt_file)
    after = build(init=prompt_file).settings["context"]
    assert {key for key in before if before[key] != after[key]} == {"sha256"}


def test_a_prompt_file_that_does_not_name_its_model_asks_for_it(
    build: Callable[..., Job], asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    tpt.Context(torch.zeros(2, 128)).save(tmp_path / "anonymous.pt")
    with pytest.raises(tpt.PromptError, match="does not say which model"):
        build(init=str(tmp_path / "anonymous.pt"), model=None)
    assert asked == []


def test_a_prompt_without_classes_says_so(build: Callable[..., Job], tmp_path: Path) -> None:
    tpt.Context(torch.zeros(2, 128)).save(tmp_path / "plain.pt")
    with pytest.raises(tpt.MethodError, match="the prompt file holds none"):
        build(init=str(tmp_path / "plain.pt"), classes=None)


# --- prompt files with a meta-network, or with a blend ---


@pytest.fixture
def cocoop_file(tiny: tpt.Clip, tmp_path: Path) -> str:
    """A CoCoOp prompt of the embedded model's widths."""
    meta = MetaNet.draw(tiny.embedding_width, tiny.width, torch.Generator().manual_seed(0))
    words = tpt.Context.from_words(tiny, "a sketch of a")
    replace(words, meta=meta).described(classes=("red fox", "owl")).save(
        tmp_path / "cocoop.safetensors"
    )
    return str(tmp_path / "cocoop.safetensors")


@pytest.mark.parametrize("method", ["tpt", "zero_shot"])
def test_a_cocoop_prompt_makes_a_job_that_predicts(
    build: Callable[..., Job], cocoop_file: str, method: str
) -> None:
    made = build(init=cocoop_file, classes=None, model=None, method=method)
    assert made.engine.classes == ("red fox", "owl")
    images = torch.randn(
        2, 4, 3, *made.clip.preprocess.size, generator=torch.Generator().manual_seed(0)
    )
    features = made.clip.encode_images(images[:, 0])
    classes = made.engine.class_features(made.engine.start_for(features))  # (B, K, E)
    expected = made.engine.logits(features.unsqueeze(1), classes).squeeze(1)
    out = made.method.adapt(images)
    torch.testing.assert_close(out.initial_logits, expected, atol=2e-3, rtol=0)


def test_an_official_cocoop_checkpoint_makes_a_job_for_a_model_that_is_named(
    build: Callable[..., Job], cocoop_file: str, tmp_path: Path
) -> None:
    context = tpt.Context.load(cocoop_file)
    assert context.meta is not None
    state = {f"meta_net.{name}": t.half() for name, t in context.meta.tensors().items()}
    path = tmp_path / "model.pth.tar-10"
    torch.save({"state_dict": {"ctx": context.vectors.half(), **state}, "epoch": 10}, path)
    assert build(init=str(path)).engine.conditional
    with pytest.raises(tpt.PromptError, match="does not say which model"):
        build(init=str(path), model=None)


def test_the_settings_say_that_a_context_is_conditional(
    build: Callable[..., Job], cocoop_file: str, prompt_file: str
) -> None:
    before, after = (build(init=file).settings["context"] for file in (prompt_file, cocoop_file))
    assert after == {**before, "conditional": True, "sha256": after["sha256"]}
    assert before["sha256"] != after["sha256"]
    assert "conditional" not in before


def test_another_meta_network_is_other_settings(
    build: Callable[..., Job], cocoop_file: str
) -> None:
    before = build(init=cocoop_file).settings["context"]
    context = tpt.Context.load(cocoop_file)
    assert context.meta is not None
    moved = replace(context.meta, bias_2=context.meta.bias_2 + 1e-3)
    replace(context, meta=moved).save(cocoop_file)
    after = build(init=cocoop_file).settings["context"]
    assert {key for key in before if before[key] != after[key]} == {"sha256"}


@pytest.mark.parametrize("reset", ["stream", "never"])
def test_a_cocoop_prompt_cannot_be_carried_on(
    build: Callable[..., Job], cocoop_file: str, reset: str
) -> None:
    with pytest.raises(tpt.MethodError, match="made afresh from each image"):
        build(init=cocoop_file, reset=reset)


def test_a_cocoop_prompt_for_other_image_features_is_refused(
    build: Callable[..., Job], tmp_path: Path
) -> None:
    meta = MetaNet.draw(512, 128, torch.Generator().manual_seed(0))
    tpt.Context(torch.zeros(2, 128), meta=meta).save(tmp_path / "prompt.pt")
    with pytest.raises(tpt.PromptError, match="image features of width 512, but tiny gives"):
        build(init=str(tmp_path / "prompt.pt"))


def test_a_blend_is_written_into_the_settings(build: Callable[..., Job], prompt_file: str) -> None:
    context = tpt.Context.load(prompt_file)
    plain = build(init=prompt_file).settings
    for weight in (0.25, 0.75):
        replace(context, blend=Blend(("itap of a {}.",), weight)).save(prompt_file)
        settings = build(init=prompt_file).settings
        blend = {"templates": ["itap of a {}."], "weight": weight}
        assert settings == {**plain, "context": {**plain["context"], "blend": blend}}
        assert json.loads(json.dumps(settings)) == settings


# --- what is refused before anything is loaded ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": None}, "No class names were given. Use --classes"),
        ({"method": "magic"}, 'Unknown method "magic"'),
        ({"templates": ("a {}", "the {}")}, "2 were given"),
        ({"templates": ("a {}",), "init": "p.pt"}, "--init and --template"),
        ({"pretrained": "openai", "model": None}, "give --model too"),
        *[
            ({"method": "zero_shot", option: value}, f"--{option} has no meaning")
            for option, value in [
                *[("keep", 0.1), ("steps", 1), ("lr", 5e-3), ("reset", "image")],
                *[("views", 64), ("augment", "crop")],
            ]
        ],
    ],
)
def test_wrong_combinations_are_refused_before_the_model_is_loaded(
    build: Callable[..., Job], asked: list[Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(tpt.MethodError, match=words):
        build(**changes)
    assert asked == []


def test_a_missing_prompt_file_is_told_before_the_model_is_loaded(
    build: Callable[..., Job], asked: list[Any]
) -> None:
    with pytest.raises(tpt.PromptError, match=r'"nowhere\.pt" cannot be read'):
        build(init="nowhere.pt")
    assert asked == []


@pytest.mark.parametrize("method", ["tpt", "zero_shot"])
def test_every_method_goes_with_one_template(method: str) -> None:
    check_method_options(replace(WANTED, method=method, templates=("a {}",)))


def test_building_a_job_runs_no_forward_pass(
    build: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, cocoop_file: str
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("a forward pass was run")

    monkeypatch.setattr(tpt.Clip, "encode_images", fail)
    monkeypatch.setattr(tpt.PromptEngine, "class_features", fail)
    assert build().engine.classes == CLASSES
    assert build(init=cocoop_file).engine.classes == CLASSES
    assert build(method="zero_shot", templates=("a {}", "the {}")).engine.classes == CLASSES
