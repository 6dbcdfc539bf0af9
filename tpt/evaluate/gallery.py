"""Pictures that a method put right or put wrong, drawn at random, with the views it kept.

Every picture that qualifies gets a ticket, the SHA-256 of seed, set, method, kind and the picture's
key, and the lowest tickets win. That is a uniform draw without replacement in one pass and bounded
memory (reservoir sampling by random keys: "bottom-k", Cohen and Kaplan, PODC 2007). The draw does
not depend on the order, so a resumed run shows the same pictures, and only another seed shows
others: nobody can pick the pictures that look good.

The run's own `Views` make the kept views again from the picture: they are what adaptation saw, made
smaller.
"""

from __future__ import annotations

import base64
import hashlib
import io
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import kornia
import torch
from PIL import Image

from tpt.data.labelled_sets import Sample, open_source
from tpt.errors import ImageError
from tpt.evaluate.confusions import compare_answers
from tpt.images.decode import Picture, Pixels, load_picture
from tpt.images.views import Views
from tpt.text import as_text

PICTURE_SIDE = 160  # pixels on the long side of a shown picture
VIEW_SIDE = 64
KEPT_SHOWN = 6  # kept views drawn again, the most confident first

Kind = Literal["right", "wrong"]
KINDS: tuple[Kind, Kind] = ("right", "wrong")


@dataclass(frozen=True)
class Answer:
    """A class that a method considered for a picture."""

    name: str
    score: float | None  # probability in [0, 1]; None where the method votes


@dataclass(frozen=True)
class GalleryItem:
    """An entry of "gallery" in results.json: a picture that a method put right or wrong."""

    dataset: str  # name of the result set
    method: str  # name of the method
    key: str  # the picture's name inside its set
    kind: Kind  # "right": the method put it right
    label: str  # the true class
    before: tuple[Answer, ...]  # of the baseline, best first, up to 5
    after: tuple[Answer, ...]  # of `method`, best first, up to 5
    entropy: tuple[float | None, float | None]  # marginal entropy of the kept views, nats
    kept: tuple[tuple[int, float], ...]  # (place of the view, its entropy in nats), best first
    picture: str | None = None  # JPEG in base64
    kept_pictures: tuple[str, ...] = ()  # JPEGs in base64, in the order of `kept`


