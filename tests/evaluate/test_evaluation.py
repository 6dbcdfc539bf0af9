"""An evaluation is checked before its first picture, and its settings say what decides on it."""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tpt
from tpt.data.labelled_sets import ArrayRow, LabelledSet, Sample
from tpt.errors import MethodError, ModelError, PromptError
from tpt.evaluate import evaluation as evaluate
from tpt.evaluate.evaluation import EvalSettings, build_evaluation, total_lines
from tpt.evaluate.method_pool import Starts
from tpt.evaluate.method_specs import parse_methods
from tpt.evaluate.walks import Walk, plan_walks
from tpt.streaming import predict_job

CLASSES = ("cat", "dog", "horse")


@pytest.fixture(autouse=True)
def _load_once(tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    load = functools.partial(_load_tiny, tiny, predict_job.load_clip)
    monkeypatch.setattr(predict_job, "load_clip", load)


def _load_tiny(tiny: tpt.Clip, load: Any, name: str, *rest: Any, **more: Any) -> tpt.Clip:
    return tiny if name == "tiny" else load(name, *rest, **more)


def make_set(name: str = "set", classes: tuple[str, ...] = CLASSES, count: int = 1) -> LabelledSet:
    pixels = np.random.RandomState(0).randint(0, 256, (len(classes) * count, 20, 20, 3), np.uint8)
    samples = tuple(
        Sample(f"{classes[n % len(classes)]}/{n}.png", n % len(classes), ArrayRow(pixels, n))
        for n in range(len(pixels))
    )
    return LabelledSet(name, "folders", f"/data/{name}", classes, classes, samples)


def build(walks: tuple[Walk, ...], *methods: str, **more: Any) -> evaluate.Evaluation:
    prompts = more.pop("prompts", {})
    specs = parse_methods(methods or ("zero-shot",), tuple(prompts))
    starts = Starts(prompts, more.pop("templates", ()))
    return build_evaluation(EvalSettings(specs, starts, device="cpu", **more), walks)


def test_settings_change_with_whatever_decides_on_the_numbers() -> None:
    walks = plan_walks([make_set()])
    one = make_set()
    swapped = replace(one, samples=tuple(replace(s, label=2 - s.label) for s in one.samples))
    renamed = replace(one, samples=tuple(replace(s, key=f"x/{s.key}") for s in one.samples))
    runs = [
        build(walks, "tpt"),
        build(walks, "tpt", seed=1),
        build(walks, "tpt", views=8),
        build(walks, "tpt", augment="augmix"),
        build(walks, "tpt", gate=0.9),
        build(walks, "tpt", gate=0.9, gate_views=2),
        build(walks, "tpt:lr=0.1"),
        build(walks, "tpt", templates=("the {}",)),
        build(plan_walks([one], corruptions=[("fog", 1)]), "tpt"),
        build(plan_walks([swapped]), "tpt"),
        build(plan_walks([renamed]), "tpt"),
        build(plan_walks([replace(one, templates=("my {}",))]), "tpt"),
        build(plan_walks([replace(one, classes=("cat", "dog", "house"))]), "tpt"),
    ]
    texts = [json.dumps(run.settings) for run in runs]
    assert len(set(texts)) == len(texts)
    moved = build(plan_walks([replace(one, path="/elsewhere")]), "tpt")
    assert moved.settings == runs[0].settings  # where the pictures are decides on nothing


def test_without_a_method_that_reads_views_one_is_made() -> None:
    walks = plan_walks([make_set()])
    assert build(walks).views.n == 1
    assert "views" not in build(walks).settings
    assert build(walks, "tpt").views.n == 64
    assert build(walks, "tpt", views=8).settings["views"] == 8


def test_a_walk_gives_a_line_for_each_picture_and_head() -> None:
    few = make_set("few", ("dog", "cat"))
    walks = plan_walks([few], [make_set()])
    run = build(walks, "vte", views=2)
    lines = [line for walk in walks for line in run.run(walk, batch_size=2, num_workers=0)]
    assert len(lines) == total_lines(walks) == 3 + 2 + 2
    assert [line["set"] for line in lines[:3]] == ["set", "set (2 classes of few)", "set"]
    rest = list(run.run(walks[0], batch_size=2, num_workers=0, done=4))
    assert [line["key"] for line in rest] == ["horse/2.png"]


def test_methods_that_keep_state_are_known() -> None:
    walks = plan_walks([make_set()])
    assert not build(walks, "tpt").keeps_state()
    assert build(walks, "tpt", "tda").keeps_state()
    assert build(walks, "tpt:reset=stream", gate=0.9).keeps_state()


def test_the_model_is_the_prompts_own_unless_one_is_named(tmp_path: Path, tiny: tpt.Clip) -> None:
    path = str(tmp_path / "init.pt")
    tpt.Context.from_words(tiny, "a {}").save(path)
    walks = plan_walks([make_set()])
    assert build(walks, "tpt", prompts={"init": path}).settings["model"] == "tiny"
    with pytest.raises(ModelError, match='Unknown model "tniy"'):
        build(walks, "tpt", prompts={"init": path}, model="tniy")
    with pytest.raises(MethodError, match="--pretrained names the weights of a --model"):
        build(walks, "tpt", pretrained="openai")


def test_what_does_not_fit_a_set_is_told_with_its_name() -> None:
    long = make_set("long", ("cat", "dog " * 100))
    with pytest.raises(PromptError) as refused:
        build(plan_walks([make_set(), long]), "tpt")
    assert str(refused.value).startswith('On the set "long": ')


def test_what_the_plan_has_to_tell_is_a_warning() -> None:
    more = make_set("more", (*CLASSES, "house"))
    walks = plan_walks([more], [make_set("photo")])
    told = 'more: it is not compared with the clean set "photo", which lacks house.'
    with pytest.warns(UserWarning, match="^more: ") as caught:
        build(walks)
    assert [str(warning.message) for warning in caught] == [told]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(plan_walks([make_set("few", ("cat", "dog"))], [make_set("photo")]))


@pytest.mark.parametrize(
    ("methods", "options", "words"),
    [
        ("zero-shot", {"views": 2}, "--views has no meaning with these methods (zero-shot)"),
        ("tda", {"gate": 0.9}, "--gate has no meaning with these methods (zero-shot, tda)"),
        ("tpt", {"gate_views": 2}, "give --gate too"),
        ("tpt", {"gate": 0.5, "gate_views": 65}, "more than the 64 views"),
        ("tpt", {"gate": 0.5, "gate_views": 3, "views": 2}, "more than the 2 views"),
    ],
)
def test_options_that_no_method_heeds_are_refused(
    methods: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(MethodError) as refused:
        build(plan_walks([make_set()]), methods, **options)
    assert words in str(refused.value)


def test_sentences_of_ensembles_are_counted_once_a_class_list() -> None:
    walks = plan_walks([make_set(), make_set("other")], corruptions=[("fog", 1)])
    templates = ("a {}.", "the {}.")
    found = build(walks, "zero-shot+ensemble", "vte+ensemble", templates=templates)
    assert found.count_sentences() == 2 * 3
    assert build(walks, "zero-shot").count_sentences() == 0
