"""What awaits approval or a ruling, as the interface answers it: shapes, and who sees what of them.

The value of a deal at stake is seen within one's scope, by whoever asked for the transfer, and by
those who are asked to judge it; of others it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection
from pydantic import Field

from api.awaiting import (
    approver_words,
    asked_to_answer,
    asked_to_rule,
    deadline_words,
    next_of,
)
from api.http.callers import Caller
from api.http.shapes import Money, Shape
from api.http.sight import note_access, sight_of
from ledger import reasons
from ledger.approving import Answer as Given
from ledger.approving import Asked
from ledger.deadlines import Deadline
from ledger.events.values import Approver as Named
from ledger.organisation import OrganisationAt
from projections.approvals import ApprovalRow
from projections.conflicts import ConflictRow


class Due(Shape):
    """What happens at a moment where nobody acts: ``then`` is a code, and ``words`` say it."""

    due: datetime
    then: str = Field(examples=["step_reminder"])
    words: str = Field(examples=["reminded"])


class Approver(Shape):
    """Who has to answer: ``owner``, ``receiver`` or ``person`` name a person, ``head`` the head of
    a territory (without one: an administrator), ``role`` whoever has a role.
    """

    kind: str
    territory: str | None = None
    person: str | None = None
    role: str | None = None
    words: str = Field(examples=["head of 华东"])


class Answer(Shape):
    """What somebody answered, in place of which of the step's approvers (from 0)."""

    approver: int
    person: str
    agreed: bool


class Step(Shape):
    """A step: ``needed`` of its approvers must agree. ``passed_on`` counts how far it went up."""

    approvers: list[Approver]
    needed: int
    passed_on: int
    answers: list[Answer]


class Approval(Shape):
    """A transfer, release, claim or collaboration (``purpose``) that needs, or needed, approval.

    ``status`` is ``open``, or how it ended: ``completed``, ``refused``, ``withdrawn``, ``expired``,
    ``void``, or ``not_opened`` where it was refused at the door, for ``reason``. ``step`` is the
    one that is to be answered now (from 0), ``awaits`` who may answer it today, and ``next`` what
    happens where nobody does. ``value`` is left out for whom it is not.
    """

    approval: str
    customer: str
    purpose: str
    status: str
    requester: str
    owner: str | None
    receiver: str | None
    reason_code: str
    value: Money | None
    hand_over: str | None
    opened: datetime
    closed: datetime | None
    reason: str | None
    sentence: str | None
    steps: list[Step]
    step: int | None
    awaits: list[str]
    next: Due | None
    masked: bool = Field(False, description="Whether a value is left out for this caller.")
    position: int


class Conflict(Shape):
    """A conflict: ``parties`` begin with the owner, ``evidence`` are positions of requests.

    ``status`` is ``open``, or how it ended: the ruling, or ``gone``, for ``reason_code``.
    ``awaits`` is who may rule today.
    """

    conflict: str
    customer: str
    kind: str
    status: str
    owner: str
    parties: list[str]
    evidence: list[int]
    passed_on: int
    opened: datetime
    closed: datetime | None
    reason_code: str | None
    ruled_by: str | None
    receiver: str | None
    awaits: list[str]
    position: int


def due(deadline: Deadline | None) -> Due | None:
    """Return the shape of a deadline."""
    if deadline is None:
        return None
    return Due(due=deadline.due, then=deadline.kind, words=deadline_words(deadline.kind))


def approver(named: Named, organisation: OrganisationAt) -> Approver:
    """Return the shape of as what somebody is asked."""
    return Approver(
        kind=named.kind,
        territory=named.territory,
        person=named.person,
        role=named.role,
        words=approver_words(named, organisation),
    )


# --- approvals -----------------------------------------------------------------------------------


def approvals(
    connection: Connection[Any], caller: Caller, route: str, rows: Sequence[ApprovalRow]
) -> list[Approval]:
    """Return approvals as the caller may see them; that a value is seen is noted."""
    sight = sight_of(connection, caller, {row.customer for row in rows if row.value})
    shown: set[str] = set()
    for row in rows:
        asked = asked_to_answer(row, caller.organisation, caller.day)
        if row.value and sight.shows(row.customer, row.requester, *asked):
            shown.add(row.approval)
    subjects = {row.customer for row in rows if row.approval in shown}
    note_access(connection, caller, route, subjects, ("value",))
    return [_approval(caller, row, not row.value or row.approval in shown) for row in rows]


def _approval(caller: Caller, row: ApprovalRow, is_seen: bool) -> Approval:
    organisation, state = caller.organisation, row.state
    value = row.value if is_seen else None
    return Approval(
        approval=row.approval,
        customer=row.customer,
        purpose=row.purpose,
        status=row.outcome or "open",
        requester=row.requester,
        owner=row.owner,
        receiver=row.receiver,
        reason_code=row.reason_code,
        value=None if value is None else Money(amount=value.amount, currency=value.currency),
        hand_over=state.hand_over if state else None,
        opened=row.opened,
        closed=row.closed,
        reason=row.outcome_reason,
        sentence=reasons.SENTENCES.get(row.outcome_reason) if row.outcome_reason else None,
        steps=[_step(each, organisation) for each in state.steps] if state else [],
        step=state.current if state and row.outcome is None else None,
        awaits=list(asked_to_answer(row, organisation, caller.day)),
        next=due(next_of(row, organisation)),
        masked=not is_seen,
        position=row.opened_position,
    )


def _step(asked: Asked, organisation: OrganisationAt) -> Step:
    return Step(
        approvers=[approver(each, organisation) for each in asked.step.approvers],
        needed=asked.step.needed,
        passed_on=asked.passed_on,
        answers=[_answer(each) for each in asked.answers],
    )


def _answer(given: Given) -> Answer:
    return Answer(approver=given.approver, person=given.person, agreed=given.agreed)


# --- conflicts -----------------------------------------------------------------------------------


def conflict(caller: Caller, row: ConflictRow) -> Conflict:
    """Return the shape of a conflict."""
    return Conflict(
        conflict=row.conflict,
        customer=row.customer,
        kind=row.kind,
        status=row.outcome or "open",
        owner=row.owner,
        parties=list(row.parties),
        evidence=list(row.evidence),
        passed_on=row.passed_on,
        opened=row.opened,
        closed=row.closed,
        reason_code=row.reason_code,
        ruled_by=row.ruled_by,
        receiver=row.receiver,
        awaits=list(asked_to_rule(row, caller.organisation, caller.day)),
        position=row.opened_position,
    )
