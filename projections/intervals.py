"""Ownership intervals on both time axes: who owned it when, and who did we believe owned it.

An interval is ``[from, to)`` in effective time, and is known from one position of the log on; its
end is known from another on. Within a customer both rise together (ties in effective time are
ordered by position), so either axis is one step down an index, however long the history is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, errors, sql

from ledger.envelope import Event
from ledger.errors import LedgerError
from ledger.events import decisions
from ledger.store.arrays import int8_array
from projections import schema
from projections.base import LIVE, Change, Table
from projections.columns import instants, repeated, texts

# A customer's number is the position at which it was admitted: an exclusion constraint without an
# extension needs a number, and this one comes out the same at every rebuild.
_KNOWN = Table(
    "known_customers",
    """
    customer    text COLLATE "C" NOT NULL PRIMARY KEY,
    customer_no bigint NOT NULL,
    known_from  timestamptz NOT NULL
    """,
    ("CREATE UNIQUE INDEX known_customers_no ON known_customers (customer_no)",),
)
_INTERVALS = Table(
    "ownership_intervals",
    """
    customer_no    bigint NOT NULL,
    from_position  bigint NOT NULL,
    to_position    bigint CHECK (to_position > from_position),
    from_effective timestamptz NOT NULL,
    to_effective   timestamptz CHECK (to_effective >= from_effective),
    owner          text COLLATE "C" NOT NULL,
    begun_by       text COLLATE "C" NOT NULL,
    assigned_by    text COLLATE "C",
    ended_by       text COLLATE "C",
    end_reason     text,
    next_owner     text COLLATE "C",
    end_days       bigint,
    PRIMARY KEY (customer_no, from_position)
    """,
    (
        "CREATE INDEX ownership_intervals_effective"
        " ON ownership_intervals (customer_no, from_effective, from_position)",
        "CREATE INDEX ownership_intervals_owner"
        " ON ownership_intervals (owner, from_effective, from_position)",
    ),
    # Two owners at one instant cannot be stored: a customer has one open interval at most.
    keys=(
        "CREATE UNIQUE INDEX ownership_intervals_open ON ownership_intervals (customer_no)"
        " WHERE to_position IS NULL",
    ),
)
_ADMIT = """
INSERT INTO known_customers (customer, customer_no, known_from)
SELECT * FROM unnest(%b::text[], %b::bigint[], %b::timestamptz[])
"""
# An index of its own leads to the open interval, however many there are before it.
_END = """
WITH ended AS (
    UPDATE ownership_intervals i
    SET to_effective = r.at, to_position = r.position, ended_by = r.ended_by,
        end_reason = r.reason, next_owner = r.next_owner, end_days = r.days
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::text[], %b::text[],
                %b::text[], %b::bigint[])
        AS r(customer, owner, at, position, ended_by, reason, next_owner, days)
    JOIN known_customers k ON k.customer = r.customer
    WHERE i.customer_no = k.customer_no AND i.to_position IS NULL AND i.owner = r.owner
    RETURNING 1)
SELECT projections.require_rows(count(*), %b) FROM ended
"""
_BEGIN = """
WITH begun AS (
    INSERT INTO ownership_intervals (customer_no, owner, begun_by, assigned_by, from_effective,
        from_position, to_effective, to_position, ended_by, end_reason, next_owner, end_days)
    SELECT k.customer_no, r.owner, r.begun_by, r.assigned_by, r.since, r.position, r.until,
           r.to_position, r.ended_by, r.reason, r.next_owner, r.days
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[],
                %b::timestamptz[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::bigint[])
        AS r(customer, owner, begun_by, assigned_by, since, position, until, to_position, ended_by,
             reason, next_owner, days)
    JOIN known_customers k ON k.customer = r.customer
    RETURNING 1)
