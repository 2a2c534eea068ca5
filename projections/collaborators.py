"""Collaborators: who works on which customer beside its owner, and who has asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg import Connection

from ledger.approving import COLLABORATION
from ledger.envelope import Event
from ledger.events import decisions
from projections.base import Change, Table
from projections.batches import write

ASKED, STANDING, ENDED = "asked", "standing", "ended"
TO_BEGIN, OVER = "to begin", "over"
"""Of one that stands, by its dates: it does not yet, or no longer."""

# ``since`` and ``until`` of what awaits an answer are not known yet: they depend on the answer.
_TABLE = Table(
    "collaborations",
    """
    collaboration    text COLLATE "C" NOT NULL PRIMARY KEY,
    customer         text COLLATE "C" NOT NULL,
    person           text COLLATE "C" NOT NULL,
    role             text COLLATE "C" NOT NULL,
    share            numeric,
    site             text COLLATE "C",
    requester        text COLLATE "C" NOT NULL,
    status           text COLLATE "C" NOT NULL,
    since            timestamptz,
    until            timestamptz,
    reason_code      text COLLATE "C",
    opened_position  bigint NOT NULL,
    changed_position bigint NOT NULL
    """,
    (
        "CREATE INDEX collaborations_customer ON collaborations (customer, opened_position)",
        "CREATE INDEX collaborations_person ON collaborations (person, opened_position)",
    ),
)
_PUT = """
INSERT INTO collaborations AS c (collaboration, customer, person, role, share, site, requester,
    status, since, until, reason_code, opened_position, changed_position)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(collaboration text, customer text, person text,
    role text, share numeric, site text, requester text, status text, since timestamptz,
    until timestamptz, reason_code text, opened_position bigint, changed_position bigint)
ON CONFLICT (collaboration) DO UPDATE SET status = excluded.status, since = excluded.since,
    until = excluded.until, reason_code = coalesce(excluded.reason_code, c.reason_code),
    changed_position = excluded.changed_position
"""
# What is no collaboration, or stands already, is none of our business when its approval is closed.
_CHANGE = """
UPDATE collaborations c SET status = r.status, until = coalesce(r.until, c.until),
    reason_code = coalesce(r.reason_code, c.reason_code), changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(collaboration text, status text, until timestamptz,
    reason_code text, changed_position bigint)
