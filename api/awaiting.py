"""What awaits whom: approvals to give, conflicts to rule on, and what happens where nobody does.

Told the same way by the command line and over HTTP. Who may answer is judged by the organisation
as it stands on a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any, TypeVar

from psycopg import Connection

from ledger import approving, conflicts, deadlines
from ledger.deadlines import Deadline
from ledger.events.values import Approver
from ledger.organisation import OrganisationAt
from projections.approvals import ApprovalRow, open_approvals
from projections.conflicts import ConflictRow, open_conflicts

Row = TypeVar("Row", ApprovalRow, ConflictRow)
_AT_ONCE = 200


def asked_as(
    row: ApprovalRow, person: str, organisation: OrganisationAt, day: date
) -> list[Approver]:
    """Return as what somebody may answer now, as the organisation stands on ``day``."""
    if row.state is None or row.outcome is not None:
        return []
    approvers = row.state.step.step.approvers
    return [
        approvers[number]
        for number, entitled in approving.open_places(
            row.state, organisation, day, organisation.decider
        )
        if entitled == person
    ]


def asked_to_answer(row: ApprovalRow, organisation: OrganisationAt, day: date) -> tuple[str, ...]:
    """Return who may answer on ``day``; nobody where it is closed."""
    if row.state is None or row.outcome is not None:
        return ()
    return approving.asked(row.state, organisation, day, organisation.decider)


def asked_to_rule(row: ConflictRow, organisation: OrganisationAt, day: date) -> tuple[str, ...]:
    """Return who may rule on ``day``; nobody where it is closed."""
    if row.outcome is not None:
        return ()
    return conflicts.rulers(row.parties, row.passed_on, organisation, day, organisation.decider)


def next_of(row: ApprovalRow, organisation: OrganisationAt) -> Deadline | None:
    """Return what falls due next where nobody answers; None where nothing does."""
    if row.state is None or row.outcome is not None:
        return None
    return deadlines.of_approval(row.state, organisation)


# --- what is open --------------------------------------------------------------------------------


def every_approval(connection: Connection[Any], *, after: int = 0) -> Iterator[ApprovalRow]:
    """Yield what awaits approval, the oldest first, opened behind position ``after``."""
    return _every(connection, open_approvals, after)


def every_conflict(connection: Connection[Any], *, after: int = 0) -> Iterator[ConflictRow]:
    """Yield what awaits a ruling, the oldest first, opened behind position ``after``."""
    return _every(connection, open_conflicts, after)


def _every(
    connection: Connection[Any],
    read: Callable[[Connection[Any], int, int], Sequence[Row]],
    after: int,
) -> Iterator[Row]:
    while page := read(connection, after, _AT_ONCE):
        yield from page
        after = page[-1].opened_position


# --- words ---------------------------------------------------------------------------------------


def approver_words(approver: Approver, organisation: OrganisationAt) -> str:
    """Return as what somebody is asked, such as ``head of 华东``."""
    match approver.kind:
        case "head" if approver.territory is not None:
            found = organisation.territory(approver.territory)
            return f"head of {found.name if found else approver.territory}"
        case "head":
            return "administrator"
        case "role":
            return f"role {approver.role}"
        case _:
            return approver.kind


def deadline_words(kind: str) -> str:
    """Return what happens at a deadline of this kind."""
    return {
        deadlines.STEP_REMINDER: "reminded",
        deadlines.PASSING_ON: "passed on",
        deadlines.APPROVAL_EXPIRY: "expires",
        deadlines.RULING_REMINDER: "ruling reminded",
        deadlines.RULING_PASSING_ON: "ruling passed on",
        deadlines.RECYCLE_WARNING: "a warning that it goes",
        deadlines.RECYCLE: "back to the pool",
    }.get(kind, kind)
