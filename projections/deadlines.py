"""What falls due next at each customer, and when: what the clock follows.

A row holds what the decider counts from, folded by the decider's own functions, and what it would
say is next. That changes with facts of the organisation as well: who is away, which policy is in
force, which import was closed.

Until a policy first recycles there is a row only where something is open, a transfer or a conflict,
and no more than that in it: what everybody does all day, claims and follow-ups, costs nothing. From
then on there is one for every customer, with all that recycling counts from. With that policy they
are made from the log, in one go, which takes about as long as a rebuild of this read model would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import zip_longest
from typing import Any

import orjson
from psycopg import Connection

from ledger import collaborating, conflicts, deadlines, recycling
from ledger.approving import after as approval_after
from ledger.customer import (
    Admitted,
    Customer,
    Held,
    admitted,
    approval_closed,
    changed,
    given_up,
    open_approvals,
    taken,
)
from ledger.envelope import Event, StoredEvent, decode
from ledger.events import decisions, requests
from ledger.events import organisation as facts
from ledger.events.catalogue import catalogue
from ledger.organisation import Organisation, OrganisationAt
from ledger.store.arrays import int8_array, text_array
from ledger.store.guards import customer_json, customer_of
from ledger.store.reading import POSITION_MAX, read_requests
from projections import won_deals
from projections.base import Change, Table
from projections.batches import put_rows
from projections.columns import instants, texts
from projections.facts import Facts

# A row without ``due`` waits for something else. ``falls`` is when the customer goes back to the
# pool if nobody does anything, and ``owner`` whose it is, where that is counted.
_TABLE = Table(
    "deadlines",
    """
    customer  text COLLATE "C" NOT NULL PRIMARY KEY,
    owner     text COLLATE "C",
    kind      text COLLATE "C",
    subject   text COLLATE "C",
    due       timestamptz,
    falls     timestamptz,
    because   text COLLATE "C",
    import_id text COLLATE "C",
    state     jsonb NOT NULL
    """,
    (
        "CREATE INDEX deadlines_due ON deadlines (due, customer) WHERE due IS NOT NULL",
        "CREATE INDEX deadlines_falls ON deadlines (falls, customer) WHERE falls IS NOT NULL",
        "CREATE INDEX deadlines_owner ON deadlines (owner, customer) WHERE owner IS NOT NULL",
        "CREATE INDEX deadlines_import ON deadlines (import_id, customer)"
        " WHERE import_id IS NOT NULL",
    ),
)
_LOAD = "SELECT customer, state::text FROM deadlines WHERE customer = ANY(%b)"
_PUT = """
INSERT INTO deadlines (customer, owner, kind, subject, due, falls, because, import_id, state)
SELECT r.customer, r.owner, r.kind, r.subject, r.due, r.falls, r.because, r.import_id,
    r.state::jsonb
FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[],
    %b::text[], %b::text[], %b::text[])
    AS r(customer, owner, kind, subject, due, falls, because, import_id, state)
ON CONFLICT (customer) DO UPDATE SET owner = excluded.owner, kind = excluded.kind,
    subject = excluded.subject, due = excluded.due, falls = excluded.falls,
    because = excluded.because, import_id = excluded.import_id, state = excluded.state
"""
_DROP = "DELETE FROM deadlines WHERE customer = ANY(%b)"
_DROP_ALL = "DELETE FROM deadlines"
_LOG = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position > %b AND position <= %b AND name = ANY(%b)
ORDER BY position LIMIT %b
"""
_PACKERS = (texts, texts, texts, texts, instants, instants, texts, texts, texts)
# Which rows a fact concerns: those of an owner, of an import, all that are owned, or simply all.
_OF_OWNER = """
SELECT customer, state::text FROM deadlines WHERE owner = %(value)s AND customer > %(after)s
ORDER BY customer LIMIT %(limit)s
"""
_OF_IMPORT = """
SELECT customer, state::text FROM deadlines WHERE import_id = %(value)s AND customer > %(after)s
ORDER BY customer LIMIT %(limit)s
"""
_OWNED = """
SELECT customer, state::text FROM deadlines WHERE owner IS NOT NULL AND customer > %(after)s
ORDER BY customer LIMIT %(limit)s
"""
_ALL = """
SELECT customer, state::text FROM deadlines WHERE customer > %(after)s
ORDER BY customer LIMIT %(limit)s
"""
_AT_ONCE = 2_000
_EVENTS_AT_ONCE = 5_000

