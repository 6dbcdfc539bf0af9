"""Published accuracies, to be shown beside measured ones and always marked as published.

Fractions in [0, 1]; the papers print percent. They hold for OpenAI's weights of the named model,
the papers' prompts and the whole test sets; a run with other weights, other words or part of a set
cannot be compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = ("IN", "A", "V2", "R", "Sketch")
"""ImageNet and its four shifts, in the papers' order."""


@dataclass(frozen=True)
class PublishedShifts:
    """One row of the papers' table of ImageNet and its shifts; None where nothing is published."""

    method: str
    model: str  # as open_clip calls it
    paper: str  # arXiv id of the method
    reported: str  # arXiv id of the paper whose table holds the figures
    accuracy: tuple[float, float, float, float, float]  # of COLUMNS
    ood_average: float | None = None  # mean of the four shifts
    fine_grained: float | None = None  # mean of the ten fine-grained data sets

    @property
    def label(self) -> str:
        """The text of a table's first column."""
        return _label(self)


@dataclass(frozen=True)
class PublishedSplit:
    """Base and new classes, mean of eleven data sets, ViT-B/16, 16 shots of the base classes."""

    method: str
    paper: str
    reported: str
    base: float
    new: float

    @property
    def harmonic_mean(self) -> float:
        return harmonic_mean(self.base, self.new)

    @property
    def label(self) -> str:
        """The text of a table's first column."""
        return _label(self)


def harmonic_mean(base: float, new: float) -> float:
    """2 base new / (base + new); 0 where both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def _label(row: PublishedShifts | PublishedSplit) -> str:
    source = f", figures from {row.reported}" if row.reported != row.paper else ""
    return f"{row.method}, published (arXiv {row.paper}{source})"


_CLIP, _COOP, _COCOOP, _TPT = "2103.00020", "2109.01134", "2203.05557", "2209.07511"
_MTA, _ZERO, _TDA = "2405.02266", "2405.18330", "2403.18293"
_KGCOOP, _PROMPTSRC = "2303.13283", "2307.06948"
_B16, _RN50 = "ViT-B-16", "RN50"


def _row(method: str, model: str, paper: str, reported: str, percent: str) -> PublishedShifts:
    """A row from its percentages: the five columns, then the two means where published."""
    imagenet, a, v2, r, sketch, *means = (round(float(x) / 100, 4) for x in percent.split())
    accuracy = (imagenet, a, v2, r, sketch)
    return PublishedShifts(method, model, paper, reported, accuracy, *means)


SHIFTS: tuple[PublishedShifts, ...] = (
    _row('CLIP "a photo of a"', _B16, _CLIP, _TPT, "66.73 47.87 60.86 73.98 46.09 57.20 63.58"),
    _row("CLIP, 80 templates", _B16, _CLIP, _TPT, "68.34 49.89 61.88 77.65 48.24 59.42 64.59"),
    _row("CoOp, 16 shots, M = 4", _B16, _COOP, _TPT, "71.51 49.71 64.20 75.21 47.99 59.28 63.88"),
    _row("CoCoOp", _B16, _COCOOP, _TPT, "71.02 50.63 64.07 76.18 48.75 59.91 64.63"),
    _row("TPT", _B16, _TPT, _TPT, "68.98 54.77 63.45 77.06 47.94 60.81 65.10"),
    _row("TPT + CoOp", _B16, _TPT, _TPT, "73.61 57.95 66.83 77.27 49.29 62.83 65.66"),
    _row("TPT + CoCoOp", _B16, _TPT, _TPT, "71.07 58.47 64.85 78.65 48.47 62.61"),
    _row("MTA, templates", _B16, _MTA, _MTA, "70.08 58.06 64.24 78.33 49.61 62.56 65.58"),
    _row("ZERO, templates", _B16, _ZERO, _ZERO, "71.17 62.75 65.23 80.75 50.59 64.83 65.52"),
    _row("TDA, online", _B16, _TDA, _TDA, "69.51 60.11 64.67 80.24 50.54 63.89 67.53"),
    _row('CLIP "a photo of a"', _RN50, _CLIP, _TPT, "58.16 21.83 51.41 56.15 33.37"),
    _row("TPT", _RN50, _TPT, _TPT, "60.74 26.67 54.70 59.11 35.09"),
    _row("TPT + CoOp", _RN50, _TPT, _TPT, "64.73 30.32 57.83 58.99 35.86"),
)

SPLITS: tuple[PublishedSplit, ...] = (
    PublishedSplit("CLIP", _CLIP, _COCOOP, 0.6934, 0.7422),
    PublishedSplit("CoOp", _COOP, _COCOOP, 0.8269, 0.6322),
    PublishedSplit("CoCoOp", _COCOOP, _COCOOP, 0.8047, 0.7169),
    PublishedSplit("KgCoOp", _KGCOOP, _KGCOOP, 0.8073, 0.7360),
    PublishedSplit("PromptSRC", _PROMPTSRC, _PROMPTSRC, 0.8426, 0.7610),
)

CALIBRATION: tuple[tuple[str, float], ...] = (("CLIP", 0.044), ("TPT", 0.116), ("C-TPT", 0.051))
"""Expected calibration error, 20 bins, mean of eleven data sets; from C-TPT (2403.14119)."""


def model_rows(model: str, pretrained: str) -> tuple[PublishedShifts, ...]:
    """The rows published for a model: none, unless it is OpenAI's ViT-B/16 or RN50."""
    if pretrained != "openai":
        return ()
    return tuple(row for row in SHIFTS if row.model == model.removesuffix("-quickgelu"))
