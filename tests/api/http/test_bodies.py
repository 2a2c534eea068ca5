"""Bodies that are far too long, or never come whole: a clear answer, and nothing grows."""

from __future__ import annotations

import http.client
import json
import logging
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from api.http import around
from tests.api.http.office import Office
from tests.api.http.served import served
from tests.api.http.test_health import dialled
from tests.support.processes import wait_until

# One more than the most that any route takes.
LONG_BYTES = 104_857_601
PIECE_BYTES = 1_048_576
# What the socket, the form and the test have under way; a body kept would take six times as much.
GROWTH_BYTES_MAX = 16 * 1_048_576
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
# Of each kind of route: where, with which media type, and how the body begins.
KINDS = (
    ("/v1/claims", "application/json", b'{"customer": "'),
    ("/v1/claims/batch", "application/x-ndjson", b'{"customer": "'),
    ("/v1/imports", "multipart/form-data; boundary=x", FORM),
)


def head_of(
    office: Office, path: str, kind: str, length: int | None, who: str | None = None
) -> bytes:
    """Return the head of a POST; without a length the body is in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    token = office.tokens[who or ("per_admin" if path == "/v1/imports" else "per_a")]
    return (
        f"POST {path} HTTP/1.1\r\nHost: guishu\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\n{size}\r\n\r\n"
    ).encode()


def pieces(begin: bytes, *, chunked: bool) -> Iterator[bytes]:
    """Yield a body of LONG_BYTES as it goes over the wire."""
    left, piece = LONG_BYTES, begin
    while left:
        piece = piece[:left]
        left -= len(piece)
        yield b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
        piece = b"x" * PIECE_BYTES
    if chunked:
        yield b"0\r\n\r\n"


def answer_to(address: str, head: bytes, sent: Iterable[bytes]) -> tuple[int, dict[str, Any]]:
    """Send everything before anything is read, as simple clients do; return the answer."""
    with dialled(address) as line:
        line.settimeout(60)
        line.sendall(head)
        for piece in sent:
            line.sendall(piece)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status, json.loads(answer.read())


def test_a_hundred_megabytes_are_refused_and_not_kept(office: Office) -> None:
    """Whoever sent all before reading found the connection reset in place of the answer."""
    with served(office) as address:
        tracemalloc.start()
        try:
            for path, kind, begin in KINDS:
                for length in (LONG_BYTES, None):
                    tracemalloc.reset_peak()
                    before, _ = tracemalloc.get_traced_memory()
                    sent = pieces(begin, chunked=length is None)
                    status, told = answer_to(address, head_of(office, path, kind, length), sent)
                    _, peak = tracemalloc.get_traced_memory()
                    assert (status, told["code"]) == (413, "body_too_large"), (path, length)
                    assert peak - before < GROWTH_BYTES_MAX, (path, length)
        finally:
            tracemalloc.stop()
        assert httpx.get(f"{address}/livez").status_code == 200
        assert office.customer("华星")


def test_a_body_that_stops_half_way_is_not_waited_for_wherever_it_goes(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around, "BODY_SECONDS_MAX", 0.2)
    with served(office) as address:
        for path, kind, begin in KINDS:
            for length in (1_000, None):
                half = begin if length else b"%x\r\n%s\r\n" % (len(begin), begin)
                status, told = answer_to(address, head_of(office, path, kind, length), [half])
                assert (status, told["code"]) == (408, "body_too_slow"), (path, length)


def test_who_goes_half_way_is_no_defect(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """Of an upload that was cut off the log told as of a defect of guishu."""
    before = over(office)
    with served(office) as address, caplog.at_level(logging.ERROR):
        for path, kind, begin in KINDS:
            with dialled(address) as line:
                line.sendall(head_of(office, path, kind, 1_000) + begin)
        wait_until(lambda: over(office) == before + len(KINDS))
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


def over(office: Office) -> int:
    """Return how many requests were measured."""
    name = "guishu_http_request_seconds_count"
    families = office.app.state.registry.restricted_registry([name]).collect()
    return int(sum(each.value for family in families for each in family.samples))
