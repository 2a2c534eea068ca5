"""Orphaned customers: whose owner has left. Asked of the other read models; it has no table.

In whose care they are, the organisation's facts say (ledger/orphans.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection

from ledger.store.arrays import text_array

PAGE = 500


@dataclass(frozen=True, slots=True)
class Orphan:
    """A customer of somebody who has left. Times are UTC, days the organisation's.

    ``owned_since`` is when the ownership began, ``since`` the first day on which the owner was not
    there. ``owner_territory`` is the leaver's home, and ``stand_in`` who stands in, until a moment;
    nobody who has left, too.
    """

    customer: str
    owner: str
    owned_since: datetime
    since: date
    customer_territory: str | None
    owner_territory: str | None
    stand_in: str | None
    stand_in_until: datetime | None


_LISTED = """
SELECT o.customer, o.owner, o.since, greatest(p.left_on, (o.since AT TIME ZONE %(zone)s)::date),
       o.customer_territory, p.territory, s.person, s.until
FROM projections.people p
JOIN projections.ownership o ON o.owner = p.person
LEFT JOIN projections.stand_ins s
    ON s.customer = o.customer AND s.ended IS NULL AND s.until > %(now)s
    AND NOT EXISTS (SELECT FROM projections.people q
                    WHERE q.person = s.person AND q.left_on <= %(today)s)
WHERE p.left_on <= %(today)s AND o.customer > %(after)s
  AND (%(owner)s::text IS NULL OR o.owner = %(owner)s)
  AND (%(everywhere)s OR coalesce(p.territory, o.customer_territory) = ANY(%(territories)b))
ORDER BY o.customer LIMIT %(limit)s
"""
_COUNTED = """
SELECT coalesce(p.territory, o.customer_territory), count(*)
FROM projections.people p JOIN projections.ownership o ON o.owner = p.person
WHERE p.left_on <= %(today)s GROUP BY 1
"""


def list_orphans(
    connection: Connection[Any],
    now: datetime,
    today: date,
    time_zone: str,
    *,
    owner: str | None = None,
    territories: Iterable[str] | None = None,
    after: str = "",
    limit: int = PAGE,
) -> list[Orphan]:
    """Return customers whose owner has left by ``today``, by customer id, behind ``after``.

    ``time_zone`` (IANA) is the organisation's. ``territories`` are those of the leavers, or, where
    these have none, of the customers; None does not filter.
    """
    rows = connection.execute(
        _LISTED,
        {
            "now": now,
            "today": today,
            "zone": time_zone,
            "owner": owner,
            "everywhere": territories is None,
            "territories": text_array(sorted(territories or ())),
            "after": after,
            "limit": limit,
        },
    )
    return [Orphan(*row) for row in rows]


def counts(connection: Connection[Any], today: date) -> dict[str | None, int]:
    """Return how many customers are orphaned, by the territory whose head looks after them."""
    return dict(connection.execute(_COUNTED, {"today": today}).fetchall())
