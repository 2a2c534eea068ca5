"""Groups 集团: the members below a root, and whose they are. From other read models, when asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

MEMBERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Member:
    """A customer of a group that somebody owns, since a moment (UTC)."""

    customer: str
    owner: str
    since: datetime


# The union of sets, for what is asked about customers may go round; what is decided does not.
_OWNED = """
WITH RECURSIVE members AS (
    SELECT customer FROM projections.customers WHERE customer = %(root)s
    UNION
    SELECT c.customer FROM members m JOIN projections.customers c ON c.parent = m.customer
    WHERE c.state IN ('admitted', 'closed')
)
SELECT o.customer, o.owner, o.since
FROM members m JOIN projections.ownership o ON o.customer = m.customer
WHERE o.owner IS NOT NULL ORDER BY o.owner, o.since, o.customer LIMIT %(limit)s
"""
# All that a customer stands below by now, its root too, as an array.
ABOVE = """
ARRAY(
    WITH RECURSIVE above AS (
        SELECT c.parent AS customer FROM projections.customers c
        WHERE c.customer = %(customer)s AND c.state IN ('admitted', 'closed')
        UNION
        SELECT c.parent FROM above a JOIN projections.customers c ON c.customer = a.customer
    )
    SELECT customer FROM above WHERE customer IS NOT NULL
)
"""


# Roots whose members are under different owners, and nothing open about that.
_SPLIT = """
WITH RECURSIVE parts AS (
    SELECT c.customer AS root, c.customer FROM projections.customers c
    WHERE c.parent IS NULL AND c.state IN ('admitted', 'closed')
        AND EXISTS (SELECT FROM projections.customers b WHERE b.parent = c.customer)
    UNION
    SELECT p.root, c.customer FROM parts p JOIN projections.customers c ON c.parent = p.customer
    WHERE c.state IN ('admitted', 'closed')
)
SELECT p.root, count(*), count(DISTINCT o.owner)
FROM parts p JOIN projections.ownership o ON o.customer = p.customer
WHERE o.owner IS NOT NULL AND NOT EXISTS (
    SELECT FROM projections.conflicts f
    WHERE f.customer = p.root AND f.kind = 'group' AND f.outcome IS NULL
)
GROUP BY p.root HAVING count(DISTINCT o.owner) > 1 ORDER BY p.root LIMIT %s
"""
SPLIT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Split:
    """A group by its root: how many of its members are owned, and by how many people."""

    root: str
    owned: int
    owners: int


def split_unseen(connection: Connection[Any], *, limit: int = SPLIT_MAX) -> list[Split]:
    """Return the groups under different owners about which no conflict is open.

    Those too that a ruling has left as they are, or allowed.
    """
    return [Split(*row) for row in connection.execute(_SPLIT, (limit,))]


def owned_members(
    connection: Connection[Any], root: str, *, limit: int = MEMBERS_MAX
) -> list[Member]:
    """Return the members of a group that are owned now, the root too, by owner and since when."""
    rows = connection.execute(_OWNED, {"root": root, "limit": limit})
    return [Member(*row) for row in rows]
