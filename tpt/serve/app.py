"""The routes of the service, on FastAPI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from tpt._version import __version__
from tpt.serve import _schema as schema
from tpt.serve._body import read_form, read_json_body
from tpt.serve._guard import Guard, Log, write_line
from tpt.serve._jobs import list_servable
from tpt.serve._parameters import Parameters, read_fields, read_task
from tpt.serve._render import render_page
from tpt.serve.errors import (
    GoneError,
    LateError,
    NotImageError,
    PredictionError,
    RequestError,
    TooLargeError,
)
from tpt.serve.service import Answer, Service
from tpt.serve.settings import Upload
from tpt.streaming.predict_job import describe_environment
from tpt.streaming.predict_settings import DEFAULT_VIEWS
from tpt.streaming.records import PLACES, Failure, Prediction
from tpt.text import is_utf8

T = TypeVar("T")
PREDICT = "/v1/predict"
TASK = "/v1/zero-shot-image-classification"


def build_app(service: Service, log: Log = write_line) -> FastAPI:
    """The ASGI application of a service, which may still be loading.

    Args:
        log: called with each line of the access log.
    """
    app = FastAPI(title="tpt serve", version=__version__, docs_url=None, redoc_url=None)
    origins = service.settings.origins
    html, policy = render_page()

    @app.post(PREDICT, openapi_extra=schema.PREDICT, summary="Classify pictures")
    async def predict(request: Request) -> Response:
        answers = await _answer_form(request, service)
        records = [
            one.record.to_dict() | ({"details": one.details} if one.details else {})
            for one in answers
        ]
        return _respond({"records": records})

    @app.post(TASK, openapi_extra=schema.TASK, summary="Hugging Face's task of this name")
    async def classify(request: Request) -> Response:
        answer = await _answer_task(request, service)
        return _respond([_to_label(one, answer) for one in answer.record.predictions])

    @app.get("/v1/model", summary="The model, its classes, methods and limits")
    async def model() -> Response:
        service.check_loaded()
        return _respond(describe_model(service))

    @app.get("/v2/health/live", summary="Whether the process runs")
    async def live() -> Response:
        return _respond({"live": True})

    @app.get("/v2/health/ready", summary="Whether it takes work")
    async def ready() -> Response:
        is_ready = service.state == "ready"
        return _respond({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(html, media_type="text/html", headers={"content-security-policy": policy})

    @app.exception_handler(HTTPException)
    async def pass_on(request: Request, error: HTTPException) -> Response:
        raise error  # the guard answers

    routes = tuple(path for route in app.routes if (path := getattr(route, "path", None)))
    app.add_middleware(Guard, service=service, routes=routes, log=log)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["retry-after", "x-request-id"],
        )
    return app


# --- requests ---


async def _answer_form(request: Request, service: Service) -> list[Answer]:
    limits = service.settings
    service.check_open()
    with service.hold() as hold:
        reading = read_form(request, limits.max_body, limits.queue, hold)
        uploads, fields = await _in_time(request, service, reading, stage="read")
        parameters = read_fields(fields, limits.max_classes)
        return await _predict(request, service, uploads, parameters)


async def _answer_task(request: Request, service: Service) -> Answer:
    limits = service.settings
    service.check_open()
    with service.hold() as hold:
        reading = read_json_body(request, limits.max_body, hold)
        body = await _in_time(request, service, reading, stage="read")
        upload, asked = read_task(body, limits.max_classes)
        del body
        parameters = Parameters(asked, limits.max_classes, False)
        return (await _predict(request, service, [upload], parameters))[0]


async def _predict(
    request: Request, service: Service, uploads: list[Upload], parameters: Parameters
) -> list[Answer]:
    request.state.notes = {"images": len(uploads)}
    with service.accept(len(uploads)):
        work = service.predict(uploads, parameters.asked, parameters.top_k, parameters.details)
        answers: list[Answer] = await _in_time(request, service, work)
    failed = [answer.record.error for answer in answers if answer.record.error is not None]
    request.state.notes["failed"] = len(failed)
    if len(answers) == 1 and failed:
        raise _refuse(failed[0])
    return answers


async def _in_time(
    request: Request, service: Service, work: Coroutine[Any, Any, T], stage: str | None = None
) -> T:
    """What `work` returns, if the client still waits and there is time.

    Raises:
        LateError: `timeout_s` have passed since the request's head.
        GoneError: the client went away; the work is dropped.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    if not hasattr(request.state, "until"):
        request.state.until = started + service.settings.timeout_s
    task = asyncio.ensure_future(work)
    # While the body is read, its reader notices that the client is gone.
    gone = asyncio.ensure_future(_wait_gone(request)) if stage is None else None
    waiting = {task} if gone is None else {task, gone}
    try:
        left = request.state.until - started
        done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if done:
            raise GoneError
        what = "The body had not arrived" if stage else "The answer was not ready"
        raise LateError(
            f"{what} within {service.settings.timeout_s:g} s. Send fewer pictures or class names "
            "at a time, or try again when the service is less busy."
        )
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if stage is not None:
            service.metrics.observe(stage, loop.time() - started)


async def _wait_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refuse(error: Failure) -> RequestError:
    """The error of a request whose only picture has no prediction."""
    kinds: dict[str, type[RequestError]] = {
        "LargeImageError": TooLargeError,
        "TimeoutError": LateError,
    }
    other = NotImageError if error.type.endswith("ImageError") else PredictionError
    return kinds.get(error.type, other)(error.message)


# --- answers ---


def _respond(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    text = text if is_utf8(text) else json.dumps(content)
    return Response(text.encode(), status, media_type="application/json")


def _to_label(one: Prediction, answer: Answer) -> dict[str, Any]:
    """Hugging Face's element; the score of a method that votes is the share of the votes."""
    if one.score is not None:
        return {"label": one.label, "score": round(one.score, PLACES)}
    total = sum(other.votes or 0 for other in answer.record.predictions)
    return {"label": one.label, "score": round((one.votes or 0) / max(1, total), PLACES)}


def describe_model(service: Service) -> dict[str, Any]:
    """The answer of `GET /v1/model`."""
    base, limits = service.base, asdict(service.settings)
    own = base.wanted
    return {
        "model": base.clip.name,
        "pretrained": base.clip.pretrained,
        "weights": base.clip.digest,
        "version": __version__,
        "precision": base.clip.precision,
        **describe_environment(base.clip),
        "seed": own.seed,
        "classes": None if base.classes is None else list(base.classes),
        "start": {
            "learned": own.init is not None,
            "words": base.context.info.words if base.context is not None else None,
            "templates": list(own.templates),
        },
        "method": own.method,
        "views": own.views or DEFAULT_VIEWS,
        "methods": [
            {
                "name": info.name,
                "title": info.title,
                "summary": info.summary,
                "takes_templates": info.takes_templates,
            }
            for info in list_servable()
        ],
        "limits": {key: limits[key] for key in limits if key not in ("token", "origins")},
    }