SELECT projections.require_rows(count(*), %b) FROM begun
"""


class _End(NamedTuple):
    """When and where an interval ended, how, for which reason, and who owned it next.

    ``days`` is the figure of the rule by which it was recycled.
    """

    at: datetime
    position: int
    ended_by: str
    reason: str
    next_owner: str | None = None
    days: int | None = None


@dataclass(slots=True)
class _Begun:
    """An interval that begins in the batch, and may end in it."""

    customer: str
    owner: str
    begun_by: str
    assigned_by: str | None
    since: datetime
    position: int
    end: _End | None = None


class Intervals:
    """The projection of ownership intervals."""

    name = "intervals"
    version = 3
    tables: Sequence[Table] = (_KNOWN, _INTERVALS)
    handles = frozenset(
        {
            "CustomerAdmitted.v1",
            "OwnershipGranted.v1",
            "OwnershipAssigned.v1",
            "OwnershipReleased.v1",
            "CustomerRecycled.v1",
            "OwnershipTransferred.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring: first the ends of older intervals, then the new ones."""
        batch = _Batch()
        for event, _ in changes:
            batch.fold(event)
        _write(connection, batch.admitted, batch.ended, batch.begun)


GRANTED, OPENING, ASSIGNED = "granted", "opening", "assigned"
"""How an ownership begins of a free customer: by a claim, an opening balance, a manager."""
TRANSFERRED, RULED, HANDED_OVER = "transferred", "ruled", "handed_over"
"""How one ends and another begins at once."""
RELEASED, RECYCLED = "released", "recycled"
"""How one ends that leaves the customer free."""
# What a ruling opens is called after the position of its request; a transfer has an id of its own.
_OF_A_RULING = re.compile(r"apr_[0-9]+")


def _way(data: decisions.OwnershipTransferred) -> str:
    if data.hand_over is not None:
        return HANDED_OVER
    return RULED if _OF_A_RULING.fullmatch(data.approval) else TRANSFERRED


@dataclass(slots=True)
class _Batch:
    """What a batch brings, folded in order."""

    admitted: list[tuple[str, int, datetime]] = field(default_factory=list)
    # Of ownerships that began in earlier batches: customer, owner, and the end.
    ended: list[tuple[str, str, _End]] = field(default_factory=list)
    begun: list[_Begun] = field(default_factory=list)
    open_here: dict[str, _Begun] = field(default_factory=dict)

    def fold(self, event: Event) -> None:
        """Take in one event."""
        data, position = event.data, event.position
        match data:
            case decisions.CustomerAdmitted():
                self.admitted.append((data.customer, position, data.known_from))
            case decisions.OwnershipReleased():
                self._end(event, data.owner, RELEASED, data.reason_code)
            case decisions.CustomerRecycled():
                self._end(event, data.owner, RECYCLED, data.because, days=data.days)
            case decisions.OwnershipTransferred():
                way = _way(data)
                why = HANDED_OVER if way == HANDED_OVER else TRANSFERRED
                self._end(event, data.former_owner, way, why, data.owner)
                self._begin(event, data.owner, way)
            case decisions.OwnershipAssigned():
                self._begin(event, data.owner, ASSIGNED, data.assigned_by)
            case _:
                self._begin(event, data.owner, OPENING if data.opening else GRANTED)

    def _begin(
        self, event: Event, owner: str, begun_by: str, assigned_by: str | None = None
    ) -> None:
        customer: str = event.data.customer
        interval = _Begun(customer, owner, begun_by, assigned_by, event.effective, event.position)
        self.begun.append(interval)
        self.open_here[customer] = interval

    def _end(
        self,
        event: Event,
        owner: str,
        ended_by: str,
        reason: str,
        next_owner: str | None = None,
        days: int | None = None,
    ) -> None:
        customer: str = event.data.customer
        end = _End(event.effective, event.position, ended_by, reason, next_owner, days)
        here = self.open_here.pop(customer, None)
        if here is None:
            self.ended.append((customer, owner, end))
        elif here.owner != owner:
            raise ValueError(f"{owner} gave up what {here.owner} owned")
        else:
            here.end = end


