"""Approvals: transfers, releases, shares and claims that await approval, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from psycopg import Connection
from pydantic import TypeAdapter

from ledger.approving import Approval, after
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.values import Money
from ledger.store.arrays import text_array
from projections.base import Change, Table
from projections.batches import write

# ``state`` is the approval as the deciders fold it. What was refused at the door has none.
_TABLE = Table(
    "approvals",
    """
    approval         text COLLATE "C" NOT NULL PRIMARY KEY,
    customer         text COLLATE "C" NOT NULL,
    purpose          text COLLATE "C" NOT NULL,
    requester        text COLLATE "C" NOT NULL,
    owner            text COLLATE "C",
    receiver         text COLLATE "C",
    reason_code      text COLLATE "C" NOT NULL,
    amount           numeric,
    currency         text COLLATE "C",
    opened           timestamptz NOT NULL,
    state            jsonb,
    outcome          text COLLATE "C",
    outcome_reason   text COLLATE "C",
    closed           timestamptz,
    opened_position  bigint NOT NULL,
    changed_position bigint NOT NULL
    """,
    (
        "CREATE INDEX approvals_open ON approvals (opened_position) WHERE outcome IS NULL",
        "CREATE INDEX approvals_customer ON approvals (customer, opened_position)",
        "CREATE INDEX approvals_requester ON approvals (requester, opened_position)",
        "CREATE INDEX approvals_receiver ON approvals (receiver, opened_position)",
        "CREATE INDEX approvals_owner ON approvals (owner, opened_position)",
    ),
)
_LOAD = "SELECT approval, state FROM approvals WHERE approval = ANY(%b) AND outcome IS NULL"
_OPEN = """
INSERT INTO approvals (approval, customer, purpose, requester, owner, receiver, reason_code,
    amount, currency, opened, state, outcome, outcome_reason, closed, opened_position,
    changed_position)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(approval text, customer text, purpose text,
    requester text, owner text, receiver text, reason_code text, amount numeric, currency text,
    opened timestamptz, state jsonb, outcome text, outcome_reason text, closed timestamptz,
    opened_position bigint, changed_position bigint)
"""
_CHANGE = """
UPDATE approvals a SET state = r.state, outcome = r.outcome, outcome_reason = r.outcome_reason,
    closed = r.closed, changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(approval text, state jsonb, outcome text,
    outcome_reason text, closed timestamptz, changed_position bigint)
WHERE a.approval = r.approval
"""
_APPROVAL: TypeAdapter[Approval] = TypeAdapter(Approval)
NOT_OPENED = "not_opened"


class Approvals:
    """The projection of approvals: folds those that a batch touches, and writes them."""

    name = "approvals"
    version = 3
    tables: Sequence[Table] = (_TABLE,)
    handles = frozenset(
        {
            "ApprovalOpened.v1",
            "StepAnswered.v1",
            "StepOpened.v1",
            "StepReminded.v1",
            "StepPassedOn.v1",
            "ApprovalClosed.v1",
            "TransferRefused.v1",
        }
    )
    needs_cause = frozenset({"ApprovalOpened.v1", "TransferRefused.v1"})

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        opened: dict[str, dict[str, Any]] = {}
        changed: dict[str, dict[str, Any]] = {}
        states = _load(connection, changes)
        for event, cause in changes:
            data = event.data
            match data:
                case decisions.TransferRefused():
                    opened[data.transfer] = _refused(event, _cause(event, cause))
                    continue
                case decisions.ApprovalOpened():
                    opened[data.approval] = _opened(event, _cause(event, cause))
                case _:
                    pass
            row = opened.get(data.approval) or changed.setdefault(data.approval, {})
            row |= _after(event, states, data.approval)
        write(connection, _OPEN, list(opened.values()))
        write(connection, _CHANGE, [{"approval": key, **row} for key, row in changed.items()])


def _cause(event: Event, cause: Event | None) -> Event:
    if cause is None:
        raise LookupError(f"the request of the decision at {event.position} is missing")
    return cause


def _load(connection: Connection[Any], changes: Sequence[Change]) -> dict[str, Approval | None]:
    """Load the approvals that a batch touches and that were opened before it."""
    touched = {
        event.data.approval
        for event, _ in changes
        if not isinstance(event.data, decisions.TransferRefused)
    }
    if not touched:
        return {}
    rows = connection.execute(_LOAD, (text_array(sorted(touched)),))
    return {approval: _APPROVAL.validate_python(state) for approval, state in rows}


def _after(event: Event, states: dict[str, Approval | None], approval: str) -> dict[str, Any]:
    """Fold an event into ``states``, and return the columns that it changes."""
    data, before = event.data, states.get(approval)
    ended: dict[str, Any] = {"outcome": None, "outcome_reason": None, "closed": None}
    if isinstance(data, decisions.ApprovalClosed):
        if before is None:
            raise LookupError(f"{approval} was closed before it was opened")
        ended = {"outcome": data.outcome, "outcome_reason": data.reason, "closed": event.effective}
    else:
        states[approval] = before = after(
            before,
            data,
            event.effective,
            policy=event.envelope["policy"],
            import_id=event.import_id,
        )
    state = orjson.loads(orjson.dumps(before))
    return {"state": state, "changed_position": event.position, **ended}


def _opened(event: Event, cause: Event) -> dict[str, Any]:
    data: decisions.ApprovalOpened = event.data
    return {
        "approval": data.approval,
        "customer": data.customer,
        "purpose": data.purpose,
        "requester": data.requester,
        "owner": data.owner,
        "receiver": data.receiver,
        "reason_code": data.reason_code,
        **_value(cause),
        "opened": event.effective,
        "opened_position": event.position,
    }


def _refused(event: Event, cause: Event) -> dict[str, Any]:
    data: decisions.TransferRefused = event.data
    return {
        "approval": data.transfer,
        "customer": data.customer,
        "purpose": "transfer",
        "requester": cause.actor,
        "owner": data.owner,
        "receiver": data.receiver,
        "reason_code": cause.data.reason_code,
        **_value(cause),
        "opened": event.effective,
        "state": None,
        "outcome": NOT_OPENED,
        "outcome_reason": data.reason,
        "closed": event.effective,
        "opened_position": event.position,
        "changed_position": event.position,
    }


def _value(cause: Event) -> dict[str, Any]:
    value: Money | None = getattr(cause.data, "value", None)
    if value is None:
        return {"amount": None, "currency": None}
    return {"amount": f"{value.amount:f}", "currency": value.currency}


# --- queries -----------------------------------------------------------------------------------

Outcome = Literal["completed", "refused", "withdrawn", "expired", "void", "not_opened"]
Status = Literal["open", "ended"] | Outcome
PAGE = 200
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """A transfer, release, collaboration or claim that needed approval. Times are UTC.

    ``owner`` is None where the customer was free.

    ``state`` holds its steps and answers, None where it was refused at the door. ``outcome`` is
    None while it is open; ``outcome_reason`` (see ledger/reasons.py) says why it was refused or is
    void. ``opened_position`` is where the log says that it was opened.
    """

    approval: str
    customer: str
    purpose: str
    requester: str
    owner: str | None
    receiver: str | None
    reason_code: str
    value: Money | None
    opened: datetime
    state: Approval | None
    outcome: Outcome | None
    outcome_reason: str | None
    closed: datetime | None
    opened_position: int
    changed_position: int


_SELECT = """
SELECT approval, customer, purpose, requester, owner, receiver, reason_code, amount, currency,
    opened, state, outcome, outcome_reason, closed, opened_position, changed_position