_FACTS = frozenset(
    f"{each.__name__}.v1"
    for each in (
        facts.ImportClosed,
        facts.PolicyAdopted,
        facts.TerritoryDefined,
        facts.CalendarStated,
        facts.PersonAway,
        facts.AbsenceEnded,
        facts.PersonLeft,
        facts.PersonReturned,
    )
)
_CALENDAR = "CalendarStated.v1"
_CAUSED = frozenset(
    {
        "CustomerAdmitted.v1",
        "CustomerChanged.v1",
        "Noted.v1",
        "ApprovalOpened.v1",
        "ConflictOpened.v1",
    }
)


# What opens, changes and closes that for which there is a row without any recycling.
_OF_WHAT_IS_OPEN = frozenset(
    {
        "ApprovalOpened.v1",
        "StepAnswered.v1",
        "StepOpened.v1",
        "StepReminded.v1",
        "StepPassedOn.v1",
        "ApprovalClosed.v1",
        "ConflictOpened.v1",
        "RulingReminded.v1",
        "RulingPassedOn.v1",
        "ConflictClosed.v1",
    }
)
_COUNTED = (
    _CAUSED
    | _OF_WHAT_IS_OPEN
    | {
        "OwnershipGranted.v1",
        "OwnershipAssigned.v1",
        "OwnershipReleased.v1",
        "OwnershipTransferred.v1",
        "CustomerRecycled.v1",
        "RecycleWarned.v1",
        "RecycleHeld.v1",
    }
)


