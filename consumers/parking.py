"""Parked requests: those that could not be decided, and those of the same customer behind them.

A row with an error is a request that could not be decided. Its customer waits for it: what comes
later is parked behind it, without an error. Rows of a customer of which none has an error are
about to be decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ledger.envelope import StoredEvent
from ledger.store.arrays import int8_array, text_array

ERROR_CHARACTERS_MAX = 500

_WAITING = """
SELECT a.customer FROM unnest(%b::text[]) AS a(customer)
WHERE EXISTS (SELECT FROM ledger.parked_requests p WHERE p.customer = a.customer)
"""
_OF_CUSTOMER = """
SELECT position, customer, error FROM ledger.parked_requests
WHERE customer = %s ORDER BY position LIMIT %s
"""
_AT = """
SELECT position, customer, error FROM ledger.parked_requests
WHERE position = ANY(%b) ORDER BY position
"""
_CUSTOMER_OF = "SELECT customer FROM ledger.parked_requests WHERE position = %s"
_READY = """
SELECT customer FROM ledger.parked_requests GROUP BY customer
HAVING count(error) = 0 ORDER BY min(position)
"""
# Where a request is parked again behind another customer's, its event stays where it was.
_PARKED = """
WITH stuck AS MATERIALIZED (
    SELECT p.position, p.customer, f.position AS first FROM ledger.parked_requests p
    CROSS JOIN LATERAL (SELECT q.position FROM ledger.parked_requests q
                        WHERE q.customer = p.customer AND q.error IS NOT NULL
                        ORDER BY q.position LIMIT 1) f
    WHERE p.position = ANY(%b)
)
SELECT s.position, e.position, e.recorded, e.stream, e.version, e.name, e.body
FROM stuck s JOIN ledger.events r ON r.position = s.first
CROSS JOIN LATERAL (
    SELECT * FROM ledger.events o
    WHERE o.stream IN ('ownership-' || s.customer,
                       'ownership-' || substring(r.stream FROM '^[a-z]+-(.*)$'))
      AND o.name LIKE 'RequestParked.v%%'
      AND (convert_from(o.body, 'UTF8')::jsonb #>> '{data,request}')::bigint = s.first
    ORDER BY o.version DESC LIMIT 1) e
"""
_FREE = "DELETE FROM ledger.parked_requests WHERE position = ANY(%b)"
_PARK = """
INSERT INTO ledger.parked_requests (position, customer, error)
SELECT a.position, a.customer, nullif(a.error, '')
FROM unnest(%b::bigint[], %b::text[], %b::text[]) AS a(position, customer, error)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A parked request, and the customer that waits; ``error`` None: it only waits."""

    position: int
    customer: str
    error: str | None = None


def waiting_among(connection: Connection[Any], customers: Iterable[str]) -> set[str]:
    """Return those of the customers that wait."""
    asked = text_array(list(customers))
    rows = connection.execute(_WAITING, (asked,), prepare=True, binary=True).fetchall()
    return {customer for (customer,) in rows}


def rows_of(connection: Connection[Any], customer: str, limit: int) -> list[Row]:
    """Return the first ``limit`` rows of a customer, in the order of the log."""
    rows = connection.execute(_OF_CUSTOMER, (customer, limit)).fetchall()
    return [Row(*row) for row in rows]


def rows_at(connection: Connection[Any], positions: Sequence[int]) -> list[Row]:
    """Return the rows of the requests at these positions that are parked, in order."""
    rows = connection.execute(_AT, (int8_array(positions),), binary=True).fetchall()
    return [Row(*row) for row in rows]


def customer_of(connection: Connection[Any], position: int) -> str | None:
    """Return the customer that waits for the request at a position, None where none does."""
    row = connection.execute(_CUSTOMER_OF, (position,)).fetchone()
    return str(row[0]) if row else None


def parked_among(connection: Connection[Any], positions: Sequence[int]) -> dict[int, StoredEvent]:
    """Return those of the requests that wait for an administrator, by position.

    With each the RequestParked for which it waits: its own, or that of an earlier request of the
    same customer. What is about to be decided is not among them.
    """
    rows = connection.execute(_PARKED, (int8_array(positions),), prepare=True, binary=True)
    return {position: StoredEvent._make((*event, None, None)) for position, *event in rows}


def ready_customers(connection: Connection[Any]) -> list[str]:
    """Return the customers whose parked requests all can be decided, the first request first."""
    return [customer for (customer,) in connection.execute(_READY).fetchall()]


def write(connection: Connection[Any], freed: Sequence[int], parked: Sequence[Row]) -> None:
    """Take rows away, then add rows, within a transaction."""
    if freed:
        connection.execute(_FREE, (int8_array(freed),), binary=True)
    if parked:
        columns = (
            int8_array([row.position for row in parked]),
            text_array([row.customer for row in parked]),
            text_array([_storable(row.error) for row in parked]),
        )
        connection.execute(_PARK, columns, binary=True)


def _storable(error: str | None) -> str:
    if error is None:
        return ""
    text = error[:ERROR_CHARACTERS_MAX].replace("\x00", "")
    return text.encode("utf-8", "replace").decode() or "Exception"