def _write(
    connection: Connection[Any],
    admitted: Sequence[tuple[str, int, datetime]],
    ended: Sequence[tuple[str, str, _End]],
    begun: Sequence[_Begun],
) -> None:
    if admitted:
        customers, numbers, known_from = zip(*admitted, strict=True)
        columns = texts(customers), int8_array(numbers), instants(known_from)
        connection.execute(_ADMIT, columns, binary=True)
    if ended:
        customers, owners, ends = zip(*ended, strict=True)
        connection.execute(
            _END,
            (
                texts(customers),
                texts(owners),
                instants([end.at for end in ends]),
                int8_array([end.position for end in ends]),
                repeated([end.ended_by for end in ends]),
                repeated([end.reason for end in ends]),
                texts([end.next_owner for end in ends]),
                int8_array([end.days for end in ends]),
                len(ended),
            ),
            binary=True,
        )
    if begun:
        connection.execute(
            _BEGIN,
            (
                texts([each.customer for each in begun]),
                texts([each.owner for each in begun]),
                repeated([each.begun_by for each in begun]),
                texts([each.assigned_by for each in begun]),
                instants([each.since for each in begun]),
                int8_array([each.position for each in begun]),
                instants([each.end and each.end.at for each in begun]),
                int8_array([each.end and each.end.position for each in begun]),
                repeated([each.end and each.end.ended_by for each in begun]),
                repeated([each.end and each.end.reason for each in begun]),
                texts([each.end and each.end.next_owner for each in begun]),
                int8_array([each.end and each.end.days for each in begun]),
                len(begun),
            ),
            binary=True,
        )


# --- queries -----------------------------------------------------------------------------------

PAGE = 500
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Owned:
    """Somebody owned the customer, since a moment, and until another (UTC) where it ended."""

    owner: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody owned the customer, since a moment (UTC)."""

    since: datetime


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows: before the customer was known, or before it was in the ledger."""


State = Owned | Free | Unknown


@dataclass(frozen=True, slots=True)
class CustomerAt:
    """A customer, and whose it was at the moment that was asked for."""

    customer: str
    state: State


@dataclass(frozen=True, slots=True)
class Interval:
    """One ownership: ``[from, to)`` in effective time (UTC), and where in the log it stands.

    ``begun_by`` says how it began: ``granted`` (a claim), ``opening`` (of a balance), ``assigned``
    (by ``assigned_by``), ``transferred``, ``ruled``. ``ended_by`` says how it ended: ``released``
    (for ``end_reason``), ``recycled`` (for ``no_follow_up`` or ``no_deal``, for so many
    ``end_days``, where that is known), or, to ``next_owner``, ``transferred`` or ``ruled``.
    """

    customer: str
    owner: str
    from_effective: datetime
    to_effective: datetime | None
    from_position: int
    to_position: int | None
    end_reason: str | None
    assigned_by: str | None
    begun_by: str
    ended_by: str | None
    next_owner: str | None
    end_days: int | None = None


