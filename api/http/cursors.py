"""Opaque cursors: where a page ended, as text that only the same list understands."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Query

from api.http.problems import HttpError

T = TypeVar("T")
LIMIT_MAX = 500

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many items a page has at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=2_000, description="The ``next`` of the page before; opaque."),
]


class CursorError(HttpError):
    """A cursor is not one of this list."""

    code, status = "cursor", 422

    def __init__(self) -> None:
        super().__init__(
            "The cursor is none of this list.",
            way_out="Send a cursor as it came, or begin anew without one.",
        )


def read_cursor(cursor: str | None, kind: str, *types: type) -> tuple[Any, ...] | None:
    """Return what a cursor of ``kind`` holds, None for the first page; raises CursorError."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = orjson.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError):
        raise CursorError from None
    if not isinstance(found, list) or found[:1] != [kind] or len(found) != len(types) + 1:
        raise CursorError
    if any(type(each) is not kind_ for each, kind_ in zip(found[1:], types, strict=True)):
        raise CursorError
    if any(isinstance(each, int) and not 0 <= each < 2**63 for each in found[1:]):
        raise CursorError
    if any(isinstance(each, str) and "\0" in each for each in found[1:]):
        raise CursorError
    return tuple(found[1:])


def make_cursor(kind: str, *values: str | int) -> str:
    """Return the cursor that holds ``values``."""
    return base64.urlsafe_b64encode(orjson.dumps([kind, *values])).rstrip(b"=").decode()


def page_of(
    rows: Sequence[T], limit: int, cursor_of: Callable[[T], str]
) -> tuple[Sequence[T], str | None]:
    """Return the rows of a page, and the cursor behind it.

    ``rows`` were asked for with one more than ``limit``, which says that there is a next page.
    """
    if len(rows) <= limit:
        return rows, None
    shown = rows[:limit]
    return shown, cursor_of(shown[-1])
