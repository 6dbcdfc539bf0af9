"""Ten times as many clients as the queue holds: every request is answered, none wrongly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tpt.serve import _worker

CLIENTS, TURNS, QUEUE = 40, 4, 4


def test_an_overloaded_service_answers_or_refuses_and_loses_nothing(
    start: Any, picture: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    running, predict = start(queue=QUEUE), _worker.predict_mixed
    pictures = [picture(number) for number in range(5)]
    right = [running.predict(data).json()["records"][0]["predictions"] for data in pictures]

    def slowly(batch: Any) -> Any:
        time.sleep(0.01)
        return predict(batch)

    monkeypatch.setattr(_worker, "predict_mixed", slowly)

    def send(client_number: int) -> Counter[str]:
        told: Counter[str] = Counter()
        with running.client() as client:
            for turn in range(TURNS):
                place = (client_number + turn) % len(pictures)
                files = {"images": ("0.png", pictures[place])}
                answer = client.post("/v1/predict", files=files)
                told[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    told["right"] += answer.json()["records"][0]["predictions"] == right[place]
                else:
                    told["told when"] += int(answer.headers["retry-after"]) >= 1
        return told

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = sum(pool.map(send, range(CLIENTS)), Counter())
    assert told["200"] + told["429"] == CLIENTS * TURNS
    assert told["right"] == told["200"] > 0
    assert told["told when"] == told["429"] > 0
    wait_until(lambda: running.service.taken == 0 and running.service.held == 0)
