"""Average a film's predictions over the last frames, so that labels do not flicker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tpt.streaming.records import Prediction, Record


def smooth(records: Iterable[Record], window: int, top_k: int) -> Iterator[Record]:
    """Records whose scores are the mean over the last `window` frames of their shot.

    Args:
        records: with the scores of all classes; votes and errors stay as they are.
        window: how many frames, including the current one.
        top_k: predictions to keep in each record.
    """
    past: deque[dict[int, Prediction]] = deque(maxlen=window)
    shot: object = None
    for record in records:
        if record.shot != shot:
            past.clear()
            shot = record.shot
        if not record.predictions or record.predictions[0].score is None:
            yield replace(record, predictions=record.predictions[:top_k])
            continue
        past.append({each.index: each for each in record.predictions})
        mean = [
            replace(each, score=sum(one[index].score or 0.0 for one in past) / len(past))
            for index, each in past[-1].items()
        ]
        mean.sort(key=lambda each: (-(each.score or 0.0), each.index))
        yield replace(record, predictions=tuple(mean[:top_k]))
