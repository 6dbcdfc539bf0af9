"""How a method's logits are read: a temperature for the scores, and a threshold for rejection.

Chuan Guo et al. (1706.04599): one temperature T, fitted on labelled pictures, makes
softmax(logits / T) match how often it is right; the classes keep their order. A picture whose
confidence is below a threshold is rejected. The confidence is the largest probability (Hendrycks
and Gimpel, 1610.02136), or the energy logsumexp(logits) (Weitang Liu et al., 2010.03759), which the
temperature does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tpt.errors import MethodError
from tpt.prompts.calibration import RULES


@dataclass(frozen=True)
class Reading:
    """How logits (..., K) become scores; by default as they are, and nothing is rejected."""

    temperature: float = 1.0
    rule: str = "probability"
    threshold: float | None = None  # a picture with a lower confidence is rejected
    other: int | None = None  # the index of the class for everything else

    def scale(self, logits: Tensor) -> Tensor:
        """The logits whose softmax gives the scores."""
        return logits if self.temperature == 1 else logits / self.temperature

    def confidence(self, logits: Tensor, rule: str | None = None) -> Tensor:
        """The confidence (...) by the rule: how likely the picture is one of the classes."""
        if (rule or self.rule) == "energy":
            return logits.logsumexp(-1)
        return self.scale(logits).softmax(-1).amax(-1)

    def rejects(self, logits: Tensor) -> bool:
        """Whether one picture's logits (K,) name none of the classes."""
        if self.other is not None and int(logits.argmax(-1)) == self.other:
            return True
        return self.threshold is not None and bool(self.confidence(logits) < self.threshold)


def parse_reject(text: str) -> tuple[str, float] | None:
    """(rule, threshold) of `0.4`, `probability:0.4` or `energy:25.3`; None for `off`.

    Raises:
        MethodError: for any other text.
    """
    if text.strip().lower() == "off":
        return None
    rule, colon, number = text.rpartition(":")
    try:
        if (colon and rule not in RULES) or not abs(float(number)) < float("inf"):
            raise ValueError
    except ValueError:
        raise MethodError(
            f'--reject "{text}" is not a threshold: expected a probability such as 0.4, '
            "energy:25.3, or off. `tpt calibrate --false-alarms 0.05` finds one."
        ) from None
    return rule or "probability", float(number)