class Deadlines:
    """The projection of deadlines."""

    name = "deadlines"
    version = 3
    tables: Sequence[Table] = (_TABLE, won_deals.TABLE)
    handles = _FACTS | _COUNTED
    needs_cause = _CAUSED

    def __init__(self) -> None:
        self._facts = Facts()
        # From which position on is counted, as far as anybody knows; None: nobody has looked.
        self._since: int | None = None

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring: decisions together, up to a fact that concerns others."""
        since = self._counts_since(connection, changes)
        together: list[Change] = []
        for change in _as_if_stated_together(changes):
            event = change.event
            if event.name not in _FACTS:
                if event.position > since or event.name in _OF_WHAT_IS_OPEN or _asks_anew(change):
                    together.append(change)
            elif event.position == since:
                self._begin_counting(connection, event)
                together = []
            else:
                organisation = self._facts.upto(connection, event.position)
                found = _concerned(event, organisation)
                if found is not None:
                    self._fold(connection, together, since)
                    together = []
                    _count_again(connection, event, organisation, *found)
        self._fold(connection, together, since)

    def _counts_since(self, connection: Connection[Any], changes: Sequence[Change]) -> int:
        """Return the position from which on is counted; behind all positions where none is.

        Every policy comes by here, so that nothing is looked up where none has.
        """
        adopted = any(change.event.name == "PolicyAdopted.v1" for change in changes)
        if self._since is None or adopted:
            organisation = self._facts.upto(connection, changes[-1].event.position)
            since = organisation.recycles_since
            self._since = POSITION_MAX if since is None else since
        return self._since

    def _begin_counting(self, connection: Connection[Any], policy: Event) -> None:
        """Make the rows of all customers from the log, up to the first policy that recycles.

        What could not be applied before is tried again here; where it still cannot be, this fact
        cannot either, until a mending and a rebuild.
        """
        organisation = self._facts.upto(connection, policy.position)
        connection.execute(_DROP_ALL)
        won_deals.drop_all(connection)
        names = text_array(sorted(_COUNTED))
        position = 0
        while True:
            rows = connection.execute(
                _LOG, (position, policy.position, names, _EVENTS_AT_ONCE), binary=True
            ).fetchall()
            events = [decode(catalogue(), StoredEvent._make(row)) for row in rows]
            causes = [event.causation or 0 for event in events if event.name in _CAUSED]
            found = read_requests(connection, catalogue(), causes)
            changes = [Change(event, found.get(event.causation or 0)) for event in events]
            _fold(connection, changes, organisation)
            if len(rows) < _EVENTS_AT_ONCE:
                break
            position = rows[-1][0]
        _count_again(connection, policy, organisation, _ALL, None)

    def _fold(self, connection: Connection[Any], changes: Sequence[Change], since: int) -> None:
        if changes:
            position = changes[-1].event.position
            organisation = self._facts.upto(connection, position)
            _fold(connection, changes, organisation, counting=position > since)


def _fold(
    connection: Connection[Any],
    changes: Sequence[Change],
    organisation: Organisation,
    *,
    counting: bool = True,
) -> None:
    """Fold decisions into the rows of their customers, counting all or only what is open."""
    if not changes:
        return
    touched = {event.data.customer for event, _ in changes}
    states = dict(_states(connection.execute(_LOAD, (text_array(sorted(touched)),), binary=True)))
    won = won_deals.differences(connection, changes)
    at: dict[str, datetime] = {}
    over: set[str] = set()
    for change in changes:
        event, cause = change
        name = event.data.customer
        before = states.get(name)
        if before is None and not counting:
            before = _nothing_open(event.effective)
        state = _after(before, event, cause, organisation)
        if state is not None and event.position in won:
            state = state._replace(won_deals=state.won_deals + won[event.position])
        if state is not None and not counting and not _is_open(state):
            # At once, not at the end: what opens next begins anew, in this batch as in another.
            states.pop(name, None)
            at.pop(name, None)
            over.add(name)
        # Most follow-ups by others change nothing; but a deadline that did not hold asks anew.
        elif state is not None and (state is not before or _asks_anew(change)):
            states[name], at[name] = state, event.effective
    over -= at.keys()
    if over:
        connection.execute(_DROP, (text_array(sorted(over)),), binary=True)
    facts_then = organisation.at(changes[-1].event.position + 1)
    rows = [_row(name, states[name], facts_then, now) for name, now in at.items()]
    put_rows(connection, _PUT, _PACKERS, rows)


def _is_open(customer: Admitted) -> bool:
    return bool(customer.conflicts) or any(True for _ in open_approvals(customer))


def _nothing_open(effective: datetime) -> Admitted:
    """Return a customer of whom only what is open is ever folded."""
    return Admitted(effective, effective, "organisation", None, {}, {})


def _asks_anew(change: Change) -> bool:
    return change.cause is not None and isinstance(change.cause.data, requests.DeadlineReached)


def _states(rows: Iterable[Sequence[Any]]) -> Iterable[tuple[str, Admitted]]:
    for name, state in rows:
        customer: Customer = customer_of(orjson.loads(state))
        if isinstance(customer, Admitted):
            yield name, customer


def _after(
    before: Admitted | None, event: Event, cause: Event | None, organisation: Organisation
) -> Admitted | None:
    """Fold a decision as the settled state does; None where it is about no customer of ours."""
    data, effective = event.data, event.effective
    if isinstance(data, decisions.CustomerAdmitted):
        return admitted(_cause(event, cause).data, data, effective)
    if before is None:
        return None
    match data:
        case decisions.CustomerChanged():
            return changed(before, _cause(event, cause).data, data)
        case decisions.Noted():
            facts_then = organisation.at(event.causation or 0)
            return recycling.noted(before, _cause(event, cause), data, effective, facts_then)
        case decisions.RecycleWarned() | decisions.RecycleHeld():
            return recycling.told_or_held(before, data, effective)
        case decisions.OwnershipReleased() | decisions.CustomerRecycled():
            return given_up(before, effective, effective)
        case decisions.OwnershipTransferred():
            before = given_up(before, effective, effective)
            return taken(before, data.owner, effective, None, event.import_id)
        case decisions.OwnershipGranted() | decisions.OwnershipAssigned():
            return taken(before, data.owner, effective, None, event.import_id)
        case _:
            facts_then = organisation.at(event.causation or 0)
            after = _awaited(before, event, cause or event, facts_then)
            return recycling.paused_by(before, after, effective)


def _awaited(
    before: Admitted, event: Event, cause: Event, organisation: OrganisationAt
) -> Admitted:
    """Fold what becomes of approvals and conflicts; only the openings look at ``cause``."""
    data, effective = event.data, event.effective
    if isinstance(data, _DISPUTES):
        # What proves them is none of our business, nor are identifiers (see _kept).
        disputes = conflicts.after(before.conflicts, data, cause, effective, organisation, {})
        return before._replace(conflicts=disputes)
    theirs = before.collaborations
    if collaborating.is_about_one(theirs, data):
        theirs = collaborating.answered(theirs, data, cause, effective, organisation)
        return before._replace(collaborations=theirs)
    if isinstance(data, decisions.ApprovalClosed):
        return approval_closed(before, data.outcome, effective)
    approval = approval_after(
        before.approval,
        data,
        effective,
        policy=organisation.policy.number,
        import_id=event.import_id,
    )
    return before._replace(approval=approval)


_DISPUTES = (
    decisions.ConflictOpened,
    decisions.RulingReminded,
    decisions.RulingPassedOn,
    decisions.ConflictClosed,
)


def _cause(event: Event, cause: Event | None) -> Event:
    if cause is None:
        raise LookupError(f"the request of the decision at {event.position} is missing")
    return cause


def _row(
    name: str, customer: Admitted, organisation: OrganisationAt, now: datetime
) -> tuple[Any, ...]:
    fall = recycling.fall_of(name, customer, organisation, now)
    found = deadlines.next_beside(fall, customer, organisation)
    return (
        name,
        customer.owner,
        found and found.kind,
        found and found.subject,
        found and found.due,
        fall and fall.goes,
        fall and fall.because,
        _waits_for(customer, organisation),
        orjson.dumps(customer_json(_kept(customer))).decode(),
    )


def _kept(customer: Admitted) -> Admitted:
    """Return the customer without what is none of our business, and would only take room."""
    return customer._replace(
        identifiers={},
        contacts=frozenset(),
        sites=frozenset(),
        former=(),
        turned_down=(),
        allowed=(),
        stand_ins=(),
        collaborations=collaborating.awaiting(customer.collaborations),
        conflicts=tuple(replace(each, evidence=()) for each in customer.conflicts),
    )


def _waits_for(customer: Admitted, organisation: OrganisationAt) -> str | None:
    """Return an import that is still open, and whose closing what is due may wait for."""
    imports = [each.import_id for each in open_approvals(customer)]
    imports += [each.waiting.import_id for each in customer.conflicts]
    if isinstance(customer.tenure, Held):
        imports.append(customer.tenure.counting.import_id)
    named = {each for each in imports if each is not None}
    opened = (organisation.import_(each) for each in named)
    return min((each.import_id for each in opened if each and not each.closed), default=None)


# --- facts that concern customers ----------------------------------------------------------------


def _concerned(event: Event, organisation: Organisation) -> tuple[str, str | None] | None:
    """Return which rows a fact concerns, as a query and its value; None for none of them."""
    before, after = organisation.at(event.position), organisation.at(event.position + 1)
    had, has = (each.policy.policy.recycling.rules for each in (before, after))
    match event.data:
        case facts.ImportClosed(import_id=import_id):
            return _OF_IMPORT, import_id
        case facts.PolicyAdopted():
            return (_OWNED, None) if had or has else None
        case facts.CalendarStated():
            counts = has and after.policy.policy.recycling.days == "working"
            return (_OWNED, None) if counts else None
        case facts.TerritoryDefined():
            return (_OWNED, None) if any(rule.territories for rule in has) else None
        case _:
            return (_OF_OWNER, event.data.person) if has else None


def _as_if_stated_together(changes: Sequence[Change]) -> Iterator[Change]:
    """Yield the changes, of calendars that come one behind the other only the last.

    Each concerns all customers, and the last one says what the others would have said.
    """
    for change, following in zip_longest(changes, changes[1:]):
        is_followed = following is not None and following.event.name == _CALENDAR
        if not (is_followed and change.event.name == _CALENDAR):
            yield change


def _count_again(
    connection: Connection[Any],
    event: Event,
    organisation: Organisation,
    statement: str,
    value: str | None,
) -> None:
    """Say anew what is next at the customers that a fact concerns, a page at a time.

    All pages are one transaction of the projector: 100,000 customers were measured to take 20 s, on
    two cores that others used as well. Readers go on meanwhile, with what was before. In several
    transactions the rows would be of two policies at once while the position says of which they
    are; and where other events came between, what rows hold would depend on when.
    """
    facts_then = organisation.at(event.position + 1)
    values: Mapping[str, Any] = {"value": value, "limit": _AT_ONCE}
    after = ""
    while True:
        page = connection.execute(statement.encode(), {**values, "after": after}).fetchall()
        rows = [_row(name, each, facts_then, event.recorded) for name, each in _states(page)]
        put_rows(connection, _PUT, _PACKERS, rows)
        if len(page) < _AT_ONCE:
            return
        after = page[-1][0]


# --- queries -----------------------------------------------------------------------------------

PAGE = 500
LOOKED_AT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class DueRow:
    """A deadline at a customer: ``kind`` and ``subject`` as of ledger/deadlines.py, ``due`` UTC.

    ``owner`` is who owns the customer, where recycling is counted; else projections/ownership.py
    knows it. ``falls`` is when it goes back to the pool if nobody does anything, and ``because``
    why, where that is to come.
    """

    customer: str
    kind: str
    subject: str
    due: datetime
    owner: str | None
    falls: datetime | None
    because: str | None


_COLUMNS = "SELECT customer, kind, subject, due, owner, falls, because FROM projections.deadlines"
_DUE = f"""
{_COLUMNS}
WHERE due <= %(until)s AND (due, customer) > (%(moment)s, %(customer)s)
"""
_DUE_OF = """
  AND customer IN (SELECT o.customer FROM projections.ownership o WHERE o.owner = %(owner)s)
