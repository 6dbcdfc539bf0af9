"""A gallery and changed answers that go with `sample_results()`, for the tests of the page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from tpt.evaluate.confusions import Change, Confusion
from tpt.evaluate.gallery import Answer, GalleryItem


def with_pictures(
    results: dict[str, Any], gallery: Sequence[GalleryItem], confusions: Sequence[Confusion]
) -> dict[str, Any]:
    """Results as they are read back from results.json, with a gallery and changed answers."""
    more = {"gallery": [*map(asdict, gallery)], "confusions": [*map(asdict, confusions)]}
    return json.loads(json.dumps({**results, **more}))


def sample_gallery() -> list[GalleryItem]:
    """Five pictures of two sets and two methods, three put right and two put wrong."""
    return [
        _item("pacs/sketch", "tpt", "dog/1.png", "right"),
        _item("pacs/sketch", "tpt", "dog/2.png", "wrong"),
        _item("pacs/sketch", "zero", "dog/3.png", "right"),
        _item("pacs/photo", "tpt", "dog/4.png", "wrong"),
        _item("pacs/photo", "zero", "dog/5.png", "right"),
    ]


def _item(dataset: str, method: str, key: str, kind: str) -> GalleryItem:
    votes = method == "zero"
    was, now = ("horse", "dog") if kind == "right" else ("dog", "horse")
    return GalleryItem(
        dataset=dataset,
        method=method,
        key=key,
        kind="right" if kind == "right" else "wrong",
        label="dog",
        before=(Answer(was, 0.512), Answer(now, 0.3), Answer("house", 0.188)),
        after=(Answer(now, None if votes else 0.634), Answer(was, None if votes else 0.2)),
        entropy=(1.013, None if votes else 0.931),
        kept=((17, 0.104), (3, 0.251)),
        picture=_jpeg((200, 90, 40)),
        kept_pictures=(_jpeg((90, 120, 200)), _jpeg((60, 160, 90))),
    )


def _jpeg(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def sample_confusions() -> list[Confusion]:
    """Twelve kinds of changes, of which the page shows ten."""
    changes = [Change("dog", "horse", "dog", 20), Change("horse", "horse", "dog", 9)]
    changes += [Change("house", "dog", "person", 8), Change("person", "dog", "person", 7)]
    changes += [Change(f"class {i}", "dog", "horse", 1) for i in range(8)]
    return [Confusion("pacs/sketch", "tpt", tuple(changes))]
