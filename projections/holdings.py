"""Holdings and workload per person: what is held now, what came lately, when they last did a thing.

What somebody held before, and why it ended, are the intervals of that owner
(``intervals.of_owner``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.reasons import CUSTOMER_NOT_ADMITTED
from ledger.store.arrays import int4_array
from projections.base import Change, Table
from projections.columns import instants, texts

_HOLDINGS = Table(
    "holdings",
    """
    person   text COLLATE "C" NOT NULL PRIMARY KEY,
    held     integer NOT NULL,
    held_won integer NOT NULL
    """,
    ("CREATE INDEX holdings_held ON holdings (held, person)",),
)
# Whose a customer is, and how many won deals of it stand: what held_won depends on.
_CUSTOMERS = Table(
    "holding_customers",
    """
    customer  text COLLATE "C" NOT NULL PRIMARY KEY,
    owner     text COLLATE "C",
    won_deals integer NOT NULL
    """,
)
# Follow-ups (outcome NULL) and deals. At what was never admitted there are none: neither do they
# count for anybody, nor can they be corrected.
_ACTS = Table(
    "holding_acts",
    """
    act      text COLLATE "C" NOT NULL PRIMARY KEY,
    customer text COLLATE "C" NOT NULL,
    person   text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,
    outcome  text COLLATE "C",
    stands   boolean NOT NULL
    """,
    ("CREATE INDEX holding_acts_person ON holding_acts (person, at) WHERE stands",),
)
_LOAD_ACTS = """
SELECT act, customer, person, at, outcome, stands FROM holding_acts WHERE act = ANY(%b)
"""
_AMEND_ACTS = """
UPDATE holding_acts a SET at = r.at, outcome = r.outcome, stands = r.stands
FROM unnest(%b::text[], %b::timestamptz[], %b::text[], %b::integer[])
    AS given(act, at, outcome, standing),
    LATERAL (SELECT given.at, given.outcome, given.standing = 1 AS stands) r
WHERE a.act = given.act
"""
# One statement for all: what each touched customer was before, what it is after, and what that
# makes of the people. An act that was recorded before is passed over, as the deciders do.
_FOLD = """
WITH recorded AS (
    INSERT INTO holding_acts (act, customer, person, at, outcome, stands)
    SELECT r.act, r.customer, r.person, r.at, r.outcome, r.standing = 1
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::integer[])
        AS r(act, customer, person, at, outcome, standing)
    ON CONFLICT (act) DO NOTHING
    RETURNING customer, outcome, stands
), won AS (
    SELECT customer, sum(n)::integer AS n FROM (
        SELECT customer, (outcome = 'won' AND stands)::integer AS n
        FROM recorded WHERE outcome IS NOT NULL
        UNION ALL
        SELECT * FROM unnest(%b::text[], %b::integer[])) AS each(customer, n)
    GROUP BY customer
), tenure AS (
    SELECT * FROM unnest(%b::text[], %b::text[]) AS t(customer, owner)
), before AS (
    SELECT touched.customer, h.owner, coalesce(h.won_deals, 0) AS won_deals
    FROM (SELECT customer FROM won UNION SELECT customer FROM tenure) touched
    LEFT JOIN holding_customers h USING (customer)
), after AS (
    SELECT b.customer, CASE WHEN t.customer IS NULL THEN b.owner ELSE t.owner END AS owner,
           b.won_deals + coalesce(w.n, 0) AS won_deals
    FROM before b LEFT JOIN tenure t USING (customer) LEFT JOIN won w USING (customer)
), stored AS (
    INSERT INTO holding_customers (customer, owner, won_deals) SELECT * FROM after
    ON CONFLICT (customer) DO UPDATE SET owner = excluded.owner, won_deals = excluded.won_deals
), differences AS (
    SELECT owner AS person, -1 AS held, -(won_deals > 0)::integer AS held_won
    FROM before WHERE owner IS NOT NULL
    UNION ALL
    SELECT owner, 1, (won_deals > 0)::integer FROM after WHERE owner IS NOT NULL
    UNION ALL
    SELECT person, 0, 0 FROM unnest(%b::text[]) AS a(person)
)
INSERT INTO holdings AS h (person, held, held_won)
SELECT person, sum(held), sum(held_won) FROM differences GROUP BY person ORDER BY person
ON CONFLICT (person) DO UPDATE SET
    held = h.held + excluded.held, held_won = h.held_won + excluded.held_won
