"""Stand-ins: who works an orphaned customer for the owner who has left, until a day. Pure.

A customer has one at a time. It is one until its day comes, is ended before, or the ownership ends,
whichever comes first. A customer's state holds it, and, since a late follow-up may ask for them,
those that were lately.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from ledger.events import decisions
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX

# Of those that were lately so many are remembered, the last ones; more is no business.
REMEMBERED_MAX = 8
# A day more than any policy looks back, for days of the organisation are not all of 24 hours.
_LATELY = timedelta(days=LATE_FOLLOW_UP_DAYS_MAX + 1)


@dataclass(frozen=True, slots=True)
class StandIn:
    """``person`` stands in for the owner in ``[since, until)`` (UTC)."""

    stand_in: str
    person: str
    since: datetime
    until: datetime

    def stands_at(self, moment: datetime) -> bool:
        """Say whether the person stands in at a moment."""
        return self.since <= moment < self.until


StandIns = tuple[StandIn, ...]
"""The last one first."""


def standing(stand_ins: StandIns, moment: datetime) -> StandIn | None:
    """Return who stands in at a moment, None where nobody does."""
    return next((each for each in stand_ins if each.stands_at(moment)), None)


def stands_in(stand_ins: StandIns, person: str, moment: datetime) -> bool:
    """Say whether ``person`` stands in at a moment."""
    return any(each.person == person and each.stands_at(moment) for each in stand_ins)


def named(
    before: StandIns, decision: decisions.StandInNamed, effective: datetime, recorded: datetime
) -> StandIns:
    """Fold a naming; ``recorded`` is when the request was that brings it."""
    new = StandIn(decision.stand_in, decision.person, effective, decision.until)
    kept = (each for each in before if each.until > recorded - _LATELY)
    return tuple(islice((new, *kept), REMEMBERED_MAX))


def ended(before: StandIns, at: datetime, stand_in: str | None = None) -> StandIns:
    """Fold an end at a moment: of one by its id, or where the ownership ends of all."""
    return tuple(
        replace(each, until=min(each.until, at)) if stand_in in (None, each.stand_in) else each
        for each in before
    )
