"""The published recipe of every method, and which options each method has.

| method | start | epochs | batch | source |
|---|---|---|---|---|
| coop | 16 random vectors | 50, 100 or 200 by shots | 32 | 2109.01134, section 4 |
| cocoop | "a photo of a" | 10 | 1 | 2203.05557, section 4 |
| kgcoop | "a photo of a" | 100 | 128 | 2303.13283 and its public configuration |
| e2mim | "a photo of a" | as coop | 32 | reconstruction, see `coop.learners.e2mim` |
| linear-probe | | | all | 2103.00020 with the search of CoOp's public program |
| tip-adapter | hand-crafted prompt | | | 2207.09519, `coop.heads` |
| tip-adapter-f | hand-crafted prompt | 20 | 256 | the same with trained keys |
| gda | hand-crafted prompt | | | 2402.04087, `coop.heads` |
| lpp | hand-crafted prompt | 300 | all | 2404.02285, `coop.heads` |

The first four learn with SGD at 2e-3 after one warm-up epoch at 1e-5 (`coop.schedule`,
`coop.loop`); the last four are heads on image features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coop.learners import E2MIM, CoCoOp, CoOp, E2MIMSettings, KgCoOp, Learner
from coop.learners.base import start_context
from coop.schedule import coop_epochs
from tpt.errors import MethodError, suggest
from tpt.model.clip import Clip
from tpt.prompts import PromptEngine

PROMPTS = ("coop", "cocoop", "e2mim", "kgcoop")
HEADS = ("tip-adapter", "tip-adapter-f", "gda", "lpp")
METHODS = (*PROMPTS, "linear-probe", *HEADS)
LR = 2e-3
LARGEST_LR = 1e6  # beyond 3e38 no step could be computed at all
WORDS = "a photo of a"
CACHE_VIEWS = 16  # of each training picture, by default on a CPU
HEAD_VIEWS = 10  # of each training picture, for heads; published for Tip-Adapter

_E2MIM_ONLY = ("alpha", "mi_text", "mi_image", "mixup", "critic")
_OWNERS: dict[str, tuple[str, ...]] = {
    "kg_weight": ("kgcoop",),
    **dict.fromkeys(_E2MIM_ONLY, ("e2mim",)),
    **dict.fromkeys(("context_length", "context_words", "class_specific", "position"), PROMPTS),
    "epochs": (*PROMPTS, "tip-adapter-f", "lpp"),
    **dict.fromkeys(("lr", "batch_size"), (*PROMPTS, "tip-adapter-f")),
    **dict.fromkeys(("augment", "cache_views"), (*PROMPTS, "tip-adapter", "tip-adapter-f", "gda")),
    "head_weight": ("tip-adapter", "tip-adapter-f", "gda"),
    "beta": ("tip-adapter", "tip-adapter-f"),
}


@dataclass(frozen=True)
class RecipeSettings:
    """What a user asks for; None stands for the method's published default."""

    method: str = "coop"
    context_length: int | None = None  # M of a random start
    context_words: str | None = None  # a start from words
    class_specific: bool | None = None
    position: str | None = None  # end, middle, front
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    augment: str | None = None  # crop, none
    cache_views: int | None = None  # 0: off, every epoch encodes its pictures anew
    kg_weight: float | None = None  # kgcoop's lambda
    alpha: float | None = None  # e2mim's terms
    mi_text: float | None = None
    mi_image: float | None = None
    mixup: float | None = None
    critic: bool | None = None
    head_weight: float | None = None  # the heads' alpha; None: chosen on validation pictures
    beta: float | None = None  # tip-adapter's, likewise


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run's settings with nothing left open; the fields are those of `RecipeSettings`."""

    method: str
    words: str | None = None
    context_length: int = 0
    class_specific: bool = False
    position: str | None = None
    epochs: int
    lr: float
    batch_size: int
    augment: str
    cache_views: int  # 0: off
    extras: dict[str, Any]  # the method's own settings