# least() passes NULL over; the condition of the join then leaves out what is not there yet.
_AS_OF = """
SELECT k.customer, k.known_from, i.owner, i.from_effective, i.to_effective, i.to_position,
       CASE WHEN i.owner IS NULL THEN k.known_from ELSE i.to_effective END
FROM projections.known_customers k
LEFT JOIN LATERAL (
    SELECT n.* FROM projections.ownership_intervals n
    WHERE n.customer_no = k.customer_no AND n.from_position = least(
        (SELECT e.from_position FROM projections.ownership_intervals e
         WHERE e.customer_no = k.customer_no AND e.from_effective <= %(as_of)s
         ORDER BY e.from_effective DESC, e.from_position DESC LIMIT 1),
        (SELECT e.from_position FROM projections.ownership_intervals e
         WHERE e.customer_no = k.customer_no AND e.from_position <= %(known)s
         ORDER BY e.from_position DESC LIMIT 1))
) i ON i.from_effective <= %(as_of)s AND i.from_position <= %(known)s
"""
_OWNER_AT = f"{_AS_OF} WHERE k.customer = %(customer)s AND k.customer_no <= %(known)s"
_OWNERS_AT = f"""
{_AS_OF} WHERE k.customer > %(after)s AND k.customer_no <= %(known)s
ORDER BY k.customer LIMIT %(limit)s
"""
_SELECT = """
SELECT k.customer, i.owner, i.from_effective, i.to_effective, i.from_position, i.to_position,
       i.end_reason, i.assigned_by, i.begun_by, i.ended_by, i.next_owner, i.end_days
FROM projections.ownership_intervals i JOIN projections.known_customers k USING (customer_no)
"""
_OF_CUSTOMER = f"""
{_SELECT} WHERE k.customer = %s AND i.from_position > %s ORDER BY i.from_position LIMIT %s
"""
_OF_OWNER = f"""
{_SELECT} WHERE i.owner = %s AND (i.from_effective, i.from_position) > (%s, %s)
ORDER BY i.from_effective, i.from_position LIMIT %s
"""
# The newest first; what was held at a moment, or is held, or all.
_HELD = f"""
{_SELECT} WHERE i.owner = %(owner)s
    AND (i.from_effective, i.from_position) < (%(since)s::timestamptz, %(position)s::bigint)
    AND (%(every)s OR i.to_position IS NULL
         OR %(as_of)s::timestamptz IS NOT NULL AND i.to_effective > %(as_of)s)
    AND (%(as_of)s::timestamptz IS NULL OR i.from_effective <= %(as_of)s)
ORDER BY i.from_effective DESC, i.from_position DESC LIMIT %(limit)s
"""
_BEGAN_AT = f"{_SELECT} WHERE i.owner = %s AND i.from_position = %s"
# Recorded times never go back as positions grow: half of what is left falls away at each step.
_POSITION_AT = """
WITH RECURSIVE search(low, high) AS (
    SELECT 0::bigint, coalesce(max(position), 0) FROM ledger.events
    UNION ALL
    SELECT CASE WHEN e.recorded <= %(at)s THEN e.position ELSE s.low END,
           CASE WHEN e.recorded <= %(at)s THEN s.high ELSE e.position - 1 END
    FROM search s JOIN ledger.events e ON e.position = (s.low + s.high + 1) / 2
    WHERE s.low < s.high
)
SELECT low FROM search WHERE low = high
"""


def position_at(connection: Connection[Any], recorded: datetime) -> int:
    """Return the last position recorded at or before a moment, 0 where there is none."""
    row = connection.execute(_POSITION_AT, {"at": recorded}, prepare=True).fetchone()
    if row is None:
        raise AssertionError("the log has a gap")
    return int(row[0])


def owner_at(
    connection: Connection[Any],
    customer: str,
    as_of: datetime,
    known_at: datetime | None = None,
) -> State:
    """Return whose a customer was at ``as_of``, as the log knew it at ``known_at`` (None: now)."""
    known = POSITION_MAX if known_at is None else position_at(connection, known_at)
    row = connection.execute(
        _OWNER_AT,
        {"as_of": as_of, "known": known, "customer": customer},
        prepare=True,
        binary=True,
    ).fetchone()
    return Unknown() if row is None else _state(row, as_of, known)


def owners_at(
    connection: Connection[Any],
    as_of: datetime,
    known_at: datetime | None = None,
    *,
    after: str = "",
    limit: int = PAGE,
) -> list[CustomerAt]:
    """Return whose every customer was at ``as_of``, by customer id, behind customer ``after``.

    Customers that the log did not know of at ``known_at`` are not among them.
    """
    known = POSITION_MAX if known_at is None else position_at(connection, known_at)
    rows = connection.execute(
        _OWNERS_AT, {"as_of": as_of, "known": known, "after": after, "limit": limit}, binary=True
    )
    return [CustomerAt(row[0], _state(row, as_of, known)) for row in rows]


def _state(row: tuple[Any, ...], as_of: datetime, known: int) -> State:
    _, known_from, owner, since, until, to_position, free_since = row
    if as_of < known_from:
        return Unknown()
    if owner is None:
        return Free(free_since)
    if to_position is None or to_position > known:
        return Owned(owner, since, None)
    return Owned(owner, since, until) if as_of < until else Free(until)


def of_customer(
    connection: Connection[Any], customer: str, *, after: int = 0, limit: int = PAGE
) -> list[Interval]:
    """Return the ownerships of a customer in order, those that began behind position ``after``."""
    rows = connection.execute(_OF_CUSTOMER, (customer, after, limit), binary=True)
    return [Interval(*row) for row in rows]