"""
# One statement, which sees the rows and how far they reflect the log at one moment.
_STILL_DUE = """
SELECT a.n
FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[]) WITH ORDINALITY
    AS a(customer, kind, subject, due, request, n)
JOIN projections.deadlines d ON d.customer = a.customer
    AND (d.kind, d.subject, d.due) = (a.kind, a.subject, a.due)
WHERE (SELECT max(e.position) FROM ledger.events e WHERE e.causation = a.request)
    <= (SELECT position FROM projections.tracking WHERE name = 'deadlines')
ORDER BY a.n
"""
_FALLING = f"""
{_COLUMNS}
WHERE falls <= %(until)s AND (falls, customer) > (%(moment)s, %(customer)s)
"""
_BY_DAY = """
SELECT (falls AT TIME ZONE %(zone)s)::date AS day, coalesce(owner, '') AS owner, count(*)
FROM projections.deadlines
WHERE falls <= %(until)s AND (%(owner)s::text IS NULL OR owner = %(owner)s)
GROUP BY 1, 2
HAVING ((falls AT TIME ZONE %(zone)s)::date, coalesce(owner, '')) > (%(day)s, %(behind)s)
ORDER BY 1, 2 LIMIT %(limit)s
"""
_STATES = """
SELECT customer, state::text FROM projections.deadlines WHERE customer = ANY(%b)
"""
_OWNED_BY = """
SELECT customer, state::text FROM projections.deadlines
WHERE owner IS NOT NULL AND (%(owner)s::text IS NULL OR owner = %(owner)s)
    AND customer > %(after)s
