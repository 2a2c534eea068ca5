"""Hand-overs and their receipts: everything that moved, waits or stayed, line by line, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import Connection

from ledger import reasons
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Sealed
from ledger.store.arrays import text_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, write

# A hand-over as it was ordered, and what has come of it; ``refused`` counts lines by reason.
_TABLE = Table(
    "hand_overs",
    """
    hand_over        text COLLATE "C" NOT NULL PRIMARY KEY,
    giver            text COLLATE "C" NOT NULL,
    receivers        text[] COLLATE "C" NOT NULL,
    plan             text COLLATE "C" NOT NULL,
    orderer          text COLLATE "C" NOT NULL,
    reason_code      text COLLATE "C" NOT NULL,
    reason           text,
    chosen           jsonb NOT NULL,
    ordered          timestamptz NOT NULL,
    state            text COLLATE "C" NOT NULL,
    refused_because  text COLLATE "C",
    moved            bigint NOT NULL,
    waiting          bigint NOT NULL,
    settled          bigint NOT NULL,
    refused          jsonb NOT NULL,
    position         bigint NOT NULL,
    changed_position bigint NOT NULL
    """,
    (
        "CREATE INDEX hand_overs_position ON hand_overs (position)",
        "CREATE INDEX hand_overs_giver ON hand_overs (giver, position)",
    ),
)
# A line is one decision. ``what`` is a customer of the giver's, or what else was settled there.
_LINES = Table(
    "hand_over_lines",
    """
    hand_over text COLLATE "C" NOT NULL,
    position  bigint NOT NULL,
    customer  text COLLATE "C" NOT NULL,
    what      text COLLATE "C" NOT NULL,
    outcome   text COLLATE "C" NOT NULL,
    reason    text COLLATE "C",
    receiver  text COLLATE "C",
    approval  text COLLATE "C",
    PRIMARY KEY (hand_over, position)
    """,
    (
        "CREATE INDEX hand_over_lines_outcome ON hand_over_lines (hand_over, outcome, position)",
        "CREATE INDEX hand_over_lines_approval ON hand_over_lines (approval)"
        " WHERE approval IS NOT NULL",
    ),
)
_ORDER = """
INSERT INTO hand_overs (hand_over, giver, receivers, plan, orderer, reason_code, reason, chosen,
    ordered, state, moved, waiting, settled, refused, position, changed_position)
SELECT r.hand_over, r.giver, r.receivers, r.plan, r.orderer, r.reason_code, r.reason, r.chosen,
    r.ordered, 'ordered', 0, 0, 0, '{}', r.position, r.position
FROM jsonb_to_recordset(%s::jsonb) AS r(hand_over text, giver text, receivers text[], plan text,
    orderer text, reason_code text, reason text, chosen jsonb, ordered timestamptz,
    position bigint)
"""
_ADVANCE = """
UPDATE hand_overs h SET state = r.state, refused_because = r.refused_because, moved = r.moved,
    waiting = r.waiting, refused = r.refused, changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(hand_over text, state text, refused_because text,
    moved bigint, waiting bigint, refused jsonb, changed_position bigint)
WHERE h.hand_over = r.hand_over
"""
_ADD_LINES = """
INSERT INTO hand_over_lines (hand_over, position, customer, what, outcome, reason, receiver,
    approval)
SELECT r.hand_over, r.position, r.customer, r.what, r.outcome, r.reason, r.receiver, r.approval
FROM jsonb_to_recordset(%s::jsonb) AS r(hand_over text, position bigint, customer text, what text,
    outcome text, reason text, receiver text, approval text)
"""
# What else was settled is told by the request that caused it: one position, one hand-over. It is
# counted here, for versions 1 and 2 of the decider count less of it than there is.
_ADD_OTHERS = """
WITH added AS (
    INSERT INTO hand_over_lines (hand_over, position, customer, what, outcome, reason, receiver)
    SELECT h.hand_over, r.position, r.customer, r.what, r.outcome, NULL, r.receiver
    FROM jsonb_to_recordset(%s::jsonb) AS r(cause bigint, position bigint, customer text, what text,
        outcome text, receiver text)
    JOIN hand_overs h ON h.position = r.cause
    RETURNING hand_over)
