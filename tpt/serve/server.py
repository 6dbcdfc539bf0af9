"""Run the service: the socket, uvicorn, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tpt.errors import ServeError, describe_error
from tpt.serve._guard import Log, write_line
from tpt.serve._threads import run_in_thread
from tpt.serve.app import build_app
from tpt.serve.service import Service
from tpt.serve.settings import ServeSettings
from tpt.streaming.predict_settings import PredictSettings

_AnyProtocol: Any = AutoHTTPProtocol  # httptools' or h11's
_FAREWELL = 10  # seconds to send the last answers, at the end
_HEAD_S = 20.0  # seconds for the head of a connection's first request


def serve(
    wanted: PredictSettings,
    settings: ServeSettings,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    say: Callable[[str], None] = lambda text: None,
    log: Log = write_line,
) -> None:
    """Run a service until SIGTERM or Ctrl-C; then all that was accepted is answered.

    Args:
        wanted: the settings of the prediction.
        settings: of the service.
        host: the address to listen on.
        port: 0 for any that is free.
        say: called with messages for a person: where it listens, that it is ready, that it ends.
        log: called with each line of the access log.

    Raises:
        ServeError: the address cannot be listened on.
        TptError: as `load_base`.
    """
    with contextlib.closing(listen(host, port)) as sock, _log_of_uvicorn(log):
        asyncio.run(_serve(wanted, settings, sock, say, log))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ServeError: the address cannot be listened on.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ServeError(
            f"{host}:{port} cannot be listened on ({describe_error(error)}). Choose another --port "
            "or --host, or end the program that listens there."
        ) from error


def name_address(sock: socket.socket) -> str:
    """'http://127.0.0.1:8000'."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _serve(
    wanted: PredictSettings,
    settings: ServeSettings,
    sock: socket.socket,
    say: Callable[[str], None],
    log: Log,
) -> None:
    service = Service(settings)
    server = make_server(service, log)
    failures: list[BaseException] = []
    say(f"Listening on {name_address(sock)} (Ctrl-C ends it). Loading the model ...")

    async def load() -> None:
        try:
            base = await run_in_thread(partial(service.load, wanted))
            service.open(base)
            say(f"Ready: {base.clip.name} on {base.clip.device}, method {wanted.method}.")
        except BaseException as error:
            failures.append(error)
            server.should_exit = True

    async def end() -> None:
        say(f"Ending: {service.taken} accepted pictures are answered first.")
        await service.drain()
        server.should_exit = True

    tasks = [asyncio.ensure_future(load())]

    def stop() -> None:
        if service.state == "draining":  # asked twice
            server.force_exit = server.should_exit = True
        else:
            service.state = "draining"
            tasks.append(asyncio.ensure_future(end()))

    with _signals(stop):
        await server.serve(sockets=[sock])
    service.close()
    if failures:
        raise failures[0]


def make_server(service: Service, log: Log = write_line) -> uvicorn.Server:
    """uvicorn for a service; `serve(sockets=[listen(host, port)])` runs it."""
    config = uvicorn.Config(
        build_app(service, log),
        http=_Protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would stop listening at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    for kind in kinds:
        try:
            loop.add_signal_handler(kind, stop)
        except NotImplementedError:  # Windows
            signal.signal(kind, lambda number, frame: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for kind, handler in before.items():
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(kind)
            signal.signal(kind, handler)


class _Protocol(_AnyProtocol):  # type: ignore[misc]
    """uvicorn's protocol, which closes a connection whose first head does not come in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._head = loop.call_later(_HEAD_S, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._head.cancel()
        super().connection_lost(error)


@contextlib.contextmanager
def _log_of_uvicorn(log: Log) -> Iterator[None]:
    """Write uvicorn's warnings as lines of the same log."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log({"level": record.levelname.lower(), "message": record.getMessage()})

    ours, handler = logging.getLogger("uvicorn"), Lines(logging.WARNING)
    ours.addHandler(handler)
    before, ours.propagate = ours.propagate, False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = before
