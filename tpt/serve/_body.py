"""Reading a request's body: never more of it than is allowed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tpt.serve._multipart import Form
from tpt.serve.errors import GoneError, ParameterError, TooLargeError
from tpt.serve.service import Hold
from tpt.serve.settings import Upload


async def read_chunks(request: Request, most: int, held: Hold) -> AsyncGenerator[bytes, None]:
    """The body as it comes.

    Raises:
        TooLargeError: at the first byte too many, or before the body where its length is declared.
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
            held.add(len(chunk))
            yield chunk
    except ClientDisconnect as error:
        raise GoneError from error


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {most:,} bytes, the most that is taken. Send fewer pictures, or "
        "smaller ones."
    )


async def read_form(
    request: Request, most: int, most_files: int, held: Hold
) -> tuple[list[Upload], dict[str, list[str]]]:
    """The files called `images`, and the other fields by name.

    Raises:
        ParameterError: no multipart form, or a file of another name.
        TooLargeError, BusyError, GoneError: as `read_chunks`; too many files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ParameterError(
            f'The body is of type "{kind or "nothing"}"; expected multipart/form-data with one or '
            "more files called images: curl -F images=@cat.jpg."
        )
    form = Form(request.headers["content-type"], most_files)
    async for chunk in read_chunks(request, most, held):
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


async def read_json_body(request: Request, most: int, held: Hold) -> Any:
    """What a JSON body holds.

    Raises:
        ParameterError: it is no JSON.
        TooLargeError, BusyError, GoneError: as `read_chunks`.
    """
    chunks: AsyncIterator[bytes] = read_chunks(request, most, held)
    body = b"".join([chunk async for chunk in chunks])
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            'The body is not JSON; expected an object: {"inputs": "<base64>", "parameters": '
            '{"candidate_labels": ["cat", "dog"]}}.'
        ) from error
