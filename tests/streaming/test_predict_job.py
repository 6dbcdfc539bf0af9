"""A job is checked before it starts, and its settings say all that decides the records."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import METHODS

import tpt
from tpt.errors import TptError
from tpt.methods._stream_state import StreamMethod
from tpt.methods.registry import make_settings
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import Blend
from tpt.streaming import predict_job as job
from tpt.streaming.predict_job import PredictJob, build_predict_job
from tpt.streaming.predict_settings import PredictSettings, check_method_options

CLASSES = ("cat", "dog")
WANTED = PredictSettings(classes=CLASSES, model="tiny", device="cpu")


@pytest.fixture
def asked(tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `load_clip` was asked for; it always gives the embedded model."""
    calls: list[dict[str, Any]] = []

    def load(name: str, pretrained: str | None, **options: Any) -> tpt.Clip:
        calls.append({"name": name, "pretrained": pretrained, **options})
        clip = copy.copy(tiny)
        clip.precision = options["precision"].replace("auto", "fp32")
        return clip

    monkeypatch.setattr(job, "load_clip", load)
    return calls


@pytest.fixture
def build(asked: list[dict[str, Any]]) -> Callable[..., PredictJob]:
    return lambda **changes: build_predict_job(replace(WANTED, **changes))


@pytest.fixture
def prompt_file(tiny: tpt.Clip, tmp_path: Path) -> str:
    """A prompt trained for the embedded model and three classes."""
    context = tpt.Context.from_words(tiny, "a sketch of a").described(
        classes=("red fox", "owl", "elk")
    )
    path = tmp_path / "prompt.safetensors"
    context.save(path)
    return str(path)


def test_unsaid_settings_are_the_published_ones(build: Callable[..., PredictJob]) -> None:
    made = build()
    assert isinstance(made.method, tpt.TPT)
    assert (made.views.n, made.views.kind, made.views.seed) == (64, "crop", 0)
    facts = {"keep": 0.1, "steps": 1, "lr": 5e-3, "reset": "image", "views_kept": 6}
    assert facts.items() <= made.settings.items()
    assert made.settings["context"]["words"] == "a photo of a"


def test_what_was_said_arrives_where_it_belongs(
    build: Callable[..., PredictJob], asked: list[dict[str, Any]]
) -> None:
    said = {"keep": 0.5, "steps": 2, "lr": 0.1, "reset": "stream"}
    made = build(
        **said, views=8, augment="augmix", seed=5, precision="bf16", device="cuda:1", micro_batch=3
    )
    assert vars(made.method.settings) == said  # type: ignore[attr-defined]
    assert (made.views.n, made.views.kind, made.views.seed) == (8, "augmix", 5)
    assert asked == [
        {
            **{"name": "tiny", "pretrained": None, "device": "cuda:1"},
            **{"precision": "bf16", "seed": 5, "micro_batch": 3, "cuda_graphs": False},
        }
    ]
    assert {**said, "views": 8, "augment": "augmix", "views_kept": 4}.items() <= (
        made.settings.items()
    )


def test_settings_are_plain_data_that_survive_json(build: Callable[..., PredictJob]) -> None:
    settings = build().settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings.keys() == {
        *("model", "pretrained", "weights", "precision", "method", "keep", "steps", "lr", "reset"),
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
    build: Callable[..., PredictJob], change: dict[str, Any], names: set[str]
) -> None:
    before, after = build().settings, build(**change).settings
    assert {key for key in before if before[key] != after[key]} == names


def test_zero_shot_has_no_settings_of_tuning(build: Callable[..., PredictJob]) -> None:
    made = build(method="zero_shot", templates=("a {}", "the {}"))
    assert isinstance(made.method, tpt.ZeroShot)
    assert made.method.templates == ("a {}", "the {}")
    assert made.settings.keys() == {
        *(
            "model",
            "pretrained",
            "weights",
            "precision",
            "method",
            "seed",
            "context",
            "templates",
            "classes",
        ),
    }


# --- methods ---


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_job_with_its_settings(
    build: Callable[..., PredictJob], name: str
) -> None:
    made = build(method=name)
    assert type(made.method).__name__ == METHODS[name].home.partition(":")[2]
    assert made.settings["method"] == name
    defaults = vars(make_settings(name, {}))
    assert defaults.items() <= made.settings.items()
    assert json.loads(json.dumps(made.settings)) == made.settings
    known = {
        "model",
        "pretrained",
        "weights",
        "precision",
        "method",
        "seed",
        "context",
        "templates",
    }
    extra = {"views", "augment"} if METHODS[name].needs_views else set()
    extra |= {"views_kept"} if defaults.get("keep") is not None else set()
    extra |= {"batch_size"} if METHODS[name].together else set()
    assert made.settings.keys() == known | {"classes"} | defaults.keys() | extra


