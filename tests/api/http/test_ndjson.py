"""Bodies of lines: read piece by piece, whatever the pieces are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from api.http.ndjson import ClientGoneError, lines_of


def read(chunks: Sequence[bytes | None], lines_max: int = 100) -> list[bytes | None]:
    """Return the lines of a body that comes in pieces; None stands for a client that goes away."""
    incoming: list[dict[str, Any]] = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": True}
        for chunk in chunks
    ]
    incoming.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def lines() -> list[bytes | None]:
        headers = [(b"content-type", b"application/x-ndjson; charset=utf-8")]
        request = Request({"type": "http", "headers": headers}, receive)
        return [line async for line in lines_of(request, lines_max, line_bytes_max=5)]

    found = asyncio.run(lines())
    assert incoming == [] or incoming[0]["type"] == "http.disconnect"
    return found


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a\nb"], [b"a", b"b"]),
        ([b"a", b"b\nc", b"\n"], [b"ab", b"c"]),
        ([b"\n\na"], [b"", b"", b"a"]),
        ([b"12345\n123456\na\n"], [b"12345", None, b"a"]),
        ([b"123", b"456", b"789\na\n"], [None, b"a"]),
        ([b"1234567"], [None]),
        ([b"123456\n"], [None]),
        ([b"123456", b"\n", b"a"], [None, b"a"]),
    ],
)
def test_lines_come_whole_out_of_any_pieces(
    chunks: Sequence[bytes], lines: list[bytes | None]
) -> None:
    assert read(chunks) == lines


@pytest.mark.parametrize(
    "chunks",
    [[b"1\n2\n3\n4\n5\n"], [b"1\n2\n", b"3\n4\n", b"5\n"], [b"1\n2\n3\n", b"4", b"\n5"]],
)
def test_what_is_beyond_the_bound_is_read_and_not_looked_at(chunks: Sequence[bytes]) -> None:
    assert read(chunks, lines_max=2) == [b"1", b"2", b"3"]
    assert read(chunks, lines_max=4)[:4] == [b"1", b"2", b"3", b"4"]
    assert len(read(chunks, lines_max=5)) == 5


def test_a_client_that_goes_away_is_told_of() -> None:
    with pytest.raises(ClientGoneError):
        read([b"1\n", None])
