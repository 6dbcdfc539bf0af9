"""What a prompt carries beside its vectors: where it came from, templates mixed into it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tpt.errors import PromptError


@dataclass(frozen=True)
class PromptInfo:
    """What is known of where a context came from; every field may be unknown (None)."""

    model: str | None = None
    pretrained: str | None = None
    classes: tuple[str, ...] | None = None
    words: str | None = None
    dataset: str | None = None
    shots: int | None = None
    seed: int | None = None
    # Of the model's weights: what decides, wherever the model's file is. Names alone are compared.
    digest: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Blend:
    """Hand-crafted templates that are mixed into the class features.

    The class features become norm(weight * soft + (1 - weight) * hand), where `hand` are those of
    the templates (averaged if there are several), taken word for word.
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