FROM projections.approvals
"""
_CONDITIONS: Mapping[str, str] = {
    "customer": "customer = %(customer)s",
    "requester": "requester = %(requester)s",
    "receiver": "receiver = %(receiver)s",
    "owner": "owner = %(owner)s",
    "purpose": "purpose = %(purpose)s",
    "outcome": "outcome = %(outcome)s",
}
_OPEN_ROWS = f"""
{_SELECT} WHERE outcome IS NULL AND opened_position > %s ORDER BY opened_position LIMIT %s
"""


def approval_of(connection: Connection[Any], approval: str) -> ApprovalRow | None:
    """Return one approval, None where there is none of that id."""
    rows = connection.execute(f"{_SELECT} WHERE approval = %s".encode(), (approval,))
    return next(map(_row, rows), None)


def approvals_named(connection: Connection[Any], ids: Sequence[str]) -> dict[str, ApprovalRow]:
    """Return those of the approvals ``ids`` that there are, by id."""
    statement = f"{_SELECT} WHERE approval = ANY(%b)".encode()
    rows = connection.execute(statement, (text_array(sorted(ids)),))
    return {row.approval: row for row in map(_row, rows)}


def list_approvals(
    connection: Connection[Any],
    *,
    is_open: bool | None = None,
    before: int = POSITION_MAX,
    limit: int = PAGE,
    **filters: str | None,
) -> list[ApprovalRow]:
    """Return approvals from the newest back, opened before position ``before``.

    ``filters`` are customer, requester, receiver, owner, purpose and outcome; None does not filter.
    ``is_open`` True lists those that await approval, False those that ended.
    """
    asked = [_CONDITIONS[name] for name, value in filters.items() if value is not None]
    if is_open is not None:
        asked.append("outcome IS NULL" if is_open else "outcome IS NOT NULL")
    where = " AND ".join((*asked, "opened_position < %(before)s"))
    statement = f"{_SELECT} WHERE {where} ORDER BY opened_position DESC LIMIT %(limit)s"
    rows = connection.execute(statement.encode(), {**filters, "before": before, "limit": limit})
    return list(map(_row, rows))


def open_approvals(
    connection: Connection[Any], after: int = 0, limit: int = PAGE
) -> list[ApprovalRow]:
    """Return what awaits approval, from the oldest on, opened behind position ``after``."""
    return list(map(_row, connection.execute(_OPEN_ROWS.encode(), (after, limit))))


def _row(row: Sequence[Any]) -> ApprovalRow:
    amount, currency, opened, state = row[7:11]
    value = None if amount is None or currency is None else Money(amount, currency)
    approval = None if state is None else _APPROVAL.validate_python(state)
    return ApprovalRow(*[*row[:7], value, opened, approval, *row[11:]])
