"""Orphaned customers, and in whose care they are: told alike on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger import orphans
from ledger.organisation import OrganisationAt
from projections import orphans as views
from projections.orphans import Orphan


def territories_below(organisation: OrganisationAt, territory: str | None) -> list[str] | None:
    """Return a territory and those below it; None where none is named."""
    if territory is None:
        return None
    return [
        each.territory
        for each in organisation.territories()
        if organisation.is_within(each.territory, territory)
    ]


def every_orphan(
    connection: Connection[Any],
    organisation: OrganisationAt,
    now: datetime,
    *,
    territory: str | None = None,
    owner: str | None = None,
    after: str = "",
) -> Iterator[Orphan]:
    """Yield orphaned customers by id, behind ``after``; ``territory`` takes those below it, too."""
    today, zone = organisation.day(now), organisation.time_zone.key
    below = territories_below(organisation, territory)
    while True:
        page = views.list_orphans(
            connection, now, today, zone, owner=owner, territories=below, after=after
        )
        yield from page
        if len(page) < views.PAGE:
            return
        after = page[-1].customer


def carers(orphan: Orphan, organisation: OrganisationAt, now: datetime) -> tuple[str, ...]:
    """Return who looks after an orphaned customer today."""
    where, today = orphan.customer_territory, organisation.day(now)
    return orphans.looked_after_by(orphan.owner, where, organisation, today)


def is_in_care_of(person: str, orphan: Orphan, organisation: OrganisationAt, now: datetime) -> bool:
    """Say whether somebody acts today as the owner of an orphaned customer."""
    where, today = orphan.customer_territory, organisation.day(now)
    return orphans.acts_as_owner(person, orphan.owner, where, organisation, today)