WHERE excluded.held <> 0 OR excluded.held_won <> 0
"""


@dataclass(slots=True)
class _Act:
    """A follow-up or deal as it stands in the table."""

    act: str
    customer: str
    person: str
    at: datetime
    outcome: str | None
    stands: bool

    @property
    def won(self) -> int:
        """How much it adds to the won deals of its customer."""
        return int(self.outcome == "won" and self.stands)


@dataclass(slots=True)
class _Batch:
    """What a batch brings, folded in order."""

    recorded: dict[str, _Act] = field(default_factory=dict)
    amended: dict[str, _Act] = field(default_factory=dict)
    won: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str | None] = field(default_factory=dict)
    people: set[str] = field(default_factory=set)

    def record(self, cause: Event, decision: decisions.Noted) -> None:
        """Take in a follow-up or deal that was noted at a customer of ours."""
        if decision.remark == CUSTOMER_NOT_ADMITTED:
            return
        data = cause.data
        if isinstance(data, requests.FollowUpLogged):
            act, outcome = data.follow_up, None
        else:
            act, outcome = data.deal, data.outcome
        self.people.add(data.person)
        if act not in self.recorded:
            self.recorded[act] = _Act(
                act, decision.customer, data.person, cause.occurred, outcome, True
            )

    def amend(self, act_id: str, cause: Event) -> None:
        """Take in a correction or a voiding."""
        act = self.recorded.get(act_id) or self.amended.get(act_id)
        if act is None:
            raise LookupError(f"{act_id} was corrected before it was recorded")
        before, data = act.won, cause.data
        match data:
            case requests.FollowUpCorrected():
                act.at = data.at or act.at
            case requests.DealCorrected():
                act.outcome = data.outcome or act.outcome
            case _:
                act.stands = False
        if act_id in self.amended and act.outcome is not None:
            self.won[act.customer] = self.won.get(act.customer, 0) + act.won - before


_AMENDMENTS = (
    requests.FollowUpCorrected,
    requests.FollowUpVoided,
    requests.DealCorrected,
    requests.DealVoided,
)
_RECORDS = (requests.FollowUpLogged, requests.DealRecorded)


class Holdings:
    """The projection of holdings."""

    name = "holdings"
    version = 1
    tables: Sequence[Table] = (_HOLDINGS, _CUSTOMERS, _ACTS)
    handles = frozenset(
        {
            "OwnershipGranted.v1",
            "OwnershipAssigned.v1",
            "OwnershipReleased.v1",
            "CustomerRecycled.v1",
            "OwnershipTransferred.v1",
            "Noted.v1",
        }
    )
    needs_cause = frozenset({"Noted.v1"})

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        batch = _Batch()
        _load(connection, batch, changes)
        for event, cause in changes:
            data = event.data
            match data:
                case decisions.Noted():
                    if cause is None:
                        raise LookupError(f"the request of the note at {event.position} is missing")
                    if isinstance(cause.data, _RECORDS):
                        batch.record(cause, data)
                    elif isinstance(cause.data, _AMENDMENTS):
                        batch.amend(_amended(cause.data), cause)
                case decisions.OwnershipReleased() | decisions.CustomerRecycled():
                    batch.owners[data.customer] = None
                    batch.people.add(data.owner)
                case _:
                    batch.owners[data.customer] = data.owner
                    batch.people.add(data.owner)
                    if isinstance(data, decisions.OwnershipTransferred):
                        batch.people.add(data.former_owner)
        _write(connection, batch)


def _amended(data: Any) -> str:
    act: str = data.deal if hasattr(data, "deal") else data.follow_up
    return act


def _load(connection: Connection[Any], batch: _Batch, changes: Iterable[Change]) -> None:
    """Load the acts that the batch amends; few batches do."""
    acts = {
        _amended(cause.data)
        for _, cause in changes
        if cause is not None and isinstance(cause.data, _AMENDMENTS)
    }
    if acts:
        rows = connection.execute(_LOAD_ACTS, (texts(sorted(acts)),), binary=True)
        batch.amended = {row[0]: _Act(*row) for row in rows}


def _write(connection: Connection[Any], batch: _Batch) -> None:
    acts, amended = list(batch.recorded.values()), list(batch.amended.values())
    if amended:
        connection.execute(
            _AMEND_ACTS,
            (
                texts([each.act for each in amended]),
                instants([each.at for each in amended]),
                texts([each.outcome for each in amended]),
                int4_array([int(each.stands) for each in amended]),
            ),
            binary=True,
        )
    if not (acts or batch.won or batch.owners or batch.people):
        return
    connection.execute(
        _FOLD,
        (
            texts([each.act for each in acts]),
            texts([each.customer for each in acts]),
            texts([each.person for each in acts]),
            instants([each.at for each in acts]),
            texts([each.outcome for each in acts]),
            int4_array([int(each.stands) for each in acts]),
            texts(list(batch.won)),
            int4_array(list(batch.won.values())),
            texts(list(batch.owners)),
            texts(list(batch.owners.values())),
            texts(sorted(batch.people)),
        ),
        binary=True,
    )


# --- queries -----------------------------------------------------------------------------------

PAGE = 100_000


@dataclass(frozen=True, slots=True)
class Workload:
    """What a person holds, and did lately. Days are the organisation's, today among them.

    ``held_won`` are the customers held that have a won deal. Grants are claims that were granted;
    what a manager assigned is not among them. Follow-ups are those that stand. ``last_activity``
    (UTC) is the latest beginning of an ownership, follow-up or deal.
    """

    person: str
    held: int
    held_won: int
    grants_today: int
    grants_7_days: int
    follow_ups_7_days: int
    follow_ups_30_days: int
    last_activity: datetime | None

    @property
    def follow_ups(self) -> int:
        """The follow-ups of the last 30 days."""
        return self.follow_ups_30_days


_WORKLOADS = """
SELECT h.person, h.held, h.held_won, g.today AS grants_today, g.week AS grants_7_days,
       f.week AS follow_ups_7_days, f.month AS follow_ups_30_days,
       greatest(
           (SELECT max(i.from_effective) FROM projections.ownership_intervals i
            WHERE i.owner = h.person),
           (SELECT max(a.at) FROM projections.holding_acts a
            WHERE a.person = h.person AND a.stands)) AS last_activity