UPDATE hand_overs h SET settled = h.settled + a.number
FROM (SELECT hand_over, count(*) AS number FROM added GROUP BY hand_over) AS a
WHERE h.hand_over = a.hand_over
"""
_END_WAITING = """
UPDATE hand_over_lines l SET outcome = r.outcome, reason = r.reason
FROM jsonb_to_recordset(%s::jsonb) AS r(approval text, outcome text, reason text)
WHERE l.approval = r.approval AND l.outcome = 'waiting'
"""
MOVED, WAITING, REFUSED, ENDED, GIVEN = "moved", "waiting", "refused", "ended", "given"
CUSTOMER, APPROVAL, COLLABORATION = "customer", "approval", "collaboration"
# How the ids of what a hand-over has opened begin.
_OPENED = "apr_"
# Why a hand-over ends what is no customer: of a moved one the ownership, at others what was theirs.
# Releases and transfers end things for the first reason too; these are told apart by their cause.
_MAY_SETTLE = frozenset({reasons.HANDED_OVER, reasons.OWNERSHIP_CHANGED})


class _Batch:
    """What a batch brings to the tables, statement by statement."""

    def __init__(self) -> None:
        self.ordered: list[dict[str, Any]] = []
        self.advanced: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []

    def line(self, event: Event, outcome: str, **fields: Any) -> None:
        """Add a line about a customer of the giver's."""
        data = event.data
        self.lines.append(
            {
                "hand_over": data.hand_over,
                "position": event.position,
                "customer": data.customer,
                "what": CUSTOMER,
                "outcome": outcome,
                **fields,
            }
        )

    def other(self, event: Event, what: str, outcome: str, receiver: str | None = None) -> None:
        """Add a line about something else that the giver held."""
        self.others.append(
            {
                "cause": event.causation,
                "position": event.position,
                "customer": event.data.customer,
                "what": what,
                "outcome": outcome,
                "receiver": receiver,
            }
        )