def of_owner(
    connection: Connection[Any], owner: str, limit: int = PAGE, *, after: Interval | None = None
) -> list[Interval]:
    """Return what somebody held and why it ended, in order, behind the interval ``after``."""
    behind = (after.from_effective, after.from_position) if after else ("-infinity", 0)
    rows = connection.execute(_OF_OWNER, (owner, *behind, limit), binary=True)
    return [Interval(*row) for row in rows]


def held_by(
    connection: Connection[Any],
    owner: str,
    *,
    every: bool = False,
    as_of: datetime | None = None,
    before: Interval | None = None,
    limit: int = PAGE,
) -> list[Interval]:
    """Return what somebody holds, from the newest back, in front of the interval ``before``.

    With ``every`` all that they ever held; with ``as_of`` what they held at that moment (UTC), or,
    together with ``every``, all that had begun by then.
    """
    rows = connection.execute(
        _HELD.encode(),
        {
            "owner": owner,
            "since": before.from_effective if before else "infinity",
            "position": before.from_position if before else 0,
            "every": every,
            "as_of": as_of,
            "limit": limit,
        },
    )
    return [Interval(*row) for row in rows]


def begun_at(connection: Connection[Any], owner: str, position: int) -> Interval | None:
    """Return the interval of an owner that began at a position of the log, None for none."""
    rows = connection.execute(_BEGAN_AT.encode(), (owner, position))
    return next((Interval(*row) for row in rows), None)


# --- the check of the whole history --------------------------------------------------------------


class OverlapError(LedgerError):
    """Two owners at one instant: this must never be. ``customer`` says whose."""

    code = "ownership_overlap"

    def __init__(self, customer: str) -> None:
        super().__init__(
            f"{customer} would have had two owners at one instant.",
            way_out="Run guishu verify: the log or the read model was changed.",
        )
        self.customer = customer


# Empty ranges pass an exclusion constraint, so their order is checked by position as well.
_DISORDER = """
SELECT k.customer FROM (
    SELECT customer_no, from_position, from_effective, to_effective,
           lag(to_position) OVER w AS before_position,
           lag(to_effective) OVER w AS before_effective,
           lag(from_position) OVER w IS NULL AS is_first
    FROM ownership_intervals
    WINDOW w AS (PARTITION BY customer_no ORDER BY from_position)
) i JOIN known_customers k USING (customer_no)
WHERE NOT is_first AND (before_position IS NULL OR before_position > from_position
    OR before_effective > from_effective) OR from_effective < k.known_from
LIMIT 1
"""
# What was owned once cannot overlap.
_COPY = """
CREATE TEMPORARY TABLE checked_intervals ON COMMIT DROP AS
SELECT customer_no, from_effective, to_effective FROM ownership_intervals
WHERE customer_no IN (
    SELECT customer_no FROM ownership_intervals GROUP BY customer_no HAVING count(*) > 1)
"""
_EXCLUDE = """
ALTER TABLE checked_intervals ADD EXCLUDE USING gist (
    int8range(customer_no, customer_no, '[]') WITH &&,
    tstzrange(from_effective, to_effective) WITH &&)
"""
# The first number of the words of an exclusion violation is the customer's.
_CUSTOMER = "SELECT customer FROM {} WHERE customer_no = substring(%s from '\\[(\\d+),')::bigint"


def check_no_overlap(connection: Connection[Any], where: str = LIVE) -> None:
    """Check the whole history in the schema ``where``; raises OverlapError.

    The exclusion constraint is built over a copy: live it would cost most of the interval writes.
    """
    try:
        with connection.transaction():
            schema.use(connection, where)
            # Fresh tables have no statistics yet; row by row the join would take for ever.
            connection.execute("SET LOCAL enable_nestloop = off")
            row = connection.execute(_DISORDER).fetchone()
            if row is not None:
                raise OverlapError(row[0])
            connection.execute(_COPY)
            connection.execute(_EXCLUDE)
    except errors.ExclusionViolation as violation:
        raise OverlapError(_named(connection, where, violation)) from violation


def _named(connection: Connection[Any], where: str, violation: errors.ExclusionViolation) -> str:
    statement = sql.SQL(_CUSTOMER).format(sql.Identifier(where, "known_customers"))
    row = connection.execute(statement, (violation.diag.message_detail,)).fetchone()
    return str(row[0]) if row else "A customer that is not known"
