"""Check the inputs of an engine: class names, templates, a context that fits the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from tpt.errors import PromptError
from tpt.model.clip import Clip
from tpt.prompts.context import Context
from tpt.prompts.token_rows import check_template, clean_name
from tpt.text import drop_invisible, fold, is_utf8


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates, if each is text with exactly one place for the class name.

    Raises:
        PromptError: a single string, or as `check_template`, or not exactly one `{}`.
    """
    if isinstance(templates, str):
        raise PromptError(
            f'Templates are expected as a list, but the single string "{templates}" came. Write '
            f'["{templates}"].'
        )
    for template in templates:
        check_template(template)
        if template.count("{}") != 1:
            raise PromptError(
                f'The template "{template}" holds {template.count("{}")} places for the class '
                'name; expected exactly one {}, for example "a photo of a {}."'
            )
    return tuple(templates)


def check_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The class names as a tuple, without invisible characters.

    Raises:
        PromptError: as `take_names`, no names at all, or an empty one.
    """
    names = take_names(classes)
    if not names:
        raise PromptError("No class names were given; at least one is needed to predict anything.")
    for place, name in enumerate(names, start=1):
        if not clean_name(name):
            raise PromptError(
                f"Class name number {place} of {len(names)} is empty ({name!r}). Give every class "
                "a name, or remove the empty line or comma."
            )
    return names


def take_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A list of texts as a tuple, without invisible characters.

    Raises:
        PromptError: a single text or a set instead of a list, or an entry that is not text.
    """
    kind = type(classes).__name__
    if isinstance(classes, str):
        raise PromptError(
            f'Class names are expected as a list, but the single string "{classes}" came. Write '
            f'["{classes}"], or split it.'
        )
    if isinstance(classes, (set, frozenset)):
        raise PromptError(
            f"Class names are expected as a list, but a {kind} came, which has no fixed order. "
            "Write sorted(names)."
        )
    if isinstance(classes, bytes) or not isinstance(classes, Iterable):
        raise PromptError(
            f'Class names are expected as a list, but {_say(classes)} came. Write ["cat", "dog"].'
        )
    names = tuple(classes)
    for place, name in enumerate(names, start=1):
        where = f"Class name number {place} of {len(names)}"
        if not isinstance(name, str):
            raise PromptError(
                f"{where} is {_say(name)}; expected text. Give every class a name in words."
            )
        if not is_utf8(name):
            raise PromptError(
                f"{where} is not Unicode text ({name!r}). Save the class names as UTF-8."
            )
    return tuple(map(drop_invisible, names))


def _say(value: object) -> str:
    return "None" if value is None else f"{value!r:.60} ({type(value).__name__})"


def check_fit(context: Context, clip: Clip, classes: tuple[str, ...], force: bool) -> None:
    """Refuse a context that is known to be for another model or other classes."""
    info, model = context.info, name_model(clip.name, clip.pretrained)
    width, gives = context.vectors.shape[-1], f"{model} gives width {clip.embedding_width}."
    made_for = f" It was made for {name_model(info.model, info.pretrained)}." if info.model else ""
    if width != clip.width:
        raise PromptError(
            f"The context vectors are {width} wide, but {model} has tokens of width {clip.width}."
            f"{made_for} Use the model the prompt was made for."
        )
    if context.meta is not None and context.meta.feature_width != clip.embedding_width:
        raise PromptError(
            "The context's meta-network reads image features of width "
            f"{context.meta.feature_width}, but {gives}{made_for} Use the model the prompt was "
            "made for."
        )
    what = "context is class-specific" if context.head is None else "head was fitted"
    made = len(context.vectors) if context.head is None else context.head.classes
    if context.fixed_classes and made != len(classes):
        raise PromptError(
            f"The {what} for {made} classes, but {len(classes)} class names were given. Give the "
            "classes it was trained with, in the same order."
        )
    if context.head is not None and context.head.width != clip.embedding_width:
        raise PromptError(
            f"The head reads image features of width {context.head.width}, but {gives}{made_for} "
            "Use the model the head was fitted with."
        )
    if context.fixed_classes and info.classes is not None:
        for place, (trained, given) in enumerate(zip(info.classes, classes, strict=True), start=1):
            if fold(trained) != fold(given):
                raise PromptError(
                    f'The {what} and its class number {place} is "{trained}", but "{given}" was '
                    "given there. Give the classes it was trained with, in the same order."
                )
    _check_model(context, clip, force)


def _check_model(context: Context, clip: Clip, force: bool) -> None:
    info = context.info
    if clip.is_model(info.model, info.pretrained, info.digest):
        return
    made, given = name_model(info.model, info.pretrained), name_model(clip.name, clip.pretrained)
    if made == given:
        made, given = f"other weights ({info.digest})", f"{given} with the weights {clip.digest}"
    text = (
        f"The context was made for {made}, but the model is {given}; vectors of one model mean "
        "nothing to another, even where the widths agree."
    )
    if not force:
        raise PromptError(f"{text} Use the prompt's own model, or --force to try all the same.")
    warnings.warn(f"{text} It is used because of --force.", stacklevel=4)


def name_model(name: str | None, pretrained: str | None) -> str:
    """A model's name for a message: "ViT-B-16 (openai)"."""
    return f"{name or 'this model'} ({pretrained})" if pretrained else (name or "this model")
