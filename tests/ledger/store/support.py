"""What the tests of the store share: short ways to append, and to see what the log holds."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg

from ledger.store.appending import Append, NewEvent, RequestKey
from tests.support.database import DatabaseUrls


def event(stream: str = "customer-1", body: bytes = b"{}", version: int | None = None) -> NewEvent:
    """Return an event to append; the store takes the body as it is."""
    return NewEvent(stream, "ClaimFiled.v1", body, version)


def one(stream: str = "customer-1", body: bytes = b"{}", version: int | None = None) -> Append:
    """Return an append of one event without a request id."""
    return Append((event(stream, body, version),))


def asked(request_id: str | None = None, *events: NewEvent, digest: bytes = b"same") -> Append:
    """Return an append with a request id, a new one unless it is given."""
    return Append(
        events or (event(),), RequestKey("tests", request_id or secrets.token_hex(8), digest)
    )


def rows(urls: DatabaseUrls, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return what a statement gives when a superuser asks."""
    with psycopg.connect(urls.superuser_url, autocommit=True) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def log(urls: DatabaseUrls) -> list[tuple[int, str, int]]:
    """Return position, stream and version of every event, in the order of the log."""
    return rows(urls, "SELECT position, stream, version FROM ledger.events ORDER BY position")


def bodies(urls: DatabaseUrls) -> list[bytes]:
    """Return the body of every event, in the order of the log."""
    return [body for (body,) in rows(urls, "SELECT body FROM ledger.events ORDER BY position")]
