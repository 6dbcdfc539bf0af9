"""Every method's published defaults, which options it has, and where it starts."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from refusals import refusal

import tpt
from coop.learners import E2MIM, CoCoOp, CoOp, E2MIMSettings, KgCoOp
from coop.recipes import (
    HEADS,
    METHODS,
    Recipe,
    RecipeSettings,
    check_recipe,
    make_learner,
    make_recipe,
)
from tpt.data.presets import PRESETS
from tpt.errors import MethodError, PromptError
from tpt.prompts.sentences import encode_templates

CLASSES = ("cat", "dog", "golden retriever")
TEMPLATES = ("a photo of a {}.", "a sketch of the {}.")
PROMPT_METHODS = METHODS[:4]
A_VALUE: dict[str, Any] = {
    "context_length": 4,
    "context_words": "a photo of a",
    "class_specific": True,
    "position": "middle",
    "epochs": 3,
    "lr": 0.01,
    "batch_size": 8,
    "augment": "none",
    "cache_views": 2,
    "kg_weight": 4.0,
    "alpha": 0.7,
    "mi_text": 0.5,
    "mi_image": 0.0,
    "mixup": 0.0,
    "critic": False,
    "head_weight": 2.0,
    "beta": 3.0,
}
OWNERS = {  # of what heads have too
    "epochs": (*PROMPT_METHODS, "tip-adapter-f", "lpp"),
    "lr": (*PROMPT_METHODS, "tip-adapter-f"),
    "batch_size": (*PROMPT_METHODS, "tip-adapter-f"),
    "augment": (*PROMPT_METHODS, "tip-adapter", "tip-adapter-f", "gda"),
    "cache_views": (*PROMPT_METHODS, "tip-adapter", "tip-adapter-f", "gda"),
    "head_weight": ("tip-adapter", "tip-adapter-f", "gda"),
    "beta": ("tip-adapter", "tip-adapter-f"),
}
E2MIM_ONLY = ("alpha", "mi_text", "mi_image", "mixup", "critic")


def fill(method: str, shots: int | None = 16, on_cpu: bool = True, **wanted: Any) -> Recipe:
    settings = RecipeSettings(method, **wanted)
    check_recipe(settings)
    return make_recipe(settings, shots, on_cpu=on_cpu)


def refuse(method: str, **wanted: Any) -> str:
    return refusal(MethodError, check_recipe, RecipeSettings(method, **wanted))


# --- published defaults ---


@pytest.mark.parametrize(
    ("method", "words", "batch", "epochs"),
    [
        ("coop", None, 32, {1: 50, 2: 100, 4: 100, 8: 200, 16: 200, None: 200}),
        ("cocoop", "a photo of a", 1, {1: 10, 16: 10, None: 10}),
        ("kgcoop", "a photo of a", 128, {1: 100, 16: 100, None: 100}),
        ("e2mim", "a photo of a", 32, {1: 50, 2: 100, 4: 100, 8: 200, 16: 200, None: 200}),
    ],
)
def test_the_published_recipe(
    method: str, words: str | None, batch: int, epochs: dict[int | None, int]
) -> None:
    for shots, number in epochs.items():
        recipe = fill(method, shots)
        assert (recipe.epochs, recipe.lr, recipe.batch_size) == (number, 2e-3, batch)
        assert recipe.words == words
        assert (recipe.augment, recipe.class_specific, recipe.position) == ("crop", False, None)
    if words is None:
        assert recipe.context_length == 16


def test_the_published_extras() -> None:
    assert fill("coop").extras == fill("cocoop").extras == {}
    assert fill("kgcoop").extras == {"kg_weight": 8.0}
    assert E2MIMSettings(**fill("e2mim").extras) == E2MIMSettings()


def test_imagenet_takes_50_epochs_of_what_goes_by_shots() -> None:
    epochs = PRESETS["imagenet"].epochs
    assert epochs == 50
    for method, want in (("coop", 50), ("e2mim", 50), ("cocoop", 10), ("kgcoop", 100)):
        recipe = make_recipe(RecipeSettings(method), 16, on_cpu=True, epochs=epochs)
        assert recipe.epochs == want
    asked = make_recipe(RecipeSettings("coop", epochs=7), 16, on_cpu=True, epochs=epochs)
    assert asked.epochs == 7


@pytest.mark.parametrize(
    ("wanted", "on_cpu", "views"),
    [
        ({}, True, 16),
        ({"epochs": 5}, True, 5),
        ({"epochs": 16}, True, 16),
        ({}, False, 0),
        ({"cache_views": 4}, True, 4),
        ({"cache_views": 4}, False, 4),
        ({"cache_views": 0}, True, 0),
        ({"cache_views": 40, "epochs": 5}, True, 40),
    ],
)
def test_how_many_views_are_kept(wanted: dict[str, Any], on_cpu: bool, views: int) -> None:
    assert fill("coop", on_cpu=on_cpu, **wanted).cache_views == views


def test_what_is_asked_for_is_taken() -> None:
    recipe = fill(
        "e2mim",
        context_length=4,
        position="front",
        epochs=3,
        lr=0.5,
        batch_size=7,
        augment="none",
        cache_views=0,
        alpha=0.9,
        mi_text=0.0,
        critic=False,
    )
    assert recipe == Recipe(
        method="e2mim",
        words=None,
        context_length=4,
        class_specific=False,
        position="front",
        epochs=3,
        lr=0.5,
        batch_size=7,
        augment="none",
        cache_views=0,
        extras=vars(E2MIMSettings(alpha=0.9, mi_text=0.0, critic=False)),
    )
    assert fill("kgcoop", kg_weight=0.0).extras == {"kg_weight": 0.0}  # zero is a wish, too


@pytest.mark.parametrize(
    ("method", "wanted", "words"),
    [
        ("coop", {"context_words": "a sketch of a"}, "a sketch of a"),
        ("cocoop", {"context_words": "a sketch of a"}, "a sketch of a"),
        ("cocoop", {"context_length": 4}, None),
        ("kgcoop", {"class_specific": True}, None),
        ("e2mim", {"context_length": 16}, None),
    ],
)
def test_a_start_from_words_or_at_random(
    method: str, wanted: dict[str, Any], words: str | None
) -> None:
    assert fill(method, **wanted).words == words


def test_settings_and_recipes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RecipeSettings().lr = 1.0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        fill("coop").lr = 1.0  # type: ignore[misc]


# --- what is refused ---


def test_an_unknown_method_is_refused_with_the_nearest_one() -> None:
    message = refuse("CoOP")
    assert 'Unknown method "CoOP". Did you mean "coop"' in message
    assert f"Expected one of coop, cocoop, e2mim, kgcoop, linear-probe, {', '.join(HEADS)}." in (
        message
    )


@pytest.mark.parametrize(
    ("method", "name", "owners"),
    [
        *((m, "kg_weight", "kgcoop") for m in METHODS if m != "kgcoop"),
        *((m, name, "e2mim") for m in METHODS if m != "e2mim" for name in E2MIM_ONLY),
        *(
            (method, name, ", ".join(OWNERS.get(name, PROMPT_METHODS)))
            for method in ("linear-probe", *HEADS)
            for name in A_VALUE
            if name not in ("kg_weight", *E2MIM_ONLY)
            if method not in OWNERS.get(name, PROMPT_METHODS)
        ),
    ],
)
def test_an_option_of_another_method_is_refused_by_its_name(
    method: str, name: str, owners: str
) -> None:
    message = refuse(method, **{name: A_VALUE[name]})
    option = f"--{name.replace('_', '-')}"
    assert message == (
        f"{option} has no meaning with --method {method}; it belongs to {owners}. Leave it out."
    )


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_a_methods_own_options_are_taken(method: str) -> None:
    mine = {
        "coop": ("class_specific",),
        "cocoop": (),
        "kgcoop": ("kg_weight", "class_specific"),
        "e2mim": (*E2MIM_ONLY, "class_specific"),
    }[method]
    shared = ("context_length", "position", "epochs", "lr", "batch_size", "augment", "cache_views")
    check_recipe(RecipeSettings(method, **{name: A_VALUE[name] for name in (*mine, *shared)}))


def test_words_and_a_number_of_random_vectors_contradict_each_other() -> None:
    message = refuse("coop", context_words="a photo of a", context_length=4)
    assert "--context-words" in message
    assert "--context-length" in message
    assert "Give one of them." in message


def test_words_and_class_specific_contradict_each_other() -> None:
    message = refuse("coop", context_words="a photo of a", class_specific=True)
    assert "--context-words does not go with --class-specific" in message


def test_cocoop_and_class_specific_contradict_each_other() -> None:
    message = refuse("cocoop", class_specific=True)
    assert "--class-specific does not go with it" in message
    assert "use --method coop" in message
    check_recipe(RecipeSettings("cocoop", class_specific=False))


@pytest.mark.parametrize(
    ("method", "wanted", "sentence"),
    [
        ("gda", {"cache_views": 0}, "is fitted on views that are encoded once. Give a number"),
        ("gda", {"head_weight": -1.0}, "--head-weight must be a number from 0 on; got -1.0."),
        ("tip-adapter", {"beta": float("nan")}, "--beta must be a number from 0 on; got nan."),
        ("coop", {"context_length": 0}, "--context-length must be at least 1; got 0."),
        ("coop", {"epochs": 0}, "--epochs must be at least 1; got 0."),
        ("coop", {"batch_size": -1}, "--batch-size must be at least 1; got -1."),
        ("coop", {"cache_views": -1}, "--cache-views must be at least 1, or off; got -1."),
        ("coop", {"lr": 0.0}, "--lr must be a positive number up to 1e+06; got 0.0."),
        ("coop", {"lr": float("nan")}, "--lr must be a positive number up to 1e+06; got nan."),
        # Beyond float32 torch has no step to offer, only a traceback.
        ("coop", {"lr": 1e39}, "--lr must be a positive number up to 1e+06; got 1e+39."),
        ("coop", {"lr": float("inf")}, "--lr must be a positive number up to 1e+06; got inf."),
        ("kgcoop", {"kg_weight": -8.0}, "--kg-weight must be a number from 0 on; got -8.0."),
        ("kgcoop", {"kg_weight": float("nan")}, "--kg-weight must be a number from 0 on; got nan."),
        ("e2mim", {"alpha": 1.5}, "alpha is the share of the soft prompt, in (0, 1]; got 1.5."),
        ("e2mim", {"mixup": -0.5}, "mixup must be a number from 0 (off) on; got -0.5."),
    ],
)
def test_numbers_out_of_their_range_are_refused(
    method: str, wanted: dict[str, Any], sentence: str
) -> None:
    assert sentence in refuse(method, **wanted)


# --- the method at its start ---


def start(golden: SimpleNamespace, recipe: Recipe, seed: int = 1) -> Any:
    return make_learner(recipe, golden.clip, CLASSES, TEMPLATES, seed)


@pytest.mark.parametrize(
    ("method", "kind"), [("coop", CoOp), ("cocoop", CoCoOp), ("kgcoop", KgCoOp), ("e2mim", E2MIM)]
)
def test_every_method_has_its_learner(golden: SimpleNamespace, method: str, kind: type) -> None:
    learner = start(golden, fill(method))
    assert type(learner) is kind
    assert learner.engine.classes == CLASSES
    assert all(t.is_leaf and t.requires_grad for t in learner.parameters.values())


@pytest.mark.parametrize("method", ["cocoop", "kgcoop", "e2mim"])
def test_methods_that_start_from_words_start_from_their_embeddings(
    golden: SimpleNamespace, method: str
) -> None:
    learner = start(golden, fill(method))
    words = tpt.Context.from_words(golden.clip, "a photo of a")
    assert torch.equal(learner.parameters["vectors"], words.vectors)
    assert learner.context().info.words == "a photo of a"


def test_coop_starts_from_sixteen_random_vectors(golden: SimpleNamespace) -> None:
    first, same, other = (start(golden, fill("coop"), seed) for seed in (1, 1, 2))
    vectors = first.parameters["vectors"]
    assert vectors.shape == (16, golden.clip.width)
    assert vectors.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(vectors, same.parameters["vectors"])
    assert not torch.equal(vectors, other.parameters["vectors"])
    assert first.context().position == "end"


def test_class_specific_and_position_reach_the_context(golden: SimpleNamespace) -> None:
    recipe = fill("coop", class_specific=True, position="middle", context_length=6)
    context = start(golden, recipe).context()
    assert context.vectors.shape == (len(CLASSES), 6, golden.clip.width)
    assert (context.position, context.before) == ("middle", 3)
    words = fill("coop", context_words="a photo of a {} in the wild")
    assert start(golden, words).context().before == 4


def test_the_seed_decides_cocoops_meta_network(golden: SimpleNamespace) -> None:
    first, same, other = (
        start(golden, fill("cocoop"), seed).parameters["meta_net.linear1.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_extras_reach_the_method(golden: SimpleNamespace) -> None:
    hand = encode_templates(golden.clip, CLASSES, TEMPLATES)
    guided = start(golden, fill("kgcoop", kg_weight=2.5))
    assert guided.weight == 2.5
    assert torch.equal(guided.hand, hand)
    blended = start(golden, fill("e2mim", alpha=0.9, mi_image=0.0, critic=False))
    assert blended.settings == E2MIMSettings(alpha=0.9, mi_image=0.0, critic=False)
    assert torch.equal(blended.hand, hand)
    assert blended.templates == TEMPLATES


def test_words_that_are_none_are_refused(golden: SimpleNamespace) -> None:
    recipe = fill("coop", context_words="")
    with pytest.raises(PromptError, match="has no words beside the class name"):
        start(golden, recipe)


def test_words_and_a_position_that_contradict_each_other_are_refused(
    golden: SimpleNamespace,
) -> None:
    recipe = fill("coop", context_words="a photo of a {} in the wild", position="end")
    with pytest.raises(MethodError, match="put the class name at position middle"):
        start(golden, recipe)


def test_a_context_too_long_for_the_model_is_refused(golden: SimpleNamespace) -> None:
    recipe = replace(fill("coop"), context_length=80)
    with pytest.raises(PromptError, match="80"):
        start(golden, recipe)