@dataclass(frozen=True)
class HandOvers:
    """The projection of hand-overs and their lines."""

    unsealer: Unsealer
    name: str = "hand_overs"
    version: int = 2
    tables: Sequence[Table] = (_TABLE, _LINES)
    handles: frozenset[str] = frozenset(
        {
            "HandOverRequested.v1",
            "HandOverAdvanced.v1",
            "HandOverCompleted.v1",
            "HandOverRefused.v1",
            "HandOverLineRefused.v1",
            "ApprovalOpened.v1",
            "ApprovalClosed.v1",
            "OwnershipTransferred.v1",
            "CollaborationsEnded.v1",
            "CollaboratorAdded.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        batch = _Batch()
        load_keys(self.unsealer, _keys(changes))
        for event, _ in changes:
            if isinstance(event.data, requests.HandOverRequested):
                batch.ordered.append(self._ordered(event))
            else:
                _take(batch, event)
        write(connection, _ORDER, batch.ordered)
        write(connection, _ADVANCE, list(batch.advanced.values()))
        write(connection, _ADD_LINES, batch.lines)
        write(connection, _ADD_OTHERS, batch.others)
        write(connection, _END_WAITING, batch.ended)

    def _ordered(self, event: Event) -> dict[str, Any]:
        data: requests.HandOverRequested = event.data
        return {
            "hand_over": data.hand_over,
            "giver": data.giver,
            "receivers": list(data.receivers),
            "plan": data.plan,
            "orderer": event.actor,
            "reason_code": data.reason_code,
            "reason": self.unsealer.open_text(event, "reason", data.reason),
            "chosen": _chosen(data),
            "ordered": event.recorded,
            "position": event.position,
        }


def _keys(changes: Sequence[Change]) -> list[str]:
    sealed = (getattr(event.data, "reason", None) for event, _ in changes)
    return [each.key for each in sealed if isinstance(each, Sealed)]


def _chosen(data: requests.HandOverRequested) -> dict[str, Any]:
    """Return what was chosen, where it was not all, and what was said about other people."""
    said = {
        "customers": len(data.customers) or None,
        "territories": list(data.territories) or None,
        "conditions": [each.model_dump(mode="json") for each in data.conditions] or None,
        "collaborators": data.collaborators,
        "collaborations": data.collaborations,
    }
    return {name: value for name, value in said.items() if value is not None}


def _take(batch: _Batch, event: Event) -> None:
    data = event.data
    match data:
        case decisions.HandOverAdvanced():
            batch.advanced[data.hand_over] = _figures(event, "under_way")
        case decisions.HandOverCompleted():
            batch.advanced[data.hand_over] = _figures(event, "done")
        case decisions.HandOverRefused():
            batch.advanced[data.hand_over] = _figures(event, "refused")
        case decisions.HandOverLineRefused():
            batch.line(event, REFUSED, reason=data.reason, receiver=data.receiver)
        case decisions.OwnershipTransferred() if data.hand_over == data.approval:
            batch.line(event, MOVED, receiver=data.owner)
        case decisions.ApprovalOpened() if data.hand_over is not None:
            batch.line(event, WAITING, receiver=data.receiver, approval=data.approval)
        case decisions.ApprovalClosed():
            _close(batch, event, data)
        case decisions.CollaborationsEnded() if data.reason_code in _MAY_SETTLE:
            batch.other(event, COLLABORATION, ENDED)
        case decisions.CollaboratorAdded():
            # Whether a hand-over has brought it, its cause says: seldom, and by the ids it makes.
            if data.collaboration.startswith(f"col_{event.causation}_"):
                batch.other(event, COLLABORATION, GIVEN, data.person)
        case _:
            pass


def _figures(event: Event, state: str) -> dict[str, Any]:
    data = event.data
    return {
        "hand_over": data.hand_over,
        "state": state,
        "refused_because": getattr(data, "reason", None),
        "moved": getattr(data, "moved", 0),
        "waiting": getattr(data, "waiting", 0),
        "refused": getattr(data, "refused", {}),
        "changed_position": event.position,
    }


def _close(batch: _Batch, event: Event, data: decisions.ApprovalClosed) -> None:
    if data.reason in _MAY_SETTLE:
        batch.other(event, APPROVAL, ENDED)
    if not data.approval.startswith(_OPENED):
        return
    outcome = MOVED if data.outcome == "completed" else data.outcome
    batch.ended.append({"approval": data.approval, "outcome": outcome, "reason": data.reason})


# --- queries -----------------------------------------------------------------------------------

State = Literal["ordered", "under_way", "done", "refused"]
PAGE = 200
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class HandOverRow:
    """A hand-over. Times are UTC.

    ``state`` is ``ordered``, ``under_way``, ``done`` or ``refused`` (then ``refused_because`` is a
    code of ledger/reasons.py). ``reason`` is None where nothing was said, or it was erased.
    ``moved``, ``waiting``, ``settled`` and ``refused`` (by reason) are as it was decided, and there
    is a line for each that is counted; what has become of what waited, the lines say.
    """

    hand_over: str
    giver: str
    receivers: tuple[str, ...]
    plan: str
    orderer: str
    reason_code: str
    reason: str | None
    chosen: Mapping[str, Any]
    ordered: datetime
    state: str
    refused_because: str | None
    moved: int
    waiting: int
    settled: int
    refused: Mapping[str, int]
    position: int
    changed_position: int


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line of a receipt. ``what`` is ``customer``, or what else there was: ``approval`` (what
    awaited it) or ``collaboration``.

    Of a customer ``outcome`` is ``moved``, ``waiting``, ``refused``, or how the approval that it
    waited for has ended; of other things ``ended`` or ``given``.
    """

    hand_over: str
    position: int
    customer: str
    what: str
    outcome: str
    reason: str | None
    receiver: str | None
    approval: str | None


_SELECT = """
SELECT hand_over, giver, receivers, plan, orderer, reason_code, reason, chosen, ordered, state,
    refused_because, moved, waiting, settled, refused, position, changed_position
FROM projections.hand_overs
"""
_SELECT_LINES = """
SELECT hand_over, position, customer, what, outcome, reason, receiver, approval
FROM projections.hand_over_lines
WHERE hand_over = %(hand_over)s AND position > %(after)s
"""
_COUNTS = """
SELECT what || ' ' || outcome, count(*) FROM projections.hand_over_lines WHERE hand_over = %s
GROUP BY what, outcome ORDER BY what, outcome
"""
_WAITING = """
SELECT hand_over, count(*) FROM projections.hand_over_lines
WHERE hand_over = ANY(%b) AND outcome = %s GROUP BY hand_over
"""


def hand_over_of(connection: Connection[Any], hand_over: str) -> HandOverRow | None:
    """Return one hand-over, None where there is none of that id."""
    rows = connection.execute(f"{_SELECT} WHERE hand_over = %s".encode(), (hand_over,))
    return next(map(_row, rows), None)


def list_hand_overs(
    connection: Connection[Any],
    *,
    giver: str | None = None,
    before: int = POSITION_MAX,
    limit: int = PAGE,
) -> list[HandOverRow]:
    """Return hand-overs from the newest back, ordered before position ``before``."""
    of_giver = "giver = %(giver)s AND" if giver is not None else ""
    statement = f"{_SELECT} WHERE {of_giver} position < %(before)s ORDER BY position DESC"
    values = {"giver": giver, "before": before, "limit": limit}
    rows = connection.execute(f"{statement} LIMIT %(limit)s".encode(), values)
    return list(map(_row, rows))


def lines_of(
    connection: Connection[Any],
    hand_over: str,
    *,
    outcome: str | None = None,
    after: int = 0,
    limit: int = PAGE,
) -> list[LineRow]:
    """Return lines of a hand-over in the order in which they were decided, behind a position."""
    only = "AND outcome = %(outcome)s" if outcome is not None else ""
    statement = f"{_SELECT_LINES} {only} ORDER BY position LIMIT %(limit)s"
    values = {"hand_over": hand_over, "after": after, "limit": limit, "outcome": outcome}
    return [LineRow(*row) for row in connection.execute(statement.encode(), values)]


def counts_of(connection: Connection[Any], hand_over: str) -> dict[str, int]:
    """Return how many lines there are, as in ``{"customer moved": 12}``."""
    return dict(connection.execute(_COUNTS, (hand_over,)).fetchall())


def waiting_now(connection: Connection[Any], ids: Sequence[str]) -> dict[str, int]:
    """Return how many lines of each still wait for approval, by id; without any it is missing."""
    rows = connection.execute(_WAITING, (text_array(sorted(ids)), WAITING), binary=True)
    return dict(rows.fetchall())


def hand_overs_named(connection: Connection[Any], ids: Sequence[str]) -> dict[str, HandOverRow]:
    """Return those of the hand-overs ``ids`` that there are, by id."""
    statement = f"{_SELECT} WHERE hand_over = ANY(%b)".encode()
    rows = connection.execute(statement, (text_array(sorted(ids)),))
    return {row.hand_over: row for row in map(_row, rows)}


def _row(row: Sequence[Any]) -> HandOverRow:
    return HandOverRow(*[*row[:2], tuple(row[2]), *row[3:]])
