"""Newline-delimited JSON: lines in and lines out, never a whole body at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from api.http.problems import HttpError

MEDIA_TYPE = "application/x-ndjson"
LINE_BYTES_MAX = 65_536


class NdjsonResponse(StreamingResponse):
    """An answer of which each line is a JSON value."""

    media_type = MEDIA_TYPE


class UnsupportedMediaTypeError(HttpError):
    """The body is of another kind than the resource takes."""

    code, status = "unsupported_media_type", 415

    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"The body must be {wanted}.", way_out=f"Send it with Content-Type: {wanted}."
        )


class ClientGoneError(HttpError):
    """The client went away before the body had come; nobody reads this."""

    code, status = "client_gone", 400

    def __init__(self) -> None:
        super().__init__("The body was cut off.", way_out="Send it again.")


async def lines_of(
    request: Request, lines_max: int, line_bytes_max: int = LINE_BYTES_MAX
) -> AsyncIterator[bytes | None]:
    """Yield the lines of a body, without their ends; None for one that is too long.

    Of a body with more than ``lines_max`` one more comes; the rest is read, for a client may send
    all of it before it reads, but not looked at.

    Raises UnsupportedMediaTypeError, ClientGoneError, and Starlette's HTTPException (413) where the
    body is longer than the route takes.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise UnsupportedMediaTypeError(MEDIA_TYPE)
    left, is_long, count = b"", False, 0
    try:
        async for chunk in request.stream():
            if count > lines_max:
                continue
            *ended, left = (left + chunk).split(b"\n", lines_max + 1 - count)
            count += len(ended)
            for line in ended:
                yield None if is_long or len(line) > line_bytes_max else line
                is_long = False
            if is_long or len(left) > line_bytes_max:
                is_long, left = True, b""
    except ClientDisconnect:
        raise ClientGoneError from None
    if count <= lines_max and (left or is_long):
        yield None if is_long else left
