"""The methods of a run: made once for a list of classes, from the start that each one names."""

from __future__ import annotations

from pathlib import Path

import pytest

import tpt
from tpt.data.imagenet import imagenet_templates, simple_templates
from tpt.data.labelled_sets import LabelledSet
from tpt.errors import MethodError, PromptError
from tpt.evaluate.method_pool import MethodPool, Starts
from tpt.evaluate.method_specs import parse_methods
from tpt.methods import Gate

CLASSES = ("cat", "dog")
WORDS = "a blurry picture of a {}."


def make_set(**more: object) -> LabelledSet:
    return LabelledSet("set", "folders", "set", CLASSES, CLASSES, (), **more)  # type: ignore[arg-type]


def make_pool(
    clip: tpt.Clip, *methods: str, templates: tuple[str, ...] = (), **prompts: str
) -> MethodPool:
    specs = parse_methods(methods, tuple(prompts))
    return MethodPool(clip, specs, Starts(prompts, templates))


def test_methods_without_state_are_made_once_and_share_their_engine(tiny: tpt.Clip) -> None:
    pool = make_pool(tiny, "tpt", "vte", "tda")
    first, second = (pool.methods(CLASSES, make_set()) for _ in range(2))
    assert list(first) == ["zero-shot", "tpt", "vte", "tda"]
    assert first["tpt"] is second["tpt"]
    assert first["tpt"].engine is first["vte"].engine is first["zero-shot"].engine  # type: ignore[attr-defined]
    assert first["tda"] is not second["tda"]
    other = pool.methods(("cat", "cup"), make_set())
    assert other["tpt"] is not first["tpt"]


def test_what_other_class_lists_needed_is_dropped(tiny: tpt.Clip) -> None:
    pool = make_pool(tiny, "tpt")
    kept, gone = (pool.methods(classes, make_set())["tpt"] for classes in (CLASSES, ("a", "b")))
    pool.forget(keep={CLASSES})
    assert pool.methods(CLASSES, make_set())["tpt"] is kept
    assert pool.methods(("a", "b"), make_set())["tpt"] is not gone


def test_an_ensemble_is_the_sets_own_else_imagenets_else_the_simple_one(tiny: tpt.Clip) -> None:
    pool = make_pool(tiny, "zero-shot+ensemble")
    _, ensemble = pool.specs
    assert pool.templates(ensemble, make_set(templates=("my {}",))) == ("my {}",)
    assert pool.templates(ensemble, make_set(family="imagenet")) == imagenet_templates()
    assert pool.templates(ensemble, make_set()) == simple_templates()
    given = make_pool(tiny, "zero-shot+ensemble", templates=("a {}", "the {}"))
    assert given.templates(ensemble, make_set(templates=("my {}",))) == ("a {}", "the {}")
    assert given.templates(given.specs[0], make_set()) == ()
    assert given.describe(given.specs[0])["context"] == {"words": "a photo of a {}."}


def test_sets_with_templates_of_their_own_have_methods_of_their_own(tiny: tpt.Clip) -> None:
    pool = make_pool(tiny, "zero-shot+ensemble")
    one, other = (
        pool.methods(CLASSES, make_set(templates=(text,)))["zero-shot+ensemble"]
        for text in ("my {}", "your {}")
    )
    assert (one.templates, other.templates) == (("my {}",), ("your {}",))  # type: ignore[attr-defined]


def test_one_template_is_where_all_start_but_those_with_a_prompt(
    tiny: tpt.Clip, tmp_path: Path
) -> None:
    path = str(tmp_path / "coop.safetensors")
    tpt.Context.from_words(tiny, WORDS).save(path)
    pool = make_pool(tiny, "tpt", "tpt+coop", templates=("a {}",), coop=path)
    made = pool.methods(CLASSES, make_set())
    assert made["zero-shot"].templates == ("a {}",)  # type: ignore[attr-defined]
    assert made["tpt"].engine.context.info.words == "a {}"  # type: ignore[attr-defined]
    assert made["tpt+coop"].engine.context.info.words == WORDS  # type: ignore[attr-defined]
    plain, words, prompt = map(pool.describe, pool.specs)
    assert plain["context"] == words["context"] == {"words": "a {}"}
    assert prompt["context"]["file"] == "coop.safetensors"
    assert prompt["context"]["words"] == WORDS


def test_a_gate_stands_before_what_reads_views(tiny: tpt.Clip) -> None:
    specs = parse_methods(["tpt,tda"])
    made = MethodPool(tiny, specs, Starts({}), gate=(0.9, 2)).methods(CLASSES, make_set())
    assert isinstance(made["tpt"], Gate)
    assert not isinstance(made["tda"], Gate)
    assert not isinstance(made["zero-shot"], Gate)


def test_templates_that_no_method_uses_are_refused(tiny: tpt.Clip) -> None:
    with pytest.raises(MethodError) as refused:
        make_pool(tiny, "tpt", templates=("a {}", "the {}"))
    assert str(refused.value) == (
        "2 templates were given, but no method uses an ensemble of them. Name one, for example "
        "--methods zero-shot,zero-shot+ensemble, or give one template."
    )


def test_a_prompt_file_that_is_not_there_is_refused(tiny: tpt.Clip, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        make_pool(tiny, "tpt", coop=str(tmp_path / "none.safetensors"))
