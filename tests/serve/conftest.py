"""A service on loopback, in a thread of this process, and what its tests share."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tpt.serve import _worker
from tpt.serve.server import listen, make_server, name_address
from tpt.serve.service import Service
from tpt.serve.settings import ServeSettings
from tpt.streaming.predict_job import PredictSettings

ANIMALS = ("cat", "dog", "red fox")


@dataclass(eq=False)
class Running:
    """A service that runs."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop
    lines: list[Mapping[str, Any]] = field(default_factory=list)  # of its log

    def client(self, **settings: Any) -> httpx.Client:
        # Without certificates, whose reading takes longer than an answer.
        known = {"base_url": self.url, "timeout": 20, "trust_env": False, "verify": False}
        return httpx.Client(**(known | settings))

    def get(self, path: str, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path, headers=headers)

    def predict(self, *pictures: bytes, **fields: Any) -> httpx.Response:
        """POST /v1/predict with pictures called 0.png, 1.png ...; lists become JSON."""
        files = [("images", (f"{n}.png", data)) for n, data in enumerate(pictures)]
        data = {k: json.dumps(v) if isinstance(v, list) else v for k, v in fields.items()}
        with self.client() as client:
            return client.post("/v1/predict", files=files, data=data)

    def do(self, action: Callable[[], Any]) -> Any:
        """What `action` returns in the service's thread, a coroutine awaited."""

        async def act() -> Any:
            found = action()
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(20)


@contextmanager
def run_service(wanted: PredictSettings, settings: ServeSettings) -> Iterator[Running]:
    """A service, ready; it drains at the end."""
    started, made = threading.Event(), []

    async def main() -> None:
        service, lines = Service(settings), []
        service.open(service.load(wanted))
        server = make_server(service, lines.append)
        sock = listen("127.0.0.1", 0)
        running = Running(name_address(sock), service, asyncio.get_running_loop(), lines)
        made.append((running, server))
        serving = asyncio.ensure_future(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.001)
        started.set()
        await serving
        service.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(20)
    running, server = made[0]
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


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


@dataclass(eq=False)
class Gate:
    """Holds every batch back until it is opened."""

    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    opened: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)

    def open(self) -> None:
        self.opened.set()

    def wait(self) -> None:
        """Until a batch is at work."""
        assert self.reached.acquire(timeout=20)


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
