"""Whose a customer is, with what is asked before a call: one look at several read models.

``last_follow_up`` is when the customer was last followed up by anybody (follow-ups that were voided
do not count), ``open_claims`` how many claims of it are not decided yet or await approval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.store.arrays import text_array

_COLUMNS = """
       o.customer, o.owner, o.since, o.owner_territory, o.customer_territory, o.protected_until,
       (SELECT f.at FROM projections.follow_ups f
        WHERE f.customer = o.customer AND f.voided IS NULL
        ORDER BY f.at DESC, f.position DESC LIMIT 1),
       (SELECT count(*) FROM projections.pending_claims p WHERE p.customer = o.customer)
FROM projections.ownership o
"""
_WHOSE = f"SELECT {_COLUMNS} WHERE o.customer = ANY(%b)"
# Requests of a stream have versions from 1 on.
_WHOSE_BY_VERSION = f"""
SELECT (SELECT e.version FROM ledger.events e
        WHERE e.stream = 'customer-' || o.customer COLLATE "C" AND e.position <= %b
        ORDER BY e.version DESC LIMIT 1), {_COLUMNS} WHERE o.customer = %b
"""  # noqa: S608 - no input
_PLACES = "SELECT customer, territory FROM projections.customers WHERE customer = ANY(%b)"


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose a customer is now (``owner`` None: it is free). Times are UTC."""

    customer: str
    owner: str | None
    since: datetime
    owner_territory: str | None
    territory: str | None
    protected_until: datetime | None
    last_follow_up: datetime | None
    open_claims: int


def whose(connection: Connection[Any], customers: Sequence[str]) -> dict[str, Whose]:
    """Return whose customers are, by id; those that were never admitted are missing."""
    rows = connection.execute(_WHOSE, (text_array(customers),), prepare=True, binary=True)
    return {row[0]: Whose(*row) for row in rows}


def whose_by_version(
    connection: Connection[Any], customer: str, reached: int
) -> tuple[Whose, int] | None:
    """Return whose a customer is, and the version of its stream up to a position, in one look.

    None where it was never admitted.
    """
    statement = _WHOSE_BY_VERSION.encode()
    row = connection.execute(statement, (reached, customer), prepare=True, binary=True).fetchone()
    return None if row is None else (Whose(*row[1:]), row[0] or 0)


def places_of(connection: Connection[Any], customers: Sequence[str]) -> dict[str, str | None]:
    """Return the territories in which customers lie now; unknown ones are missing."""
    rows = connection.execute(_PLACES, (text_array(customers),), prepare=True, binary=True)
    return dict(rows.fetchall())
