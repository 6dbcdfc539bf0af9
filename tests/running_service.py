"""A service on loopback, in a thread of this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tpt.serve.server import listen, make_server, name_address
from tpt.serve.service import Service
from tpt.serve.settings import ServeSettings
from tpt.streaming.predict_settings import PredictSettings

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
