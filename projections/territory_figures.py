"""Figures per territory: customers owned and free, claims by outcome and day, deals, follow-ups.

Only claims are counted as they are decided: by the claimant's home territory of that moment and
by day. What awaits approval is counted apart until that has ended. Everything else is computed
when it is asked for, from the other read models, so that it follows a customer from one territory
to another. Deals and follow-ups count once they were decided
to be at a customer that was admitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import Connection

from ledger.approving import CLAIM
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events import organisation as facts
from ledger.reasons import CUSTOMER_NOT_ADMITTED
from ledger.store.arrays import text_array
from projections.base import Change, Table
from projections.batches import write

# Nobody's home; a key cannot be NULL.
_NOWHERE = ""
# The reason of a claim that was not refused.
_GRANTED = ""

_TABLES = (
    Table(
        "territory_claims",
        """
        territory text COLLATE "C" NOT NULL,
        day       date NOT NULL,
        reason    text NOT NULL,
        claims    bigint NOT NULL,
        PRIMARY KEY (territory, day, reason)
        """,
        ("CREATE INDEX territory_claims_day ON territory_claims (day)",),
    ),
    # What the count needs to know of the organisation at each point of the log.
    Table(
        "territory_homes",
        """
        person    text COLLATE "C" NOT NULL PRIMARY KEY,
        territory text COLLATE "C" NOT NULL
        """,
    ),
    # Claims that await approval, and whose home it was when they began to.
    Table(
        "territory_awaiting",
        """
        approval  text COLLATE "C" NOT NULL PRIMARY KEY,
        claimant  text COLLATE "C" NOT NULL,
        territory text COLLATE "C" NOT NULL
        """,
    ),
    Table(
        "territory_days",
        """
        one       boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
        time_zone text NOT NULL
        """,
    ),
)
_ZONE = "SELECT time_zone FROM territory_days"
_PUT_ZONE = """
INSERT INTO territory_days (time_zone) SELECT time_zone
FROM jsonb_to_recordset(%s::jsonb) AS r(time_zone text)
ON CONFLICT (one) DO UPDATE SET time_zone = excluded.time_zone
"""
_HOMES = "SELECT person, territory FROM territory_homes WHERE person = ANY(%b)"
_PUT_HOMES = """
INSERT INTO territory_homes (person, territory)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(person text, territory text)
ON CONFLICT (person) DO UPDATE SET territory = excluded.territory
"""
_AWAITED = "SELECT approval, claimant FROM territory_awaiting WHERE approval = ANY(%b)"
_PUT_AWAITING = """
INSERT INTO territory_awaiting (approval, claimant, territory)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(approval text, claimant text, territory text)
"""
_DROP_AWAITING = "DELETE FROM territory_awaiting WHERE approval = ANY(%b)"
_COUNT = """
INSERT INTO territory_claims AS t (territory, day, reason, claims)
SELECT * FROM jsonb_to_recordset(%s::jsonb)
    AS r(territory text, day date, reason text, claims bigint)
