"""What falls due, and what that says: told alike on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from psycopg import Connection

from api.awaiting import asked_to_answer, asked_to_rule
from ledger import reasons
from ledger.deadlines import RECYCLE, RECYCLE_WARNING
from ledger.organisation import OrganisationAt
from projections import deadlines, follow_ups
from projections.approvals import approvals_named
from projections.conflicts import conflicts_named
from projections.deadlines import DueRow
from projections.ownership import owners_of


@dataclass(frozen=True, slots=True)
class Beside:
    """What is said beside rows that fall due.

    ``owners`` by customer; ``awaited`` by subject, who may answer or rule today; ``tokens`` are the
    customers on their way to the pool whose last follow-up resets nothing (敷衍).
    """

    owners: Mapping[str, str]
    awaited: Mapping[str, tuple[str, ...]]
    tokens: frozenset[str]


def beside(
    connection: Connection[Any],
    rows: Sequence[DueRow],
    organisation: OrganisationAt,
    now: datetime,
) -> Beside:
    """Return what is said beside ``rows``."""
    day, subjects = organisation.day(now), [row.subject for row in rows]
    awaited = {
        name: asked_to_answer(row, organisation, day)
        for name, row in approvals_named(connection, subjects).items()
    }
    awaited |= {
        name: asked_to_rule(row, organisation, day)
        for name, row in conflicts_named(connection, subjects).items()
    }
    owners = owners_of(connection, [row.customer for row in rows])
    return Beside(owners, awaited, _last_are_tokens(connection, rows))


def _last_are_tokens(connection: Connection[Any], rows: Sequence[DueRow]) -> frozenset[str]:
    falling = [row.customer for row in rows if row.kind in (RECYCLE, RECYCLE_WARNING)]
    last = follow_ups.last_standing(connection, falling) if falling else {}
    return frozenset(name for name, each in last.items() if each.remark == reasons.TOKEN_FOLLOW_UP)


def every_fall(
    connection: Connection[Any],
    until: datetime,
    *,
    owner: str | None = None,
    after: tuple[datetime, str] = deadlines.BEGINNING,
    limit: int,
) -> list[DueRow]:
    """Return what goes back to the pool up to ``until`` (UTC) if nobody does anything, in order."""
    return list(islice(_falls(connection, until, owner, after), limit))


def _falls(
    connection: Connection[Any], until: datetime, owner: str | None, after: tuple[datetime, str]
) -> Iterator[DueRow]:
    while True:
        page = deadlines.falling(connection, until, owner=owner, after=after)
        yield from page
        if len(page) < deadlines.PAGE:
            return
        after = (page[-1].falls or after[0], page[-1].customer)


def unstated_years(
    connection: Connection[Any], organisation: OrganisationAt, now: datetime
) -> list[int]:
    """Return the years, from now on, in which working days are counted by weekends alone.

    They are those up to the last one in which a customer falls back to the pool; none where the
    policy counts calendar days.
    """
    recycling = organisation.policy.policy.recycling
    if not recycling.rules or recycling.days != "working":
        return []
    last = max(deadlines.last_fall(connection) or now, now)
    return organisation.working_days.unstated(organisation.day(now), organisation.day(last))
