"""Records as a FiftyOne classification data set: `labels.json`, and where the pictures are.

    import fiftyone
    fiftyone.Dataset.from_dir("DIR", dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)

`data.json` maps each sample to its picture's path; pictures are not copied. Pictures with an error
are left out. Those inside archives and tables have no file that FiftyOne could show.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tpt.streaming.exports.json_parts import name_of
from tpt.text import is_url


def export_labels(records: Iterable[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """The text of `labels.json`, in parts."""
    return _dump('{"classes": null, "labels": {', "}}\n", records, _label)


def export_places(records: Iterable[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """The text of `data.json`, in parts."""
    return _dump("{", "}\n", records, lambda record: _locate(name_of(record)))


FILES = {"labels.json": export_labels, "data.json": export_places}


def _label(record: dict[str, Any]) -> dict[str, Any]:
    first = record["predictions"][0]
    return {"label": first["label"], "confidence": first.get("score")}


def _locate(name: str) -> str:
    return name if is_url(name) else os.path.abspath(name)


def _dump(
    head: str,
    tail: str,
    records: Iterable[dict[str, Any]],
    make: Callable[[dict[str, Any]], Any],
) -> Iterator[str]:
    yield head
    good = (record for record in records if record.get("predictions"))
    for number, record in enumerate(good):
        yield (",\n" if number else "\n") + f'"{number:09}": {json.dumps(make(record))}'
    yield tail