def test_the_settings_call_a_method_by_its_own_name(build: Callable[..., PredictJob]) -> None:
    assert build(method="C-TPT").settings == build(method="ctpt").settings
    assert build(method="ctpt").settings["method"] == "ctpt"


def test_a_methods_other_settings_come_as_options(build: Callable[..., PredictJob]) -> None:
    made = build(method="tda", options={"alpha": 1, "negative_capacity": 0}, keep=0.5, views=8)
    assert isinstance(made.method, tpt.TDA)
    assert made.method.settings.alpha == 1
    assert made.method.cached == {"positive": 0}
    said = {"alpha": 1, "negative_capacity": 0, "keep": 0.5, "views": 8, "views_kept": 4}
    assert said.items() <= made.settings.items()


def test_tda_tells_of_views_only_if_it_reads_them(build: Callable[..., PredictJob]) -> None:
    assert not {"views", "augment", "views_kept"} & build(method="tda").settings.keys()
    assert {"views", "augment", "views_kept"} <= build(method="tda", keep=0.5).settings.keys()


def test_a_gate_stands_before_the_method_and_in_the_settings(
    build: Callable[..., PredictJob],
) -> None:
    plain, made = build(method="tps"), build(method="tps", gate=0.9)
    assert isinstance(made.method, tpt.Gate)
    assert isinstance(made.method.method, tpt.TPS)
    assert made.settings == {**plain.settings, "gate": {"threshold": 0.9, "views": 1}}
    several = build(method="tps", gate=0.5, gate_views=3).settings["gate"]
    assert several == {"threshold": 0.5, "views": 3}


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].takes_templates])
def test_templates_are_an_ensemble_and_the_context_stays(
    build: Callable[..., PredictJob], name: str
) -> None:
    plain, made = build(method=name), build(method=name, templates=("a {}", "the {}"))
    assert made.method.templates == ("a {}", "the {}")
    assert made.settings == {**plain.settings, "templates": ["a {}", "the {}"]}


@pytest.mark.parametrize("name", ["tpt", "ctpt"])
def test_one_template_is_the_start_of_a_context_that_is_tuned(
    build: Callable[..., PredictJob], name: str
) -> None:
    made = build(method=name, templates=("itap of my {}",))
    assert made.method.templates == ()
    assert made.settings["context"]["words"] == "itap of my {}"
    assert made.settings["templates"] == ["itap of my {}"]


@pytest.mark.parametrize("gate", [None, 0.9])
def test_a_state_is_loaded_and_told_by_its_content(
    build: Callable[..., PredictJob], tmp_path: Path, gate: float | None
) -> None:
    path, wanted = str(tmp_path / "state.safetensors"), {"method": "tda", "keep": 0.5}
    digests = []
    for count in (1, 2):
        earlier = build(**wanted).method
        assert isinstance(earlier, tpt.TDA)
        rng = torch.Generator().manual_seed(0)
        features = torch.randn(count, 4, earlier.engine.clip.embedding_width, generator=rng)
        earlier.adapt_features(torch.nn.functional.normalize(features, dim=-1))
        earlier.save_state(path)
        made = build(**wanted, load_state=path, gate=gate)
        inner = made.method.method if isinstance(made.method, tpt.Gate) else made.method
        assert isinstance(inner, tpt.TDA)
        assert inner.cached == earlier.cached
        digests.append(made.settings["state"])
    assert digests[0] != digests[1]
    assert "state" not in build(**wanted).settings


def test_the_environment_names_versions_and_device(build: Callable[..., PredictJob]) -> None:
    environment = build().environment
    assert environment["tpt_runtime"] == tpt.__version__
    assert environment["torch"] == torch.__version__
    assert environment["device"].startswith("cpu (")


# --- prompt files ---


def test_a_prompt_file_brings_its_context_classes_and_model(
    build: Callable[..., PredictJob], asked: list[dict[str, Any]], prompt_file: str
) -> None:
    made = build(init=prompt_file, classes=None, model=None)
    assert made.engine.classes == ("red fox", "owl", "elk")
    assert asked[0]["name"] == "tiny"
    assert made.settings["context"]["words"] == "a sketch of a"
    assert made.environment["init"] == prompt_file


def test_classes_that_are_said_win_over_those_of_the_prompt_file(
    build: Callable[..., PredictJob], prompt_file: str
) -> None:
    assert build(init=prompt_file).engine.classes == CLASSES


def test_other_vectors_under_the_same_file_name_are_other_settings(
    build: Callable[..., PredictJob], prompt_file: str
) -> None:
    before = build(init=prompt_file).settings["context"]
    context = tpt.Context.load(prompt_file)
    replace(context, vectors=context.vectors + 1e-3).save(prompt_file)
    after = build(init=prompt_file).settings["context"]
    assert {key for key in before if before[key] != after[key]} == {"sha256"}


