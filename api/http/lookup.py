"""What a path names must be there."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from api.http.problems import NotFoundError
from api.http.writing import stream_version
from ledger.deciding import request_stream


def must_exist(connection: Connection[Any], customer: str) -> None:
    """Raise NotFoundError where the log knows of no such customer."""
    if not stream_version(connection, request_stream(customer)):
        raise NotFoundError("customer", customer)
