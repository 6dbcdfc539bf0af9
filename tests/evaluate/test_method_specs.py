"""Which methods a run compares: how they are written, and what is refused."""

from __future__ import annotations

import pytest

from tpt.errors import MethodError
from tpt.evaluate.method_specs import MethodSpec, parse_methods


def names(*texts: str, **more: object) -> list[str]:
    return [spec.name for spec in parse_methods(texts, **more)]  # type: ignore[arg-type]


def test_the_baseline_comes_first_and_is_always_there() -> None:
    assert names("tpt") == ["zero-shot", "tpt"]
    assert names("tpt,zero-shot") == ["zero-shot", "tpt"]
    assert names("zero_shot") == ["zero-shot"]


def test_a_method_says_where_it_starts_and_its_settings() -> None:
    *_, spec = parse_methods(["tpt+init:lr=0.02:steps=2"], ["init"])
    assert spec == MethodSpec(
        "tpt+init:lr=0.02:steps=2", "tpt", "init", False, {"lr": 0.02, "steps": 2}
    )
    *_, spec = parse_methods(["vte+ensemble"])
    assert (spec.method, spec.start, spec.ensemble) == ("vte", None, True)


def test_a_prompt_that_nobody_names_starts_all_and_the_baseline_stays() -> None:
    assert names("zero-shot,tpt", prompts=["init"]) == ["zero-shot", "zero-shot+init", "tpt+init"]
    assert names("tpt:lr=0.02", prompts=["a", "b"]) == [
        "zero-shot",
        "tpt+a:lr=0.02",
        "tpt+b:lr=0.02",
    ]
    assert names("tpt,tpt+init", prompts=["init"]) == ["zero-shot", "tpt", "tpt+init"]
    assert names("zero-shot+ensemble,tpt", prompts=["init"]) == [
        "zero-shot",
        "zero-shot+ensemble",
        "tpt+init",
    ]


def test_an_ensemble_of_templates_stands_once_beside_several_prompts() -> None:
    assert names("zero-shot+ensemble,tpt", prompts=["a", "b"]) == [
        *("zero-shot", "zero-shot+ensemble", "tpt+a", "tpt+b")
    ]


@pytest.mark.parametrize("texts", ["tpt+a", "zero-shot+ensemble,tpt+a"])
def test_a_prompt_from_which_no_method_starts_is_refused(texts: str) -> None:
    with pytest.raises(MethodError, match=r'No method starts from the prompt "b"\. .*tpt\+b'):
        parse_methods([texts], ["a", "b"])


def test_settings_of_the_run_reach_those_that_have_them_unless_they_say_otherwise() -> None:
    found = parse_methods(
        ["zero-shot,tpt,tpt:lr=0.02,vte"], shared={"lr": 0.1, "keep": 0.3, "steps": None}
    )
    assert [dict(spec.options) for spec in found] == [
        {},
        {"lr": 0.1, "keep": 0.3},
        {"lr": 0.02, "keep": 0.3},
        {"keep": 0.3},
    ]
    assert [spec.name for spec in found][1:3] == ["tpt", "tpt:lr=0.02"]  # as they were written


@pytest.mark.parametrize(
    ("texts", "prompts", "words"),
    [
        (["tqt"], [], 'Unknown method "tqt". Did you mean "tpt"'),
        ([" , "], [], "No method was named"),
        (["tpt,tpt"], [], '"tpt" is named twice'),
        (["zero-shot,zero_shot"], [], '"zero-shot" is named twice'),
        (["tpt+coop"], [], 'starts from "coop", which is neither ensemble nor a prompt'),
        (["tpt+init"], [], "Give --init FILE."),
        (["tpt+coop"], ["coup"], 'Did you mean "coup"? There are: coup. Give --init coop=FILE.'),
        (["tpt+init+ensemble"], ["init"], "says twice where it starts (init, ensemble)"),
        (["tpt+ensemble"], [], "TPT tunes a context, so it cannot start from an ensemble"),
        (["tpt:lr"], [], '"lr" in "tpt:lr" is no setting: expected NAME=VALUE'),
        (["tpt:weight=2"], [], "--weight has no meaning with --method tpt; it belongs to ctpt"),
        (["tpt:lr=-1"], [], "lr"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], prompts: list[str], words: str) -> None:
    with pytest.raises(MethodError) as refused:
        parse_methods(texts, prompts)
    assert words in str(refused.value)


def test_a_setting_that_no_method_has_is_refused_by_its_owner() -> None:
    with pytest.raises(MethodError, match="--weight has no meaning with --method vte; it belongs"):
        parse_methods(["vte"], shared={"weight": 3})