ORDER BY customer LIMIT %(limit)s
"""
_THESE = "SELECT customer, state::text FROM projections.deadlines WHERE customer = ANY(%b)"
_NEVER_FALLING = """
SELECT count(*) FROM (
    SELECT FROM projections.deadlines WHERE owner IS NOT NULL AND falls IS NULL LIMIT %s
) AS counted
"""
_REACHED = "SELECT position FROM projections.tracking WHERE name = 'deadlines'"
BEGINNING = (datetime.min.replace(tzinfo=UTC), "")
"""Where paging begins: in front of every deadline."""


def due(
    connection: Connection[Any],
    until: datetime,
    *,
    owner: str | None = None,
    after: tuple[datetime, str] = BEGINNING,
    limit: int = PAGE,
) -> list[DueRow]:
    """Return what falls due up to ``until`` (UTC) in order, behind (due, customer).

    ``owner`` takes only what falls due at customers that are somebody's now.
    """
    of_owner = _DUE_OF if owner is not None else ""
    statement = f"{_DUE} {of_owner} ORDER BY due, customer LIMIT %(limit)s"
    return _dated(connection, statement, until, owner, after, limit)


def still_due(
    connection: Connection[Any], raised: Sequence[tuple[DueRow, int]]
) -> list[tuple[DueRow, int]]:
    """Return what is due although it was raised before, by the requests at these positions.

    These were decided, and that is reflected: what had put the deadline off has been taken back.
    """
    rows, requests_at = zip(*raised, strict=True)
    named = (
        text_array([row.customer for row in rows]),
        text_array([row.kind for row in rows]),
        text_array([row.subject for row in rows]),
        instants([row.due for row in rows]),
        int8_array(requests_at),
    )
    found = connection.execute(_STILL_DUE, named, binary=True)
    return [raised[number - 1] for (number,) in found]


def falling(
    connection: Connection[Any],
    until: datetime,
    *,
    owner: str | None = None,
    after: tuple[datetime, str] = BEGINNING,
    limit: int = PAGE,
) -> list[DueRow]:
    """Return what goes back to the pool up to ``until`` (UTC) if nobody does anything, in order.

    ``after`` pages behind (falls, customer).
    """
    of_owner = "AND owner = %(owner)s" if owner is not None else ""
    statement = f"{_FALLING} {of_owner} ORDER BY falls, customer LIMIT %(limit)s"
    return _dated(connection, statement, until, owner, after, limit)


def _dated(
    connection: Connection[Any],
    statement: str,
    until: datetime,
    owner: str | None,
    after: tuple[datetime, str],
    limit: int,
) -> list[DueRow]:
    moment, customer = after
    values = {"until": until, "owner": owner, "limit": limit}
    rows = connection.execute(
        statement.encode(), {**values, "moment": moment, "customer": customer}
    )
    return [DueRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A customer that is kept from the pool, whose it is, and by what."""

    customer: str
    owner: str
    kept: tuple[recycling.Kept, ...]


