"""Read a request's body, within its limits."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tpt.serve._multipart import Form
from tpt.serve.errors import GoneError, ParameterError, TooLargeError
from tpt.serve.settings import Upload


async def read_chunks(
    request: Request, most: int, hold: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    """The body, chunk by chunk.

    Args:
        most: bytes of the body.
        hold: counts bytes of all requests, as `Service.hold` gives it.

    Raises:
        TooLargeError: at the first byte over the limit, or at once if the declared length is.
        BusyError: all requests together hold too much.
        GoneError: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(most)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise _too_large(most)
            hold(len(chunk))
            yield chunk
    except ClientDisconnect as error:
        raise GoneError from error


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {most:,} bytes, the limit. Send fewer or smaller pictures."
    )


async def read_form(
    request: Request, most: int, most_files: int, hold: Callable[[int], None]
) -> tuple[list[Upload], dict[str, list[str]]]:
    """The files called `images`, and the other fields by name.

    Raises:
        ParameterError: not a multipart form, or a file of another name.
        TooLargeError: too many files.
        TooLargeError, BusyError, GoneError: as `read_chunks`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ParameterError(
            f'The body is of type "{kind or "nothing"}"; expected multipart/form-data with one or '
            "more files called images: curl -F images=@cat.jpg."
        )
    form = Form(request.headers["content-type"], most_files)
    async for chunk in read_chunks(request, most, hold):
        form.write(chunk)
    uploads: list[Upload] = []
    fields: dict[str, list[str]] = {}
    for part in form.finish():
        if part.filename is None:
            fields.setdefault(part.name, []).append(part.data.decode("utf-8", "replace"))
        elif part.name == "images":
            uploads.append(Upload(part.filename or "image", bytes(part.data)))
        else:
            raise ParameterError(
                f'The form holds a file called "{part.name:.60}"; expected files called images.'
            )
    if "images" in fields or not uploads:
        raise ParameterError(
            "The form holds no file called images; expected one or more, each with a file name: "
            "curl -F images=@cat.jpg."
        )
    return uploads, fields


async def read_json_body(request: Request, most: int, hold: Callable[[int], None]) -> Any:
    """The content of a JSON body.

    Raises:
        ParameterError: it is not JSON.
        TooLargeError, BusyError, GoneError: as `read_chunks`.
    """
    body = b"".join([chunk async for chunk in read_chunks(request, most, hold)])
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            'The body is not JSON; expected an object: {"inputs": "<base64>", "parameters": '
            '{"candidate_labels": ["cat", "dog"]}}.'
        ) from error
