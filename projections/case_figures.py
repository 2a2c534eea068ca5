"""Figures per territory of what is to be settled: how long approvals take, and conflicts 撞单.

Computed when it is asked for, from the other read models. The territory is the one in which the
customer was when the approval or conflict was opened; the history of the customer knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection, sql

from ledger.conflicts import GONE


@dataclass(frozen=True, slots=True)
class ApprovalTimes:
    """How long approvals of one outcome took, from the opening to the end, in whole seconds."""

    outcome: str
    approvals: int
    median_seconds: int
    longest_seconds: int


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """What was settled in a territory in a period; ``territory`` None is what lies in none.

    ``approvals`` ended in the period; those that needed no step took no time, and are not counted.
    ``conflicts_opened`` were opened in it, ``ruled`` (by ruling) and ``gone`` ended in it;
    ``approvals_open`` and ``conflicts_open`` were still open at its end.
    """

    territory: str | None
    name: str | None
    approvals: tuple[ApprovalTimes, ...]
    approvals_open: int
    conflicts_opened: int
    conflicts_open: int
    ruled: Mapping[str, int]
    gone: int


# Which cases there were in the period, and where their customers were: each of these decisions says
# in which territory the customer is from then on.
_PLACED = """
WITH placed AS (
    SELECT c.*, (
        SELECT t.details ->> 'territory' FROM projections.timeline t
        WHERE t.customer = c.customer AND t.position < c.opened_position
          AND t.event IN ('CustomerAdmitted', 'CustomerChanged', 'OwnershipGranted',
                          'OwnershipAssigned', 'OwnershipTransferred', 'OwnershipReleased',
                          'CustomerRecycled')
        ORDER BY t.position DESC LIMIT 1) AS territory,
        CASE WHEN c.closed < %(until)s THEN c.outcome END AS ended
    FROM {cases} c
    WHERE c.opened < %(until)s AND (c.closed IS NULL OR c.closed >= %(since)s)
)
"""
_APPROVALS = """
SELECT territory, ended, count(*),
    round(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM closed - opened)))::bigint,
    round(max(extract(epoch FROM closed - opened)))::bigint
FROM placed WHERE jsonb_array_length(state -> 'steps') > 0
GROUP BY territory, ended ORDER BY ended
"""
_CONFLICTS = """
SELECT territory, ended, count(*), count(*) FILTER (WHERE opened >= %(since)s)
FROM placed GROUP BY territory, ended ORDER BY ended
"""
_TERRITORIES = "SELECT territory, name FROM projections.territories ORDER BY defined"


def case_figures(
    connection: Connection[Any], since: datetime, until: datetime
) -> list[CaseFigures]:
    """Return the figures of every territory for ``[since, until)`` (UTC), as they are defined.

    What lay in none, where there is any, comes last, and before that what lay in one that was never
    defined.
    """
    period = {"since": since, "until": until}
    approvals = _by_territory(connection, "approvals", _APPROVALS, period)
    disputes = _by_territory(connection, "conflicts", _CONFLICTS, period)
    names: dict[str | None, str | None] = dict(connection.execute(_TERRITORIES).fetchall())
    mentioned = {*approvals, *disputes} - names.keys()
    for territory in sorted(mentioned, key=lambda each: (each is None, each or "")):
        names[territory] = None
    return [
        _figures(territory, name, approvals.get(territory, {}), disputes.get(territory, {}))
        for territory, name in names.items()
    ]


# By how they ended, None for those that had not ended yet: how many, and what else is counted.
_Counts = Mapping[str | None, tuple[int, ...]]


def _by_territory(
    connection: Connection[Any], cases: str, counting: LiteralString, period: Mapping[str, datetime]
) -> dict[str | None, dict[str | None, tuple[int, ...]]]:
    statement = sql.SQL(_PLACED).format(cases=sql.Identifier("projections", cases))
    found: dict[str | None, dict[str | None, tuple[int, ...]]] = {}
    for territory, ended, *counts in connection.execute(statement + sql.SQL(counting), period):
        found.setdefault(territory, {})[ended] = tuple(counts)
    return found


def _figures(
    territory: str | None, name: str | None, approvals: _Counts, disputes: _Counts
) -> CaseFigures:
    return CaseFigures(
        territory,
        name,
        tuple(ApprovalTimes(how, *counts) for how, counts in approvals.items() if how is not None),
        approvals.get(None, (0,))[0],
        sum(opened for _, opened in disputes.values()),
        disputes.get(None, (0,))[0],
        {how: ended for how, (ended, _) in disputes.items() if how not in (None, GONE)},
        disputes.get(GONE, (0,))[0],
    )