ON CONFLICT (territory, day, reason) DO UPDATE SET claims = t.claims + excluded.claims
"""


class TerritoryFigures:
    """The projection: counts the claims of a batch in memory, and adds the sums."""

    name = "territory_figures"
    version = 2
    tables = _TABLES
    handles = frozenset(
        {
            "OrganisationFounded.v1",
            "PersonJoined.v1",
            "PersonChanged.v1",
            "OwnershipGranted.v1",
            "ClaimRefused.v1",
            "ApprovalOpened.v1",
            "ApprovalClosed.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        events = [change.event for change in changes]
        zone = _zone(connection)
        waiting = _Waiting(_awaited(connection, events))
        homes = _homes(connection, events, waiting)
        moved: dict[str, str] = {}
        counts: Counter[tuple[str, date, str]] = Counter()
        for event in events:
            match event.data:
                case decisions.OwnershipGranted(owner_territory=home):
                    day = event.effective.astimezone(zone).date()
                    counts[home or _NOWHERE, day, _GRANTED] += 1
                case decisions.ClaimRefused(claimant=claimant, reason=reason):
                    day = event.effective.astimezone(zone).date()
                    counts[homes.get(claimant, _NOWHERE), day, reason] += 1
                case decisions.ApprovalOpened(approval=name, receiver=str(claimant)) as opened:
                    if opened.purpose == CLAIM:
                        waiting.open(name, claimant, homes.get(claimant, _NOWHERE))
                case decisions.ApprovalOpened():
                    pass
                case decisions.ApprovalClosed() as closed:
                    claimed = waiting.close(closed.approval)
                    # What was approved is counted by its grant.
                    if claimed is not None and closed.outcome != "completed":
                        day = event.effective.astimezone(zone).date()
                        why = closed.reason or closed.outcome
                        counts[homes.get(claimed, _NOWHERE), day, why] += 1
                case facts.PersonJoined() | facts.PersonChanged() as data:
                    homes[data.person] = moved[data.person] = data.territory or _NOWHERE
                case facts.OrganisationFounded(time_zone=name):
                    zone = ZoneInfo(name)
                    write(connection, _PUT_ZONE, [{"time_zone": name}])
                case _:
                    raise AssertionError(f"{event.name} was not asked for")
        write(
            connection,
            _PUT_HOMES,
            [{"person": person, "territory": home} for person, home in moved.items()],
        )
        waiting.write(connection)
        write(
            connection,
            _COUNT,
            [
                {"territory": territory, "day": day, "reason": reason, "claims": count}
                for (territory, day, reason), count in counts.items()
            ],
        )


def _zone(connection: Connection[Any]) -> ZoneInfo:
    row = connection.execute(_ZONE).fetchone()
    return ZoneInfo(row[0] if row else "UTC")


@dataclass(slots=True)
class _Waiting:
    """The claims that await approval: of those from before the batch whose they are, by approval.

    ``new`` are those of the batch, with their claimants and these people's homes.
    """

    before: dict[str, str]
    new: dict[str, tuple[str, str]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)

    def open(self, approval: str, claimant: str, home: str) -> None:
        self.new[approval] = (claimant, home)

    def close(self, approval: str) -> str | None:
        """Return who claimed, None where the approval was of no claim."""
        if approval in self.new:
            return self.new.pop(approval)[0]
        claimant = self.before.get(approval)
        if claimant is not None:
            self.over.add(approval)
        return claimant

    def write(self, connection: Connection[Any]) -> None:
        if self.over:
            connection.execute(_DROP_AWAITING, (text_array(sorted(self.over)),))
        rows = [
            {"approval": approval, "claimant": claimant, "territory": home}
            for approval, (claimant, home) in self.new.items()
        ]
        write(connection, _PUT_AWAITING, rows)


def _awaited(connection: Connection[Any], events: Sequence[Event]) -> dict[str, str]:
    closed = {
        event.data.approval for event in events if isinstance(event.data, decisions.ApprovalClosed)
    }
    if not closed:
        return {}
    return dict(connection.execute(_AWAITED, (text_array(sorted(closed)),)).fetchall())


def _homes(
    connection: Connection[Any], events: Sequence[Event], waiting: _Waiting
) -> dict[str, str]:
    claimants = {
        event.data.claimant for event in events if isinstance(event.data, decisions.ClaimRefused)
    }
    claimants.update(waiting.before.values())
    claimants.update(
        event.data.receiver or ""
        for event in events
        if isinstance(event.data, decisions.ApprovalOpened) and event.data.purpose == CLAIM
    )
    if not claimants:
        return {}
    rows = connection.execute(_HOMES, (text_array(sorted(claimants)),))
    return dict(rows.fetchall())


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WonDeals:
    """Deals won that count, and their value in one currency (None: those without a value)."""

    currency: str | None
    deals: int
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class FiguresOfTerritory:
    """What there is in a territory; ``territory`` None is what lies in none.

    ``owned``, ``free`` and ``closed`` (closed and nobody's) count the customers whose territory it
    is now; deals and follow-ups are those at these customers. ``granted`` and ``refused`` (by
    reason code) count all claims by people whose home it was when the claim was decided; a claim
    that awaited approval in vain is refused for how that ended. ``awaiting`` counts those that
    still do, by people whose home it was when they began to.
    """

    territory: str | None
    name: str | None
    owned: int
    free: int
    closed: int
    granted: int
    refused: Mapping[str, int]
    won: tuple[WonDeals, ...]
    lost: int
    follow_ups: int
    awaiting: int = 0


@dataclass(frozen=True, slots=True)
class DayOfClaims:
    """The claims decided on a day of the organisation; ``refused`` by reason code."""

    day: date
    granted: int
    refused: Mapping[str, int]


_TERRITORIES = "SELECT territory, name FROM projections.territories ORDER BY defined"
_CUSTOMERS = """
SELECT o.customer_territory, count(o.owner),
    count(*) FILTER (WHERE o.owner IS NULL AND c.customer IS NULL),
    count(*) FILTER (WHERE o.owner IS NULL AND c.customer IS NOT NULL)
FROM projections.ownership o
LEFT JOIN (SELECT customer FROM projections.customers WHERE state = 'closed') c
    ON c.customer = o.customer
GROUP BY o.customer_territory
"""
_CLAIMS = """
SELECT nullif(territory, ''), reason, sum(claims)::bigint FROM projections.territory_claims
GROUP BY territory, reason ORDER BY reason
"""
_AWAITING = """
SELECT nullif(territory, ''), count(*) FROM projections.territory_awaiting GROUP BY territory
"""
_DEALS = """
SELECT o.customer_territory, d.outcome, d.currency, count(*), sum(d.amount)
FROM projections.deals d LEFT JOIN projections.ownership o ON o.customer = d.customer
WHERE d.voided IS NULL AND d.decided IS NOT NULL AND d.remark IS DISTINCT FROM %s
GROUP BY o.customer_territory, d.outcome, d.currency ORDER BY d.currency
"""
_FOLLOW_UPS = """
SELECT o.customer_territory, count(*)
FROM projections.follow_ups f LEFT JOIN projections.ownership o ON o.customer = f.customer
WHERE f.voided IS NULL AND f.decided IS NOT NULL AND f.remark IS DISTINCT FROM %s
GROUP BY o.customer_territory
"""
_DAYS = """
SELECT day, reason, sum(claims)::bigint FROM projections.territory_claims
WHERE day >= %(since)s AND day <= %(until)s
  AND (%(territory)s::text IS NULL OR territory = %(territory)s)
GROUP BY day, reason ORDER BY day, reason
"""


def figures(connection: Connection[Any]) -> list[FiguresOfTerritory]:
    """Return the figures of every territory in the order of definition.

    What lies in none, where there is any, comes last, and what lies in one that was never defined
    before that.
    """
    customers = {row[0]: row[1:] for row in connection.execute(_CUSTOMERS)}
    not_admitted = (CUSTOMER_NOT_ADMITTED,)
    follow_ups: dict[str | None, int] = dict(
        connection.execute(_FOLLOW_UPS, not_admitted).fetchall()
    )
    claims: dict[str | None, dict[str, int]] = {}
    for territory, reason, count in connection.execute(_CLAIMS):
        claims.setdefault(territory, {})[reason] = count
    awaiting: dict[str | None, int] = dict(connection.execute(_AWAITING).fetchall())
    won: dict[str | None, list[WonDeals]] = {}
    lost: Counter[str | None] = Counter()
    for territory, outcome, currency, count, amount in connection.execute(_DEALS, not_admitted):
        if outcome == "won":
            won.setdefault(territory, []).append(WonDeals(currency, count, amount))
        else:
            lost[territory] += count
    names: dict[str | None, str | None] = dict(connection.execute(_TERRITORIES).fetchall())
    mentioned = {*customers, *follow_ups, *claims, *awaiting, *won, *lost} - names.keys()
    for territory in sorted(mentioned, key=lambda each: (each is None, each or "")):
        names[territory] = None
    result = []
    for territory, name in names.items():
        owned, free, closed = customers.get(territory, (0, 0, 0))
        refused = dict(claims.get(territory, {}))
        granted = refused.pop(_GRANTED, 0)
        result.append(
            FiguresOfTerritory(
                territory,
                name,
                owned,
                free,
                closed,
                granted,
                refused,
                tuple(won.get(territory, ())),
                lost[territory],
                follow_ups.get(territory, 0),
                awaiting.get(territory, 0),
            )
        )
    return result


def claims_per_day(
    connection: Connection[Any], since: date, until: date, *, territory: str | None = None
) -> list[DayOfClaims]:
    """Return the days from ``since`` to ``until`` (both included) that had claims, in order.

    ``territory`` keeps to claims by people whose home it was.
    """
    rows = connection.execute(_DAYS, {"since": since, "until": until, "territory": territory})
    days: dict[date, dict[str, int]] = {}
    for day, reason, count in rows:
        days.setdefault(day, {})[reason] = count
    return [
        DayOfClaims(
            day,
            counts.get(_GRANTED, 0),
            {reason: count for reason, count in counts.items() if reason != _GRANTED},
        )
        for day, counts in days.items()
    ]