def kept(
    connection: Connection[Any],
    organisation: OrganisationAt,
    now: datetime,
    *,
    owner: str | None = None,
    after: str = "",
    limit: int = PAGE,
    looked_at_max: int = LOOKED_AT_MAX,
) -> tuple[list[KeptRow], str]:
    """Return customers that something keeps from the pool ``now``, by id, behind ``after``.

    Beside them stands the id behind which to go on; empty where all was looked at. An absence ends
    by its date, without an event, so that each row is asked when it is read: so many at most.
    """
    found: list[KeptRow] = []
    for _ in range(0, looked_at_max, PAGE):
        values = {"owner": owner, "after": after, "limit": PAGE}
        page = connection.execute(_OWNED_BY, values).fetchall()
        for row in _kept_rows(page, organisation, now):
            found.append(row)
            if len(found) == limit:
                return found, row.customer
        if len(page) < PAGE:
            return found, ""
        after = page[-1][0]
    return found, after


def kept_of(
    connection: Connection[Any],
    customers: Iterable[str],
    organisation: OrganisationAt,
    now: datetime,
) -> dict[str, tuple[recycling.Kept, ...]]:
    """Return what keeps these customers from the pool ``now``, of those that anything does."""
    rows = connection.execute(_THESE, (text_array(sorted(set(customers))),)).fetchall()
    return {row.customer: row.kept for row in _kept_rows(rows, organisation, now)}


def _kept_rows(
    page: Iterable[Sequence[Any]], organisation: OrganisationAt, now: datetime
) -> Iterator[KeptRow]:
    for name, customer in _states(page):
        what = recycling.kept_by(customer, organisation, now)
        if what and customer.owner is not None:
            yield KeptRow(name, customer.owner, what)


def falling_by_day(
    connection: Connection[Any],
    until: datetime,
    time_zone: str,
    *,
    owner: str | None = None,
    after: tuple[date, str] = (date.min, ""),
    limit: int = PAGE,
) -> list[tuple[date, str, int]]:
    """Return how many customers go back to the pool, by day (of ``time_zone``) and owner.

    ``after`` pages behind (day, owner).
    """
    day, behind = after
    values = {"until": until, "zone": time_zone, "owner": owner, "limit": limit}
    rows = connection.execute(_BY_DAY, {**values, "day": day, "behind": behind})
    return [(row[0], row[1], row[2]) for row in rows]


def rulings_awaited(
    connection: Connection[Any], customers: Iterable[str]
) -> dict[str, conflicts.Waiting]:
    """Return how long the rulings at these customers have been awaited, by conflict."""
    wanted = text_array(sorted(set(customers)))
    rows = connection.execute(_STATES, (wanted,), binary=True)
    return {
        each.conflict: each.waiting
        for _, customer in _states(rows.fetchall())
        for each in customer.conflicts
    }


def falling_count(connection: Connection[Any], until: datetime) -> int:
    """Return how many customers go back to the pool up to ``until`` (UTC), as ``falling`` lists."""
    statement = "SELECT count(*) FROM projections.deadlines WHERE falls <= %s"
    row = connection.execute(statement, (until,)).fetchone()
    return int(row[0]) if row else 0


def never_falling_count(connection: Connection[Any]) -> int:
    """Return how many owned customers do not go back to the pool, as things are; up to a bound."""
    row = connection.execute(_NEVER_FALLING, (LOOKED_AT_MAX,)).fetchone()
    return int(row[0]) if row else 0


def last_fall(connection: Connection[Any]) -> datetime | None:
    """Return when the last customer goes back to the pool, if nobody does anything (UTC)."""
    row = connection.execute("SELECT max(falls) FROM projections.deadlines").fetchone()
    last: datetime | None = row[0] if row else None
    return last


def reached(connection: Connection[Any]) -> int:
    """Return the position that the read model reflects; -1 before it is made, and can be asked."""
    if connection.execute("SELECT to_regclass('projections.tracking')").fetchone() == (None,):
        return -1
    row = connection.execute(_REACHED).fetchone()
    return int(row[0]) if row else -1
