"""Records in the forms of other programs, in parts of text.

A FiftyOne classification data set is `labels.json`, and `data.json`, which maps each sample to its
picture's path; pictures are not copied. Pictures with an error are left out. Those inside archives
and tables have no file that FiftyOne could show.

    import fiftyone
    fiftyone.Dataset.from_dir("DIR", dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)

Label Studio's tasks have predictions, to correct them by hand. The labelling interface must have
these two names:

    <View><Image name="image" value="$image"/><Choices name="choice" toName="image">...</Choices></View>

Pictures on the disk are served by Label Studio itself ("local files"), which is what the address
`/data/local-files/?d=...` asks for; addresses stay as they are. Its file format:
https://labelstud.io/guide/predictions
"""  # noqa: E501

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from tpt.text import as_text, is_url

Records = Iterable[dict[str, Any]]


def fiftyone_labels(records: Records) -> Iterator[str]:
    """The text of `labels.json`."""

    def label(record: dict[str, Any]) -> dict[str, Any]:
        first = record["predictions"][0]
        return {"label": first["label"], "confidence": first.get("score")}

    return _dump('{"classes": null, "labels": {', _name_samples(records, label), "}}\n")


def fiftyone_places(records: Records) -> Iterator[str]:
    """The text of `data.json`."""

    def locate(record: dict[str, Any]) -> str:
        name = _name_of(record)
        return name if is_url(name) else os.path.abspath(name)

    return _dump("{", _name_samples(records, locate), "}\n")


FIFTYONE = {"labels.json": fiftyone_labels, "data.json": fiftyone_places}


def label_studio(records: Records, about: dict[str, Any]) -> Iterator[str]:
    """The text of a tasks file; pictures without a prediction are tasks without one."""
    version = str(about.get("settings", {}).get("model", "tpt"))
    return _dump("[", (json.dumps(_make_task(record, version)) for record in records), "\n]\n")


def _make_task(record: dict[str, Any], version: str) -> dict[str, Any]:
    name = _name_of(record)
    local = f"/data/local-files/?d={quote(os.path.abspath(name).lstrip(os.sep))}"
    task: dict[str, Any] = {"data": {"image": name if is_url(name) else local, "path": name}}
    if record.get("predictions"):
        first = record["predictions"][0]
        choice = {"from_name": "choice", "to_name": "image", "type": "choices"}
        result = {**choice, "value": {"choices": [first["label"]]}}
        said = {"model_version": version, "score": first.get("score"), "result": [result]}
        task["predictions"] = [{key: v for key, v in said.items() if v is not None}]
    return task


def _name_of(record: dict[str, Any]) -> str:
    """What a record's picture is called, as UTF-8 can hold it."""
    return as_text(record["path"]) if record["path"] is not None else f"#{record['index']}"


def _name_samples(records: Records, make: Callable[[dict[str, Any]], Any]) -> Iterator[str]:
    good = (record for record in records if record.get("predictions"))
    for number, record in enumerate(good):
        yield f'"{number:09}": {json.dumps(make(record))}'


def _dump(head: str, entries: Iterable[str], tail: str) -> Iterator[str]:
    """A large JSON text, entry by entry."""
    yield head
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + entry
    yield tail
