"""The result of `tpt calibrate` for a prompt and a method: a temperature and a threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tpt.errors import PromptError

RULES = ("probability", "energy")
"""A picture's confidence is its largest probability, or the logsumexp of its logits."""


@dataclass(frozen=True)
class Calibration:
    """How to read the logits of one method that starts from this prompt.

    Scores are softmax(logits / temperature). A picture whose confidence by `rule` is below
    `threshold` is rejected as none of the classes.

    Raises:
        PromptError: a temperature that is not positive, an unknown rule, a threshold of NaN.
    """

    method: str  # its name in the registry
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the method, and its views
    temperature: float = 1.0
    rule: str = "probability"
    threshold: float | None = None  # None: nothing is rejected
    false_alarms: float | None = None  # share of known pictures that the threshold may reject
    pictures: int = 0  # how many it was fitted on

    def __post_init__(self) -> None:
        numbers = self.temperature, self.threshold or 0.0
        finite = all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)
        if not (finite and self.temperature > 0 and self.rule in RULES):
            raise PromptError(
                f"A calibration has a temperature above 0, a threshold that is a number, and the "
                f"rule {' or '.join(RULES)}; got {self.temperature}, {self.threshold} and "
                f'"{self.rule}". Run `tpt calibrate` again.'
            )