def check_recipe(wanted: RecipeSettings) -> None:
    """Refuse options that would be silently ignored, and numbers out of their range.

    Raises:
        MethodError: unknown method, option of another method, contradiction.
    """
    method = wanted.method
    if method not in METHODS:
        raise MethodError(
            f'Unknown method "{method}".{suggest(method, METHODS)} Expected one of '
            f"{', '.join(METHODS)}."
        )
    for name, methods in _OWNERS.items():
        if getattr(wanted, name) is not None and method not in methods:
            raise MethodError(
                f"--{name.replace('_', '-')} has no meaning with --method {method}; it belongs to "
                f"{', '.join(methods)}. Leave it out."
            )
    if wanted.context_words is not None and wanted.context_length is not None:
        raise MethodError(
            "--context-words starts from words, --context-length from that many random vectors. "
            "Give one of them."
        )
    if wanted.class_specific and method == "cocoop":
        raise MethodError(
            "CoCoOp shifts one context for all classes; --class-specific does not go with it. "
            "Leave it out, or use --method coop."
        )
    if wanted.class_specific and wanted.context_words is not None:
        raise MethodError(
            "A class-specific context starts at random, as published; --context-words does not go "
            "with --class-specific. Leave out one of the two."
        )
    for name in ("context_length", "epochs", "batch_size"):
        value = getattr(wanted, name)
        if value is not None and value < 1:
            raise MethodError(f"--{name.replace('_', '-')} must be at least 1; got {value}.")
    if wanted.cache_views is not None and wanted.cache_views < 0:
        raise MethodError(f"--cache-views must be at least 1, or off; got {wanted.cache_views}.")
    if wanted.lr is not None and not 0 < wanted.lr <= LARGEST_LR:
        raise MethodError(
            f"--lr must be a positive number up to {LARGEST_LR:g}; got {wanted.lr}. Published is "
            f"{LR:g}."
        )
    chosen = " Leave it out to choose it on validation pictures."
    for name, hint in (("head_weight", chosen), ("beta", chosen), ("kg_weight", "")):
        value = getattr(wanted, name)
        if value is not None and not 0 <= value < float("inf"):
            flag = name.replace("_", "-")
            raise MethodError(f"--{flag} must be a number from 0 on; got {value}.{hint}")
    if method in HEADS and wanted.cache_views == 0:
        raise MethodError(
            f"--method {method} is fitted on views that are encoded once. Give a number of "
            "--cache-views, or --augment none for the plain pictures."
        )
    _e2mim_settings(wanted)


def make_recipe(
    wanted: RecipeSettings, shots: int | None, *, on_cpu: bool, epochs: int | None = None
) -> Recipe:
    """Fill in what was not said.

    Args:
        wanted: checked settings.
        shots: of this run; None is all.
        on_cpu: whether the model is on a CPU, where views are cached by default.
        epochs: the data set's own number (ImageNet: 50), which comes before the one by shots.
    """
    method = wanted.method
    if method in HEADS:
        return _head_recipe(wanted)
    random_start = method == "coop" or wanted.class_specific or wanted.context_length is not None
    words = wanted.context_words
    if words is None and not random_start:
        words = WORDS
    usual_epochs = {"cocoop": 10, "kgcoop": 100}.get(method) or epochs or coop_epochs(shots)
    usual_batch = {"cocoop": 1, "kgcoop": 128}.get(method, 32)
    total = wanted.epochs or usual_epochs
    augment = wanted.augment or "crop"
    cached = min(CACHE_VIEWS, total) if on_cpu else 0
    extras: dict[str, Any] = {}
    if method == "kgcoop":
        extras = {"kg_weight": 8.0 if wanted.kg_weight is None else wanted.kg_weight}
    elif method == "e2mim":
        extras = vars(_e2mim_settings(wanted))
    return Recipe(
        method=method,
        words=words,
        context_length=wanted.context_length or 16,
        class_specific=bool(wanted.class_specific),
        position=wanted.position,
        epochs=total,
        lr=wanted.lr or LR,
        batch_size=wanted.batch_size or usual_batch,
        augment=augment,
        cache_views=cached if wanted.cache_views is None else wanted.cache_views,
        extras=extras,
    )


def _head_recipe(wanted: RecipeSettings) -> Recipe:
    """What a head is fitted with. LP++ takes the plain pictures, as its objective is of one."""
    trained = wanted.method == "tip-adapter-f"
    usual = {"tip-adapter-f": 20, "lpp": 300}.get(wanted.method, 0)
    own = {"weight": wanted.head_weight, "beta": wanted.beta}
    return Recipe(
        method=wanted.method,
        epochs=wanted.epochs or usual,
        lr=wanted.lr or (1e-3 if trained else 0.0),
        batch_size=wanted.batch_size or (256 if trained else 0),
        augment="none" if wanted.method == "lpp" else wanted.augment or "crop",
        cache_views=wanted.cache_views or HEAD_VIEWS,
        extras={name: value for name, value in own.items() if value is not None},
    )


def make_learner(
    recipe: Recipe, clip: Clip, classes: tuple[str, ...], templates: tuple[str, ...], seed: int
) -> Learner:
    """The method at its start: context drawn or read from words, classes tokenised.

    Raises:
        PromptError: a class name too long, a template that does not fit.
        MethodError: a start that does not go with the method.
    """
    start = start_context(
        clip,
        len(classes),
        words=recipe.words,
        length=recipe.context_length,
        class_specific=recipe.class_specific,
        position=recipe.position,
        seed=seed,
    )
    engine = PromptEngine(clip, classes, start)
    if recipe.method == "kgcoop":
        return KgCoOp(engine, templates, recipe.extras["kg_weight"])
    if recipe.method == "e2mim":
        return E2MIM(engine, templates, E2MIMSettings(**recipe.extras))
    return CoCoOp(engine, seed) if recipe.method == "cocoop" else CoOp(engine)


def _e2mim_settings(wanted: RecipeSettings) -> E2MIMSettings:
    chosen = {name: getattr(wanted, name) for name in _E2MIM_ONLY}
    return E2MIMSettings(**{name: v for name, v in chosen.items() if v is not None})