def test_a_prompt_file_that_does_not_name_its_model_asks_for_it(
    build: Callable[..., PredictJob], asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    tpt.Context(torch.zeros(2, 128)).save(tmp_path / "anonymous.pt")
    with pytest.raises(tpt.PromptError, match="does not say which model"):
        build(init=str(tmp_path / "anonymous.pt"), model=None)
    assert asked == []


def test_a_prompt_without_classes_says_so(build: Callable[..., PredictJob], tmp_path: Path) -> None:
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
    build: Callable[..., PredictJob], cocoop_file: str, method: str
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
    build: Callable[..., PredictJob], cocoop_file: str, tmp_path: Path
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
    build: Callable[..., PredictJob], cocoop_file: str, prompt_file: str
) -> None:
    before, after = (build(init=file).settings["context"] for file in (prompt_file, cocoop_file))
    assert after == {**before, "conditional": True, "sha256": after["sha256"]}
    assert before["sha256"] != after["sha256"]
    assert "conditional" not in before


def test_another_meta_network_is_other_settings(
    build: Callable[..., PredictJob], cocoop_file: str
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
    build: Callable[..., PredictJob], cocoop_file: str, reset: str
) -> None:
    with pytest.raises(tpt.MethodError, match="made anew for each image"):
        build(init=cocoop_file, reset=reset)


def test_a_cocoop_prompt_for_other_image_features_is_refused(
    build: Callable[..., PredictJob], tmp_path: Path
) -> None:
    meta = MetaNet.draw(512, 128, torch.Generator().manual_seed(0))
    tpt.Context(torch.zeros(2, 128), meta=meta).save(tmp_path / "prompt.pt")
    with pytest.raises(tpt.PromptError, match="image features of width 512, but tiny gives"):
        build(init=str(tmp_path / "prompt.pt"))


def test_a_blend_is_written_into_the_settings(
    build: Callable[..., PredictJob], prompt_file: str
) -> None:
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
        *[
            ({"method": "tda", option: value}, f"--{option} has no meaning with --method tda")
            for option, value in [("views", 64), ("augment", "crop"), ("gate", 0.9)]
        ],
        ({"method": "zero_shot", "gate": 0.9}, "--gate has no meaning"),
        ({"gate_views": 3}, "give --gate too"),
        (
            {"gate": 0.9, "gate_views": 65},
            "--gate-views 65 is more than the 64 views that are made",
        ),
        ({"method": "mta", "keep": 0.5}, "--keep has no meaning with --method mta"),
        ({"method": "vte", "reset": "stream"}, "--reset has no meaning with --method vte"),
        ({"method": "ctpt", "options": {"alpha": 1}}, "it belongs to tda"),
        ({"method": "ctpt", "options": {"weight": "much"}}, "got much"),
        ({"method": "ctpt", "templates": ("a {}", "the {}")}, "--method ctpt starts from one"),
        ({"method": "tda", "reset": "image"}, 'Unknown reset "image": expected stream'),
        *[
            ({"method": name, "load_state": "s.safetensors"}, "--load-state has no meaning")
            for name, info in METHODS.items()
            if not info.keeps_state
        ],
    ],
)
def test_wrong_combinations_are_refused_before_the_model_is_loaded(
    build: Callable[..., PredictJob], asked: list[Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(tpt.MethodError, match=words):
        build(**changes)
    assert asked == []


def test_a_missing_prompt_file_is_told_before_the_model_is_loaded(
    build: Callable[..., PredictJob], asked: list[Any]
) -> None:
    with pytest.raises(tpt.PromptError, match=r'"nowhere\.pt" cannot be read'):
        build(init="nowhere.pt")
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate": 1.5}, r"in \(0, 1\]; got 1.5"),
        ({"method": "tda", "load_state": "nowhere.safetensors"}, "cannot be read"),
        ({"method": "vte", "templates": ("a photo",)}, r"expected exactly one \{\}"),
    ],
)
def test_what_only_the_method_can_judge_is_refused_too(
    build: Callable[..., PredictJob], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(TptError, match=words):
        build(**changes)


def test_a_method_that_keeps_state_need_not_load_one(
    build: Callable[..., PredictJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(StreamMethod, "load_state")
    with pytest.raises(tpt.MethodError, match="--load-state has no meaning with TDA"):
        build(method="tda", load_state="s.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_with_one_template(method: str) -> None:
    check_method_options(replace(WANTED, method=method, templates=("a {}",)))


def test_building_a_job_runs_no_forward_pass(
    build: Callable[..., PredictJob], monkeypatch: pytest.MonkeyPatch, cocoop_file: str
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("a forward pass was run")

    monkeypatch.setattr(tpt.Clip, "encode_images", fail)
    monkeypatch.setattr(tpt.PromptEngine, "class_features", fail)
    assert build().engine.classes == CLASSES
    assert build(init=cocoop_file).engine.classes == CLASSES
    assert build(method="zero_shot", templates=("a {}", "the {}")).engine.classes == CLASSES
    for name in METHODS:
        assert build(method=name, gate=0.9 if METHODS[name].needs_views else None)
