"""The facts of a prompt beside its vectors: where it came from, and templates mixed into it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tpt.errors import PromptError

POSITIONS = ("end", "middle", "front")
"""Where the class name can stand in a prompt."""


@dataclass(frozen=True)
class PromptInfo:
    """Where a context came from; every field may be unknown (None)."""

    model: str | None = None
    pretrained: str | None = None
    classes: tuple[str, ...] | None = None
    words: str | None = None
    dataset: str | None = None
    shots: int | None = None
    seed: int | None = None
    # Of the model's weights, which identifies the model under any name; equality ignores it.
    digest: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Blend:
    """Hand-crafted templates that are mixed into the class features.

    The class features become norm(weight * soft + (1 - weight) * hand), where `hand` are the
    features of the templates, taken word for word and averaged if there are several.

    Raises:
        PromptError: a single string, no templates, or a weight outside [0, 1].
    """

    templates: tuple[str, ...]
    weight: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.templates, str):
            raise PromptError(
                f'Templates are expected as a list, but the single string "{self.templates}" '
                f'came. Write ["{self.templates}"].'
            )
        if not self.templates or not 0 <= self.weight <= 1:
            raise PromptError(
                f"A blend needs at least one template and a weight of the soft prompt within "
                f"[0, 1]; got {len(self.templates)} templates and weight {self.weight}."
            )
