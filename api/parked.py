"""Requests that could not be decided: which there are, and whose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ledger.deciding import ownership_stream

_CUSTOMER = "SELECT customer FROM ledger.parked_requests WHERE position = %s AND error IS NOT NULL"
# Parked once: whoever repeats what set it free gets the first answer.
_WAS_PARKED = """
SELECT 1 FROM ledger.events WHERE stream = %s AND name = 'RequestParked.v1'
AND convert_from(body, 'UTF8')::jsonb #>> '{data,request}' = %s LIMIT 1
"""
_PARKED = """
SELECT position, customer, split_part(error, ':', 1),
       (SELECT count(*) FROM ledger.parked_requests b
        WHERE b.customer = p.customer AND b.position > p.position AND b.error IS NULL)
FROM ledger.parked_requests p WHERE error IS NOT NULL AND position > %s
ORDER BY position LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class ParkedRequest:
    """A request that could not be decided, for an error of this name; so many wait behind it."""

    request: int
    customer: str
    error: str
    behind: int


def customer_of_parked(connection: Connection[Any], position: int) -> str | None:
    """Return whose request is parked at a position (of a hand-over the giver); None: none is."""
    row = connection.execute(_CUSTOMER, (position,)).fetchone()
    return None if row is None else str(row[0])


def was_parked(connection: Connection[Any], customer: str, position: int) -> bool:
    """Say whether a request about a customer (of a hand-over: its giver) was ever parked."""
    given = (ownership_stream(customer), str(position))
    return connection.execute(_WAS_PARKED, given).fetchone() is not None


def parked_requests(
    connection: Connection[Any], *, after: int = 0, limit: int
) -> list[ParkedRequest]:
    """Return requests that could not be decided, by position, behind ``after``."""
    return [ParkedRequest(*row) for row in connection.execute(_PARKED, (after, limit))]
