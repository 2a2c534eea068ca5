"""Deadlines that the clock says were reached: whether they were, and what follows. Part of
version 1.
"""

from __future__ import annotations

from ledger import approving, conflicts, deadlines, reasons
from ledger.approving import Approval
from ledger.customer import Admitted, open_approval
from ledger.deadlines import Deadline
from ledger.deciders import conflicting, recycling
from ledger.deciders.situations import Situation
from ledger.events import decisions, requests
from ledger.recycling import fall_of

Decisions = tuple[decisions.Decision, ...]


def decide_deadline(situation: Situation, request: requests.DeadlineReached) -> Decisions:
    """Let follow what the deadline brings, if just this is what falls due next, and is due.

    Due is judged by the recorded time of the request. A clock that was told of an older state
    raises what no longer holds: that is noted, and nothing else.
    """
    customer, name = situation.customer, situation.customer_id
    organisation, now = situation.organisation, situation.request.recorded
    if not isinstance(customer, Admitted):
        return (decisions.Noted(name, reasons.DEADLINE_MOVED),)
    approval = open_approval(customer, request.subject)
    conflict = conflicts.of(customer.conflicts, request.subject)
    fall = fall_of(name, customer, organisation, now)
    due = None if fall is None else deadlines.of_fall(fall)
    if approval is not None:
        due = deadlines.of_approval(approval, organisation)
    elif conflict is not None:
        due = deadlines.of_ruling(conflict.conflict, conflict.waiting, organisation)
    if due is None or due != Deadline(request.kind, request.subject, request.due):
        return (decisions.Noted(name, reasons.DEADLINE_MOVED),)
    if now < request.due:
        return (decisions.Noted(name, reasons.DEADLINE_AHEAD),)
    if approval is not None:
        return (_of_approval(situation, approval, request.kind),)
    if conflict is not None:
        return (conflicting.waited_in_vain(situation, conflict, request.kind),)
    return (recycling.decide_fall(situation, customer),)


def _of_approval(situation: Situation, approval: Approval, kind: str) -> decisions.Decision:
    customer, organisation, day = situation.customer_id, situation.organisation, situation.day
    version = situation.version
    if kind == deadlines.APPROVAL_EXPIRY:
        return decisions.ApprovalClosed(customer, approval.approval, "expired")
    if kind == deadlines.PASSING_ON:
        further = approving.passed_further(
            approval, situation.effective, organisation, day, version
        )
        if further is not None:
            asked = approving.asked(further, organisation, day, version)
            return decisions.StepPassedOn(customer, approval.approval, approval.current, asked)
        # Nobody is further up: those who are asked hear of it once more.
    asked = approving.asked(approval, organisation, day, version)
    return decisions.StepReminded(customer, approval.approval, approval.current, asked)
