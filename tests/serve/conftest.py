"""What the service's tests share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_service import ANIMALS, Gate, Running, run_service

from tpt.serve import _worker
from tpt.serve.settings import ServeSettings
from tpt.streaming.predict_settings import PredictSettings


@pytest.fixture(scope="module")
def serving(tiny_folder: Path) -> Iterator[Running]:
    """A service with the model that knows nothing."""
    wanted = PredictSettings(classes=ANIMALS, model="tiny", views=8, keep=0.5, device="cpu")
    with run_service(wanted, ServeSettings(max_body=400_000, max_pixels=1_000_000)) as running:
        yield running


@pytest.fixture
def start(tiny_folder: Path) -> Iterator[Callable[..., Running]]:
    """Start a service with settings of its own."""
    with ExitStack() as stack:

        def begin(wanted: Mapping[str, Any] | None = None, **settings: Any) -> Running:
            own = {"classes": ANIMALS, "model": "tiny", "views": 4, "keep": 0.5, "device": "cpu"}
            found = PredictSettings(**(own | dict(wanted or {})))
            return stack.enter_context(run_service(found, ServeSettings(**settings)))

        yield begin


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before every batch."""
    held, predict = Gate(), _worker.predict_mixed

    def wait(batch: Any) -> Any:
        held.batches.append(len(batch))
        held.reached.release()
        assert held.opened.wait(20)
        return predict(batch)

    monkeypatch.setattr(_worker, "predict_mixed", wait)
    yield held
    held.open()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], bytes]:
    """The bytes of a small PNG, another one by number."""
    folder = tmp_path_factory.mktemp("pictures")

    def make(number: int = 0) -> bytes:
        path = folder / f"{number}.png"
        if not path.exists():
            pixels = np.random.RandomState(number).randint(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return path.read_bytes()

    return make


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait, at most ten seconds, until something holds."""

    def wait(holds: Callable[[], bool]) -> None:
        event = threading.Event()
        for _ in range(1000):
            if holds():
                return
            event.wait(0.01)
        pytest.fail("it never came to hold")

    return wait
