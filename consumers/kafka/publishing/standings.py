"""How customers stand for subscribers, beside the publisher's checkpoints in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import Connection
from pydantic import TypeAdapter

from consumers.kafka.publishing.standing import Standing
from ledger.store.arrays import bytea_array, text_array

_STANDING = TypeAdapter(Standing)

_UPTO = "SELECT position FROM ledger.published_upto FOR UPDATE"
_MOVE = "UPDATE ledger.published_upto SET position = %s"
_EMPTY = "TRUNCATE ledger.published"
_READ = "SELECT customer, state FROM ledger.published WHERE customer = ANY(%b)"
_WRITE = """
INSERT INTO ledger.published (customer, state)
SELECT a.customer, a.state FROM unnest(%b::text[], %b::bytea[]) AS a(customer, state)
ON CONFLICT (customer) DO UPDATE SET state = excluded.state
"""


def take_over(connection: Connection[Any], filled_upto: int) -> int:
    """Return the position as of which customers stand, which is none behind ``filled_upto``.

    Where they stand further on than a topic is filled, all begins anew. In the caller's
    transaction.
    """
    row = connection.execute(_UPTO).fetchone()
    if row is None:
        raise AssertionError("the migration has made the row")
    position = int(row[0])
    if position <= filled_upto:
        return position
    connection.execute(_EMPTY)
    connection.execute(_MOVE, (0,))
    return 0


def read(connection: Connection[Any], customers: Iterable[str]) -> dict[str, Standing]:
    """Return how customers stand; those that were never admitted are missing."""
    wanted = text_array(sorted(customers))
    rows = connection.execute(_READ, (wanted,), prepare=True, binary=True).fetchall()
    return {customer: _STANDING.validate_json(state) for customer, state in rows}


def write(connection: Connection[Any], standings: Mapping[str, Standing], upto: int) -> None:
    """Write how customers stand as of a position, in the caller's transaction."""
    if standings:
        customers = sorted(standings)
        states = [_STANDING.dump_json(standings[each]) for each in customers]
        values = (text_array(customers), bytea_array(states))
        connection.execute(_WRITE, values, prepare=True, binary=True)
    connection.execute(_MOVE, (upto,), prepare=True)
