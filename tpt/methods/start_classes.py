"""What the start says of an image: class features before any adaptation, and what they see.

Every method begins here. The class features come from the engine's context, or from an ensemble
of hand-crafted templates (Alec Radford et al., 2103.00020, section 3.1.4: the unit text features
of a class are averaged and made unit again); a conditional (CoCoOp) context makes them anew for
every image, from its view 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tpt.errors import PromptError
from tpt.prompts import PromptEngine
from tpt.prompts.engine import check_templates, encode_templates


class StartClasses:
    """The class features that every image starts from, computed when first asked for.

    Args:
        engine: the prompt engine; its start context makes the class features.
        templates: sentences with one `{}` each, taken word for word ("a sketch of a {}."); the
            ensemble of them replaces the engine's context. Default: none.

    Raises:
        PromptError: a template without exactly one `{}`.
    """

    def __init__(self, engine: PromptEngine, templates: Sequence[str] | None = None) -> None:
        if isinstance(templates, str):
            raise PromptError(
                f'Templates are expected as a list, but the single string "{templates}" came. '
                f'Write ["{templates}"].'
            )
        self.engine = engine
        self.templates = tuple(templates or ())
        self._features: Tensor | None = None
        check_templates(self.templates)

    @torch.inference_mode(False)  # they outlive the caller, and a method may tune from them
    @torch.no_grad()
    def features(self) -> Tensor:
        """Unit class features (K, E), computed once.

        Raises:
            PromptError: a conditional context without templates; a template too long.
        """
        if self._features is None:
            engine = self.engine
            self._features = (
                encode_templates(engine.clip, engine.classes, self.templates)
                if self.templates
                else engine.class_features()
            )
        return self._features

    @torch.no_grad()
    def of(self, plain: Tensor) -> Tensor:
        """Class features for images whose view 0 has the unit features (B, E).

        Returns:
            (K, E) where all images share them, (B, K, E) under a conditional context.
        """
        if self.engine.conditional and not self.templates:
            return self.engine.class_features(self.engine.start_for(plain))
        return self.features()
