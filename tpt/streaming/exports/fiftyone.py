"""Records as a FiftyOne classification data set: `labels.json` and `data.json`.

    import fiftyone
    fiftyone.Dataset.from_dir("DIR", dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)

`data.json` maps each sample to its picture's path; pictures are not copied. Pictures with an error
are left out. FiftyOne cannot show pictures inside archives and tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tpt.streaming.exports.json_parts import join_entries, name_of
from tpt.text import is_url


def export_labels(records: Iterable[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """The text of `labels.json`, in parts."""
    return join_entries('{"classes": null, "labels": {', _number(_label, records), "}}\n")


def export_places(records: Iterable[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """The text of `data.json`, in parts."""
    return join_entries("{", _number(_locate, records), "}\n")


FILES = {"labels.json": export_labels, "data.json": export_places}


def _label(record: dict[str, Any]) -> dict[str, Any]:
    first = record["predictions"][0]
    return {"label": first["label"], "confidence": first.get("score")}


def _locate(record: dict[str, Any]) -> str:
    name = name_of(record)
    return name if is_url(name) else os.path.abspath(name)


def _number(
    make: Callable[[dict[str, Any]], Any], records: Iterable[dict[str, Any]]
) -> Iterator[str]:
    """Entries of a JSON object: what `make` gives of every sample, under the sample's number."""
    samples = (record for record in records if record.get("predictions"))
    return (f'"{number:09}": {json.dumps(make(each))}' for number, each in enumerate(samples))
