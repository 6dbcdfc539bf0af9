"""What the page shows beside a record: the zero-shot answers, and the kept views as thumbnails."""

from __future__ import annotations

from typing import Any

from tpt.evaluate.gallery import encode_thumbnail, redraw_views
from tpt.images.decode import Picture
from tpt.methods.base import Adapted
from tpt.streaming.batches import rank
from tpt.streaming.predict_job import PredictJob
from tpt.streaming.records import PLACES

_SHOWN = 12  # kept views that are drawn, the most confident first
_SIDE = 96  # pixels
_PLAIN_SIDE = 320


def describe_details(picture: Picture, out: Adapted, job: PredictJob, top_k: int) -> dict[str, Any]:
    """Plain data for JSON.

    Returns:
        "picture": the decoded picture as a JPEG in base64; "zero_shot": the untuned prompt's
        answers on the plain view; "views": their number; "kept": index, entropy in nats and JPEG in
        base64 of at most 12 kept views, the most confident first.
    """
    classes = job.engine.classes
    selected = out.selected.tolist() if job.method.reads_views else []
    shown = selected[:_SHOWN]
    drawn = redraw_views(picture, shown, job.views)
    entropies = [round(float(out.view_entropy[place]), PLACES) for place in shown]
    before = [prediction.to_dict() for prediction in rank(out.initial_logits, classes, top_k)]
    return {
        "picture": encode_thumbnail(picture.pixels, _PLAIN_SIDE),
        "zero_shot": [one | {"score": round(one["score"], PLACES)} for one in before],
        "views": job.views.n if job.method.reads_views else 1,
        "kept": [
            {"view": place, "entropy": entropy, "picture": encode_thumbnail(pixels, _SIDE)}
            for place, entropy, pixels in zip(shown, entropies, drawn, strict=True)
        ],
    }
