"""Ownership now: a row for every customer that was admitted, owned or free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.events import decisions
from ledger.store.arrays import int8_array, text_array
from projections.base import Change, Table
from projections.columns import instants, texts

_TABLE = Table(
    "ownership",
    """
    customer           text COLLATE "C" NOT NULL PRIMARY KEY,
    owner              text COLLATE "C",
    since              timestamptz NOT NULL,
    owner_territory    text COLLATE "C",
    customer_territory text COLLATE "C",
    protected_until    timestamptz,
    changed_position   bigint NOT NULL
    """,
    (
        "CREATE INDEX ownership_owner ON ownership (owner, customer) WHERE owner IS NOT NULL",
        "CREATE INDEX ownership_territory ON ownership (customer_territory, customer)",
    ),
)
# The arrays are those of _arrays: an element a customer.
_ADMIT = """
INSERT INTO ownership (customer, owner, since, owner_territory, customer_territory,
                       protected_until, changed_position)
SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::text[],
                     %b::timestamptz[], %b::bigint[])
"""
_CHANGE = """
WITH changed AS (
    UPDATE ownership o SET owner = r.owner, since = r.since, owner_territory = r.owner_territory,
        customer_territory = r.customer_territory, protected_until = r.protected_until,
        changed_position = r.position
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::text[],
                %b::timestamptz[], %b::bigint[])
        AS r(customer, owner, since, owner_territory, customer_territory, protected_until, position)
    WHERE o.customer = r.customer RETURNING 1)
SELECT projections.require_rows(count(*), %b) FROM changed
"""
_MOVE = """
WITH moved AS (
    UPDATE ownership o SET customer_territory = r.territory, changed_position = r.position
    FROM unnest(%b::text[], %b::text[], %b::bigint[]) AS r(customer, territory, position)
    WHERE o.customer = r.customer RETURNING 1)
SELECT projections.require_rows(count(*), %b) FROM moved
"""

# customer, owner, since, owner_territory, customer_territory, protected_until, position
_Row = tuple[str, str | None, datetime, str | None, str | None, datetime | None, int]


class Ownership:
    """The projection: folds a batch to one row a customer and writes those."""

    name = "ownership"
    version = 1
    tables: Sequence[Table] = (_TABLE,)
    handles = frozenset(
        {
            "CustomerAdmitted.v1",
            "CustomerChanged.v1",
            "OwnershipGranted.v1",
            "OwnershipAssigned.v1",
            "OwnershipReleased.v1",
            "CustomerRecycled.v1",
            "OwnershipTransferred.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        admitted: dict[str, _Row] = {}
        changed: dict[str, _Row] = {}
        moved: dict[str, tuple[str, str | None, int]] = {}
        for event, _ in changes:
            data = event.data
            customer: str = data.customer
            known = admitted if customer in admitted else changed
            match data:
                case decisions.CustomerChanged():
                    if customer in known:
                        row = known[customer]
                        known[customer] = (*row[:4], data.territory, row[5], event.position)
                    else:
                        moved[customer] = (customer, data.territory, event.position)
                    continue
                case decisions.CustomerAdmitted():
                    if customer in admitted:
                        raise ValueError(f"{customer} was admitted twice")
                    known = admitted
                case _:
                    moved.pop(customer, None)
            known[customer] = _row(event.data, event.effective, event.position)
        if admitted:
            connection.execute(_ADMIT, _arrays(admitted.values()), binary=True)
        if changed:
            connection.execute(_CHANGE, (*_arrays(changed.values()), len(changed)), binary=True)
        if moved:
            customers, territories, positions = zip(*moved.values(), strict=True)
            columns = texts(customers), texts(territories), int8_array(positions)
            connection.execute(_MOVE, (*columns, len(moved)), binary=True)


def _row(data: Any, effective: datetime, position: int) -> _Row:
    if not isinstance(
        data,
        decisions.OwnershipReleased | decisions.CustomerRecycled | decisions.CustomerAdmitted,
    ):
        return (
            data.customer,
            data.owner,
            effective,
            data.owner_territory,
            data.customer_territory,
            data.protected_until,
            position,
        )
    return data.customer, None, effective, None, data.territory, None, position


def _arrays(rows: Any) -> tuple[Any, ...]:
    customers, owners, since, theirs, its, protected, positions = zip(*rows, strict=True)
    return (
        texts(customers),
        texts(owners),
        instants(since),
        texts(theirs),
        texts(its),
        instants(protected),
        int8_array(positions),
    )


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnershipNow:
    """Who owns a customer now; ``owner`` None: it is free, in the pool of ``customer_territory``.

    ``since`` (UTC) is when it came to be so, ``owner_territory`` the owner's at that moment,
    ``customer_territory`` the customer's as it was decided last. The owner is protected until
    ``protected_until`` (UTC). ``changed_position`` is where the log says so.
    """

    customer: str
    owner: str | None
    since: datetime
    owner_territory: str | None
    customer_territory: str | None
    protected_until: datetime | None
    changed_position: int


_SELECT = """
SELECT customer, owner, since, owner_territory, customer_territory, protected_until,
       changed_position
FROM projections.ownership
"""
_OWNERS = """
SELECT customer, owner FROM projections.ownership
WHERE customer = ANY(%b) AND owner IS NOT NULL
"""
_ONE = f"{_SELECT} WHERE customer = %s"
# A condition that is not asked for is not in the statement: each has an index of its own.
_CONDITIONS = {
    "after": "customer > %(after)s",
    "owner": "owner = %(owner)s",
    "territory": "customer_territory = %(territory)s",
    "free": "owner IS NULL",
    "owned": "owner IS NOT NULL",
}


def owner_of(connection: Connection[Any], customer: str) -> OwnershipNow | None:
    """Return who owns a customer now, None where it was never admitted."""
    row = connection.execute(_ONE, (customer,), prepare=True, binary=True).fetchone()
    return OwnershipNow(*row) if row else None


def owners_of(connection: Connection[Any], customers: Iterable[str]) -> dict[str, str]:
    """Return who owns which of the customers now; those that nobody owns are missing."""
    wanted = text_array(sorted(set(customers)))
    return dict(connection.execute(_OWNERS, (wanted,), prepare=True, binary=True).fetchall())


def list_ownership(
    connection: Connection[Any],
    *,
    owner: str | None = None,
    territory: str | None = None,
    free: bool | None = None,
    after: str | None = None,
    limit: int = 500,
) -> list[OwnershipNow]:
    """Return present ownership by customer id, behind customer ``after``; None does not filter.

    ``territory`` is the customer's; ``free`` False lists the owned ones only.
    """
    given: dict[str, Any] = {"after": after, "owner": owner, "territory": territory}
    asked = [name for name, value in given.items() if value is not None]
    if free is not None:
        asked.append("free" if free else "owned")
    where = " AND ".join(_CONDITIONS[name] for name in asked) or "true"
    statement = f"{_SELECT} WHERE {where} ORDER BY customer LIMIT %(limit)s"
    rows = connection.execute(statement.encode(), given | {"limit": limit}, binary=True)
    return [OwnershipNow(*row) for row in rows]
