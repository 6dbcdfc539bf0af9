"""Wrap every request: its id, who may call, the answer to an error, a line in the log.

A line of the log is a JSON object. It holds neither pictures nor their names.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tpt.errors import TptError, describe_error, suggest
from tpt.serve._hosts import is_known
from tpt.serve.errors import (
    GoneError,
    HostError,
    OriginError,
    RequestError,
    RouteError,
    TokenError,
    find_status,
)
from tpt.serve.service import Service

Log: TypeAlias = Callable[[Mapping[str, Any]], None]

PUBLIC = ("/", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: the page is static, and a process monitor has no token."""

CLIENT_GONE = 499  # nginx's status; only the log and the metrics show it
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_LINGER = 2.0  # seconds to read the rest of a refused body, so that the client reads the answer
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def write_line(entry: Mapping[str, Any]) -> None:
    """One line of the log, on stderr."""
    print(json.dumps(entry), file=sys.stderr, flush=True)


class Guard:
    """Middleware around the service's routes.

    Args:
        app: the routes.
        service: its settings say who may call; its metrics count requests.
        routes: the existing paths.
        log: called with each line.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: tuple[str, ...], log: Log) -> None:
        self.app, self.service, self.routes, self.log = app, service, routes, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = _Call(scope, receive, send)
        try:
            self._check(call.headers, scope)
            await self.app(scope, call.receive, call.send)
        except Exception as error:
            await self._answer(call, error)
        finally:
            self._record(call)

    def _check(self, headers: Headers, scope: Scope) -> None:
        """Refuse a request by its host, origin or token.

        Raises:
            HostError, OriginError, TokenError.
        """
        settings = self.service.settings
        host = headers.get("host")  # which every browser sends
        if host and settings.hosts is not None and not is_known(host, settings.hosts):
            raise HostError(
                f'This service does not answer as "{host:.100}". Call it by its own address; if '
                "this is one of its names, start it with --allow-host and the name."
            )
        origin = headers.get("origin")
        own = origin is not None and urlsplit(origin).netloc == headers.get("host")
        if origin is not None and not own and origin not in settings.origins:
            raise OriginError(
                f'Pages of "{origin:.100}" may not call this service. Start it with '
                "--allow-origin, or call from its own page."
            )
        if settings.token is None or scope["path"] in PUBLIC:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode("utf-8", "replace"), settings.token.encode()
        ):
            raise TokenError(
                "The token is missing or wrong. Send the header Authorization: Bearer TOKEN, with "
                "the token of the service's --token-file."
            )

    async def _answer(self, call: _Call, error: Exception) -> None:
        """Answer an error; a traceback goes to the log only."""
        if isinstance(error, GoneError):
            call.status = CLIENT_GONE
            return
        if isinstance(error, HTTPException):
            error = self._name_route(call.scope, error)
        if isinstance(error, TptError):
            status, kind, message = find_status(error), type(error).__name__, str(error)
            call.notes["error"] = kind
        else:
            status, kind = 500, "InternalError"
            message = "The service failed at this request. Its log has the details under this id."
            call.notes["traceback"] = "".join(traceback.format_exception(error))
            call.notes["error"] = describe_error(error)
        if call.status is not None:  # the answer has begun
            return
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
        if isinstance(error, RequestError) and error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        await call.linger(2 * self.service.settings.max_body)
        body = {"error": {"type": kind, "message": message}}
        await JSONResponse(body, status, headers)(call.scope, call.receive, call.send)

    def _name_route(self, scope: Scope, error: HTTPException) -> RouteError:
        path = scope["path"]
        if error.status_code == 405:
            return RouteError(
                f"{path} does not take {scope['method']}. /openapi.json lists the calls.", 405
            )
        return RouteError(
            f'There is nothing at "{path:.100}".{suggest(path, self.routes)} /openapi.json lists '
            "the calls.",
            error.status_code,
        )

    def _record(self, call: _Call) -> None:
        """Count and time the request, and log its line."""
        seconds = time.perf_counter() - call.started
        path = call.scope["path"]
        route = path if path in self.routes else "other"
        status = call.status if call.status is not None else CLIENT_GONE
        self.service.metrics.requests.labels(route, str(status)).inc()
        self.service.metrics.duration.labels(route).observe(seconds)
        client = call.scope.get("client")
        self.log(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "id": call.id,
                "client": client[0] if client else None,
                "method": call.scope["method"],
                "path": path[:200],
                "status": status,
                "ms": round(seconds * 1e3, 1),
                "bytes": call.size,
                **call.scope["state"].get("notes", {}),
                **call.notes,
            }
        )


class _Call:
    """The state of one request: what was received and sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.started = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self.size = 0  # bytes of the body that were read
        self.status: int | None = None
        self.notes: dict[str, Any] = {}
        self._more = True
        scope.setdefault("state", {})

    async def receive(self) -> Message:
        message = await self._receive()
        self.size += len(message.get("body", b""))
        self._more = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            length = self.headers.get("content-length", "0")
            if self._more and ("transfer-encoding" in self.headers or length != "0"):
                headers["connection"] = "close"  # else the rest of the body would be read
        await self._send(message)

    async def linger(self, most: int) -> None:
        """Read and drop some more of the body: a client that still sends would miss the answer.

        A client that asked before sending (Expect: 100-continue) waits for the answer.
        """
        if self.headers.get("expect", "").lower() == "100-continue" and not self.size:
            return
        until = time.perf_counter() + _LINGER
        while self._more and self.size < most and (left := until - time.perf_counter()) > 0:
            try:
                await asyncio.wait_for(self.receive(), left)
            except asyncio.TimeoutError:
                return
