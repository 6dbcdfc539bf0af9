"""ImageNet's 1,000 classes (WordNet ids, names, templates), and those of ImageNet-A and -R.

The ids are in `imagenet.csv` beside this file, in the standard order. Names and templates are
open_clip's own lists, in the same order. A class is always found by its id: the sorted folders of a
part of ImageNet are not the first classes of the list.

References: Hendrycks et al. 2021, "Natural Adversarial Examples" (ImageNet-A) and "The Many Faces
of Robustness" (ImageNet-R): both score among their own 200 classes only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tpt.errors import SourceError, suggest


@dataclass(frozen=True)
class Part:
    """A published set with a part of ImageNet's classes."""

    keyword: str  # as in --classes
    title: str
    size: int  # classes


PARTS = (Part("imagenet-a", "ImageNet-A", 200), Part("imagenet-r", "ImageNet-R", 200))
KEYWORDS = ("imagenet", *(part.keyword for part in PARTS))
"""The words that --classes takes for a whole list of classes."""


def is_wnid(text: str) -> bool:
    """Whether `text` has the form of a WordNet id of a noun: n01440764."""
    return re.fullmatch(r"n[0-9]{8}", text) is not None


def imagenet_ids() -> tuple[str, ...]:
    """The 1,000 WordNet ids in the standard order, which is that of the ids."""
    return subset_ids("imagenet")


def imagenet_names() -> tuple[str, ...]:
    """open_clip's 1,000 class names in the standard order; two of them come twice."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # open_clip imports torch

    return tuple(IMAGENET_CLASSNAMES)


def subset_ids(part: str) -> tuple[str, ...]:
    """The WordNet ids of "imagenet-a" or "imagenet-r" (200 each), or of "imagenet", in order.

    Raises:
        SourceError: another word.
    """
    try:
        return _ids()[part]
    except KeyError:
        raise SourceError(
            f'"{part}" is no list of classes.{suggest(part, KEYWORDS)} Expected one of '
            f"{', '.join(KEYWORDS)}."
        ) from None


def names_by_id() -> dict[str, str]:
    """Each of the 1,000 ids -> open_clip's class name, in the standard order."""
    return dict(zip(imagenet_ids(), imagenet_names(), strict=True))


def name_ids(ids: Iterable[str]) -> tuple[str, ...]:
    """open_clip's class names of some of the 1,000 ids."""
    by_id = names_by_id()
    return tuple(by_id[wnid] for wnid in ids)


def subset_of(ids: Iterable[str]) -> Part | None:
    """ImageNet-A or ImageNet-R, if these are exactly its ids."""
    present = frozenset(ids)
    return next((part for part in PARTS if present == frozenset(subset_ids(part.keyword))), None)


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates of the CLIP paper's ensemble for ImageNet, with {} for the class name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return _as_text(OPENAI_IMAGENET_TEMPLATES)


def simple_templates() -> tuple[str, ...]:
    """The 7 templates that do nearly as well as the 80, with {} for the class name."""
    from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES

    return _as_text(SIMPLE_IMAGENET_TEMPLATES)


def _as_text(templates: Iterable[Callable[[str], str]]) -> tuple[str, ...]:
    return tuple(template("{}") for template in templates)


@cache
def _ids() -> dict[str, tuple[str, ...]]:
    with Path(__file__).with_name("imagenet.csv").open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "imagenet": tuple(row["wnid"] for row in rows),
        "imagenet-a": tuple(row["wnid"] for row in rows if row["a"] == "1"),
        "imagenet-r": tuple(row["wnid"] for row in rows if row["r"] == "1"),
    }