@dataclass(eq=False)
class GalleryDraw:
    """Draws the gallery of one result set from its rows, one by one.

    A picture qualifies as "right" if the baseline's top class is wrong and the method's is the
    true one, as "wrong" if it is the other way round. For each method and kind `per_kind` pictures
    are drawn, or all if fewer qualify. No more than `per_kind` are held at any time.
    """

    dataset: str  # name of the result set; with `seed`, method, kind and key it decides the draw
    classes: Sequence[str]  # the set's class names, in the order of its labels
    baseline: str = "zero-shot"  # the method whose answers are "before"
    per_kind: int = 4  # pictures for each method and kind
    seed: int = 0  # another seed draws other pictures
    _drawn: dict[tuple[str, Kind], list[tuple[bytes, GalleryItem]]] = field(
        default_factory=dict, init=False
    )

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row of `predictions.jsonl` to the draw."""
        for method, before, after in compare_answers(row, self.baseline):
            was, now = before == row["label"], after == row["label"]
            if was != now:
                self._offer(row, method, "right" if now else "wrong")

    @property
    def items(self) -> tuple[GalleryItem, ...]:
        """The items drawn so far, without pictures: by method as first seen, right first."""
        methods = dict.fromkeys(method for method, _ in self._drawn)
        lists = (self._drawn.get((method, kind), []) for method in methods for kind in KINDS)
        return tuple(item for drawn in lists for _, item in drawn)

    def _offer(self, row: Mapping[str, Any], method: str, kind: Kind) -> None:
        drawn = self._drawn.setdefault((method, kind), [])
        ticket = self._ticket(method, kind, row["key"])
        if len(drawn) < self.per_kind or (drawn and ticket < drawn[-1][0]):
            insort(drawn, (ticket, self._read(row, method, kind)), key=lambda pair: pair[0])
            del drawn[self.per_kind :]

    def _ticket(self, method: str, kind: Kind, key: str) -> bytes:
        text = f"{self.seed}\0{self.dataset}\0{method}\0{kind}\0{key}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def _read(self, row: Mapping[str, Any], method: str, kind: Kind) -> GalleryItem:
        answer = row["methods"][method]
        before, after = answer.get("entropy") or (None, None)
        return GalleryItem(
            dataset=self.dataset,
            method=method,
            key=row["key"],
            kind=kind,
            label=self.classes[row["label"]],
            before=self._read_top(row["methods"][self.baseline]),
            after=self._read_top(answer),
            entropy=(before, after),
            kept=tuple(zip(answer.get("kept", ()), answer.get("kept_entropy", ()), strict=True)),
        )

    def _read_top(self, answer: Mapping[str, Any]) -> tuple[Answer, ...]:
        votes = answer.get("votes", False)  # then the numbers are counts of views
        top = answer["top"]
        return tuple(Answer(self.classes[i], None if votes else score) for i, score in top)


def draw_items(
    items: Iterable[GalleryItem],
    samples: Mapping[str, Sample],
    make_views: Views | None = None,
    change: Callable[[Pixels, str], Pixels] | None = None,
) -> list[GalleryItem]:
    """The items with their pictures, in the order given.

    An item whose picture is gone or broken by now has no picture and no views.

    Args:
        items: of one result set.
        samples: the set's samples by key.
        make_views: what made the run's views; None: show no views.
        change: the run's corruption on the fly, from pixels (H, W, 3) uint8 and the sample's key
            to pixels; None: there was none.
    """
    drawn = []
    for item in items:
        picture = _open_picture(item.key, samples, change)
        item = replace(item, key=as_text(item.key))
        if picture is not None:
            places = [place for place, _ in item.kept[:KEPT_SHOWN]]
            views = redraw_views(picture, places, make_views) if make_views else []
            item = replace(
                item,
                picture=encode_thumbnail(picture.pixels, PICTURE_SIDE),
                kept_pictures=tuple(encode_thumbnail(view, VIEW_SIDE) for view in views),
            )
        drawn.append(item)
    return drawn


def _open_picture(
    key: str, samples: Mapping[str, Sample], change: Callable[[Pixels, str], Pixels] | None
) -> Picture | None:
    """The picture as the run saw it, or None if it is gone or broken."""
    try:
        picture = load_picture(open_source(samples[key].source))
        return picture if change is None else replace(picture, pixels=change(picture.pixels, key))
    except (ImageError, LookupError):  # the set or its array shrank, or the file broke
        return None


def redraw_views(picture: Picture, places: Sequence[int], views: Views) -> list[Pixels]:
    """The views at `places` of a picture, as bytes (h, w, 3) of the model's input size.

    Args:
        picture: as the run had it.
        places: which of the `views.n` views; view 0 is the plain picture.
        views: with the run's settings.
    """
    if not places:
        return []
    facts = views.clip.preprocess
    with torch.inference_mode():
        made = views([picture])[0]
        chosen = torch.stack([made[place] for place in places]).cpu()  # (n, 3, h, w), normalised
        mean, std = torch.tensor(facts.mean), torch.tensor(facts.std)
        shown = kornia.enhance.denormalize(chosen, mean, std).clamp(0, 1) * 255
    return list(shown.round().byte().permute(0, 2, 3, 1).numpy())


def encode_thumbnail(pixels: Pixels, longest: int) -> str:
    """A JPEG in base64 of pixels (H, W, 3) uint8, shrunk to `longest` pixels on its long side.

    Smaller pictures keep their size. Colours are not subsampled: it would blur a 32-pixel picture.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, subsampling=0)
    return base64.b64encode(file.getvalue()).decode("ascii")