WHERE c.collaboration = r.collaboration AND c.status IN ('asked', 'standing')
"""


class Collaborators:
    """The projection of collaborations: the last status of each that a batch touches."""

    name = "collaborators"
    version = 1
    tables: Sequence[Table] = (_TABLE,)
    handles = frozenset(
        {
            "ApprovalOpened.v1",
            "ApprovalClosed.v1",
            "CollaboratorAdded.v1",
            "CollaborationsEnded.v1",
        }
    )
    needs_cause = frozenset({"ApprovalOpened.v1", "CollaboratorAdded.v1"})

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        begun: dict[str, dict[str, Any]] = {}
        changed: dict[str, dict[str, Any]] = {}
        for event, cause in changes:
            data = event.data
            match data:
                case decisions.ApprovalOpened() if data.purpose == COLLABORATION:
                    begun[data.approval] = _asked(event, cause)
                case decisions.CollaboratorAdded():
                    before = begun.get(data.collaboration)
                    begun[data.collaboration] = _added(event, cause, before)
                case decisions.CollaborationsEnded():
                    for each in data.collaborations:
                        row = begun.get(each) or changed.setdefault(each, {"collaboration": each})
                        row |= _ended(event, data)
                case decisions.ApprovalClosed() if data.outcome != "completed":
                    row = begun.get(data.approval) or changed.setdefault(
                        data.approval, {"collaboration": data.approval}
                    )
                    row |= _closed(event, data)
                case _:
                    pass
        write(connection, _PUT, list(begun.values()))
        write(connection, _CHANGE, list(changed.values()))


def _cause(event: Event, cause: Event | None) -> Event:
    if cause is None:
        raise LookupError(f"the request of the decision at {event.position} is missing")
    return cause


def _asked(event: Event, cause: Event | None) -> dict[str, Any]:
    data, asked = event.data, _cause(event, cause).data
    return {
        "collaboration": data.approval,
        "customer": data.customer,
        "person": data.receiver,
        "role": asked.role,
        "share": asked.share and f"{asked.share:f}",
        "site": asked.site,
        "requester": data.requester,
        "status": ASKED,
        "since": None,
        "until": None,
        "reason_code": data.reason_code,
        "opened_position": event.position,
        "changed_position": event.position,
    }


def _added(event: Event, cause: Event | None, before: Mapping[str, Any] | None) -> dict[str, Any]:
    data: decisions.CollaboratorAdded = event.data
    request = _cause(event, cause)
    # Where it was asked for, the row is there, and the cause of this is the answer.
    stands = {
        "status": STANDING,
        "since": data.since,
        "until": data.until,
        "changed_position": event.position,
    }
    if before is not None:
        return {**before, **stands}
    return {
        "collaboration": data.collaboration,
        "customer": data.customer,
        "person": data.person,
        "role": data.role,
        "share": data.share and f"{data.share:f}",
        "site": data.site,
        "requester": request.actor,
        "reason_code": getattr(request.data, "reason_code", None),
        "opened_position": event.position,
        **stands,
    }


def _ended(event: Event, data: decisions.CollaborationsEnded) -> dict[str, Any]:
    return {
        "status": ENDED,
        "until": event.effective,
        "reason_code": data.reason_code,
        "changed_position": event.position,
    }


def _closed(event: Event, data: decisions.ApprovalClosed) -> dict[str, Any]:
    reason = {} if data.reason is None else {"reason_code": data.reason}
    return {"status": data.outcome, "changed_position": event.position, **reason}


# --- queries -----------------------------------------------------------------------------------

Status = Literal["asked", "standing", "ended", "refused", "withdrawn", "expired", "void"]
PAGE = 200
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CollaborationRow:
    """Somebody who collaborates, did, or asked to. Times are UTC.

    ``status`` is ``asked``, ``standing`` (see ``status_at`` for one with dates), ``ended``, or how
    what was asked for was answered. ``share`` is a percentage. ``reason_code`` is
    that of the request, and of the end where it has ended.
    """

    collaboration: str
    customer: str
    person: str
    role: str
    share: Decimal | None
    site: str | None
    requester: str
    status: Status
    since: datetime | None
    until: datetime | None
    reason_code: str | None
    opened_position: int
    changed_position: int

    def status_at(self, now: datetime) -> str:
        """Return the status at a moment, for of one that stands its dates say whether it does."""
        if self.status != STANDING:
            return self.status
        if not self.is_current(now):
            return OVER
        return TO_BEGIN if self.since is not None and now < self.since else STANDING

    def is_current(self, now: datetime) -> bool:
        """Say whether it awaits an answer, stands, or is to stand later."""
        if self.status == STANDING:
            return self.until is None or now < self.until
        return self.status == ASKED


_SELECT = """
SELECT collaboration, customer, person, role, share, site, requester, status, since, until,
    reason_code, opened_position, changed_position
FROM projections.collaborations
"""
_CONDITIONS: Mapping[str, str] = {
    "customer": "customer = %(customer)s",
    "person": "person = %(person)s",
    "status": "status = %(status)s",
}


def collaboration_of(connection: Connection[Any], collaboration: str) -> CollaborationRow | None:
    """Return one collaboration, None where there is none of that id."""
    rows = connection.execute(f"{_SELECT} WHERE collaboration = %s".encode(), (collaboration,))
    return next((CollaborationRow(*row) for row in rows), None)


def list_collaborations(
    connection: Connection[Any],
    *,
    current_at: datetime | None = None,
    before: int = POSITION_MAX,
    limit: int = PAGE,
    **filters: str | None,
) -> list[CollaborationRow]:
    """Return collaborations from the newest back, opened before position ``before``.

    ``filters`` are customer, person and status; None does not filter. ``current_at`` leaves out
    those that are over at a moment, and those that were not answered well.
    """
    asked = [_CONDITIONS[name] for name, value in filters.items() if value is not None]
    if current_at is not None:
        asked.append(
            "(status = 'asked' OR status = 'standing' AND (until IS NULL OR until > %(now)s))"
        )
    where = " AND ".join((*asked, "opened_position < %(before)s"))
    statement = f"{_SELECT} WHERE {where} ORDER BY opened_position DESC LIMIT %(limit)s"
    given = {**filters, "now": current_at, "before": before, "limit": limit}
    rows = connection.execute(statement.encode(), given)
    return [CollaborationRow(*row) for row in rows]
