"""Records as Label Studio tasks with predictions, to correct them by hand.

The labelling interface must have these two names:

    <View>
      <Image name="image" value="$image"/>
      <Choices name="choice" toName="image">...</Choices>
    </View>

Label Studio serves pictures on the disk itself ("local files") under `/data/local-files/?d=...`.
Pictures at an address keep it. The file format: https://labelstud.io/guide/predictions
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from tpt.streaming.exports.json_parts import join_entries, name_of
from tpt.text import is_url


def export(records: Iterable[dict[str, Any]], about: dict[str, Any]) -> Iterator[str]:
    """The text of a tasks file, in parts; pictures without a prediction are tasks without one."""
    version = str(about.get("settings", {}).get("model", "tpt"))
    tasks = (json.dumps(_make_task(record, version)) for record in records)
    return join_entries("[", tasks, "\n]\n")


def _make_task(record: dict[str, Any], version: str) -> dict[str, Any]:
    name = name_of(record)
    local = f"/data/local-files/?d={quote(os.path.abspath(name).lstrip(os.sep))}"
    task: dict[str, Any] = {"data": {"image": name if is_url(name) else local, "path": name}}
    if record.get("predictions"):
        first = record["predictions"][0]
        choice = {"from_name": "choice", "to_name": "image", "type": "choices"}
        result = {**choice, "value": {"choices": [first["label"]]}}
        prediction = {"model_version": version, "score": first.get("score"), "result": [result]}
        task["predictions"] = [{key: v for key, v in prediction.items() if v is not None}]
    return task
