"""The report page: one HTML file, without network, of everything `tpt eval` found.

`render_report` turns `results.json` (as a dict), a gallery of pictures and the changed confusions
into the page; it computes no result of its own beyond means over sets that it names as such.
The page reads without JavaScript; the script only sorts, filters, and opens pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Answer:
    """A class that a method considered for a picture."""

    name: str
    score: float | None  # probability in [0, 1]; None where the method votes


@dataclass(frozen=True)
class GalleryItem:
    """A picture whose answer adaptation changed from wrong to right, or from right to wrong."""

    dataset: str  # name of the set, as in results.json
    method: str  # name of the method, as in results.json
    key: str  # the picture's name inside its set
    kind: Literal["right", "wrong"]  # what adaptation made of it
    label: str  # the true class
    before: tuple[Answer, ...]  # of the baseline, best first, up to 5
    after: tuple[Answer, ...]  # of `method`, best first, up to 5
    entropy: tuple[float | None, float | None]  # marginal entropy of the kept views, nats
    kept: tuple[tuple[int, float], ...]  # (place of the view, its entropy in nats), best first
    picture: bytes | None  # JPEG
    kept_pictures: tuple[bytes, ...]  # JPEG, in the order of `kept`


@dataclass(frozen=True)
class Change:
    """Pictures of one class whose answer went from one class to another."""

    truth: str
    before: str
    after: str
    count: int


@dataclass(frozen=True)
class Confusion:
    """The changed answers of one method on one set, most frequent first."""

    dataset: str
    method: str
    changes: tuple[Change, ...]
    rarer: int = 0  # changes that are not among `changes`
    rarer_images: int = 0  # and their pictures


def render_report(
    results: dict[str, Any],
    gallery: Sequence[GalleryItem] = (),
    confusions: Sequence[Confusion] = (),
) -> str:
    """The page as one string of HTML; see `results.py` for the form of `results`.

    Text that is no Unicode (file names with surrogates) is shown with backslashes.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from tpt.report.page._render import render_page  # jinja2 only when a page is made

    return render_page(results, gallery, confusions)


def write_report(
    path: str | os.PathLike[str],
    results: dict[str, Any],
    gallery: Sequence[GalleryItem] = (),
    confusions: Sequence[Confusion] = (),
) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        ImportError: jinja2 is not installed.
        OutputError: the disk refused.
    """
    from tpt.runs.whole_files import write_whole

    write_whole(Path(path), render_report(results, gallery, confusions).encode(), what="report")