FROM (SELECT (SELECT coalesce(max(time_zone), 'UTC') FROM projections.organisation) AS zone) z
CROSS JOIN LATERAL (SELECT (%(now)s AT TIME ZONE zone)::date AS day) today
CROSS JOIN LATERAL (
    SELECT (day::timestamp AT TIME ZONE zone) AS today,
           ((day - 6)::timestamp AT TIME ZONE zone) AS week,
           ((day - 29)::timestamp AT TIME ZONE zone) AS month) since
CROSS JOIN (
    SELECT * FROM projections.holdings p
    WHERE (%(people)s::text[] IS NULL OR p.person = ANY(%(people)s))
    ORDER BY p.held DESC, p.person LIMIT %(limit)s) h
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE i.from_effective >= since.today) AS today, count(*) AS week
    FROM projections.ownership_intervals i
    WHERE i.owner = h.person AND i.from_effective >= since.week AND i.assigned_by IS NULL) g
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE a.at >= since.week) AS week, count(*) AS month
    FROM projections.holding_acts a
    WHERE a.person = h.person AND a.at >= since.month AND a.stands AND a.outcome IS NULL) f
ORDER BY h.held DESC, h.person
"""


def workloads(
    connection: Connection[Any],
    people: Sequence[str] | None = None,
    *,
    now: datetime | None = None,
    limit: int = PAGE,
) -> list[Workload]:
    """Return the workload of ``people`` (None: of everybody), who holds most first.

    Whoever never held, followed up or closed anything is not among them. ``now`` is the moment
    from which the days are counted back; None is the present.
    """
    given = {
        "now": now or datetime.now(UTC),
        "people": None if people is None else list(people),
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(Workload), binary=True) as cursor:
        return cursor.execute(_WORKLOADS, given).fetchall()
