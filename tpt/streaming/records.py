"""Records: the outcome for one image, as frozen data and as one JSON object or table row.

Nothing here needs torch. Written numbers are rounded to six places, about the precision of float32,
so that the records of two runs can be compared.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tpt.text import is_utf8

PLACES = 6


@dataclass(frozen=True)
class Prediction:
    """A class and its probability, or its votes where the method votes."""

    label: str
    score: float | None  # None if the method votes: a share of votes is no probability
    index: int  # the class's place in the list of classes
    votes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data with a score or votes, never both."""
        kind = {"score": self.score} if self.votes is None else {"votes": self.votes}
        return {"label": self.label, **kind, "index": self.index}


@dataclass(frozen=True)
class Adaptation:
    """How one image was adapted."""

    entropy_before: float | None  # nats, marginal entropy of the kept views
    entropy_after: float | None  # None for methods that tune nothing
    views_kept: int
    ms: float  # milliseconds for views, towers and tuning: this image's share of its batch
    skipped: bool = False  # by a gate, so not adapted

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `skipped` only if it is true."""
        data = asdict(self)
        if not self.skipped:
            del data["skipped"]
        return data


@dataclass(frozen=True)
class Failure:
    """Why an image has no prediction."""

    type: str
    message: str


@dataclass(frozen=True)
class Record:
    """One image's outcome: predictions, most probable first, or an error."""

    path: str | None  # None for an image without a name, which `index` identifies
    index: int  # place in the stream, from 0
    predictions: tuple[Prediction, ...] = ()
    zero_shot: Prediction | None = None  # by the untuned prompt, on the plain view
    adapt: Adaptation | None = None  # None for methods that do not adapt
    error: Failure | None = None
    warning: str | None = None  # what was assumed about the picture, in sentences
    time: float | None = None  # of a film's frame: seconds from the beginning
    frame: int | None = None  # its number, from 0
    shot: int | None = None  # the number of its shot, from 0
    rejected: bool = False  # none of the classes, by a threshold or an "other" class

    def to_dict(self) -> dict[str, Any]:
        """Plain data: {"path", "predictions", "zero_shot", "adapt"}, or {"path", "error"}.

        "warning" is there only if something was assumed, "rejected" only if it is true.
        """
        head: dict[str, Any] = {"path": self.path}
        if self.path is None:
            head["index"] = self.index
        if self.frame is not None:
            head |= {"time": self.time, "frame": self.frame, "shot": self.shot}
        if self.error is not None:
            return {**head, "error": asdict(self.error)}
        body: dict[str, Any] = {"predictions": [p.to_dict() for p in self.predictions]}
        if self.rejected:
            body["rejected"] = True
        if self.zero_shot is not None:
            body["zero_shot"] = self.zero_shot.to_dict()
        if self.adapt is not None:
            body["adapt"] = self.adapt.to_dict()
        if self.warning is not None:
            body["warning"] = self.warning
        rounded: dict[str, Any] = _rounded(body)
        return head | rounded

    def to_json(self) -> str:
        """The record as one line of JSON (`to_line`)."""
        return to_line(self.to_dict())


def to_line(data: dict[str, Any]) -> str:
    """A record's plain data as one line of JSON; file names that are not UTF-8 are escaped."""
    text = json.dumps(data, ensure_ascii=False)
    return text if is_utf8(text) else json.dumps(data)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, PLACES)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def csv_header(top_k: int) -> list[str]:
    """Column names of the CSV format: the first prediction plain, the others numbered."""
    ranked = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", "score")]
    return [
        *("path", "label", "score", "index", *ranked),
        *("zero_shot_label", "zero_shot_score", "entropy_before", "entropy_after"),
        *("views_kept", "ms", "votes", "skipped", "rejected"),
        *("error_type", "error_message", "warning", "time", "frame", "shot"),
    ]


def csv_cells(data: dict[str, Any], top_k: int) -> Iterator[Any]:
    """A record's plain data as a row under `csv_header`; cells that do not apply are empty."""
    yield data["path"] if data["path"] is not None else f"#{data['index']}"
    ranked = data.get("predictions", [])
    first = ranked[0] if ranked else {}
    yield from (first.get(key, "") for key in ("label", "score", "index"))
    for rank in range(1, top_k):
        other = ranked[rank] if rank < len(ranked) else {}
        yield from (other.get(key, "") for key in ("label", "score"))
    yield from (data.get("zero_shot", {}).get(key, "") for key in ("label", "score"))
    adapt = data.get("adapt", {})
    measured = ("entropy_before", "entropy_after", "views_kept", "ms")
    yield from ("" if adapt.get(key) is None else adapt[key] for key in measured)
    yield first.get("votes", "")
    yield adapt.get("skipped", "")
    yield data.get("rejected", "")
    yield from (data.get("error", {}).get(key, "") for key in ("type", "message"))
    yield data.get("warning", "")
    yield from (data.get(key, "") for key in ("time", "frame", "shot"))


def csv_line(cells: Iterable[Any]) -> str:
    """A row of CSV, without its line end."""
    text = io.StringIO()
    # The writer quotes the characters of its line end, so both \r and \n have to be in it.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")
