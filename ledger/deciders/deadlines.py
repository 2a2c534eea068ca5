"""Deadlines that the clock says were reached: whether they were, and what follows. Part of
version 1.
"""

from __future__ import annotations

from ledger import approving, conflicts, deadlines, reasons
from ledger.approving import Approval
from ledger.customer import Admitted, open_approval
from ledger.deadlines import Deadline
from ledger.deciders import conflicting
from ledger.deciders.situations import Situation
from ledger.events import decisions, requests

Decisions = tuple[decisions.Decision, ...]


def decide_deadline(situation: Situation, request: requests.DeadlineReached) -> Decisions:
    """Let follow what the deadline brings, if just this is what falls due next, and is due.

    Due is judged by the recorded time of the request. A clock that was told of an older state
    raises what no longer holds: that is noted, and nothing else.
    """
    customer = situation.customer
    approval, conflict = None, None
    if isinstance(customer, Admitted):
        approval = open_approval(customer, request.subject)
        conflict = conflicts.of(customer.conflicts, request.subject)
    due: Deadline | None = None
    if approval is not None:
        due = deadlines.of_approval(approval, situation.organisation)
    elif conflict is not None:
        due = deadlines.of_ruling(conflict.conflict, conflict.waiting, situation.organisation)
    if due is None or due != Deadline(request.kind, request.subject, request.due):
        return (decisions.Noted(situation.customer_id, reasons.DEADLINE_MOVED),)
    if situation.request.recorded < request.due:
        return (decisions.Noted(situation.customer_id, reasons.DEADLINE_AHEAD),)
    if approval is not None:
        return (_of_approval(situation, approval, request.kind),)
    if conflict is None:
        raise AssertionError("what falls due is about an approval or a conflict")
    return (conflicting.waited_in_vain(situation, conflict, request.kind),)


def _of_approval(situation: Situation, approval: Approval, kind: str) -> decisions.Decision:
    customer, organisation, day = situation.customer_id, situation.organisation, situation.day
    if kind == deadlines.APPROVAL_EXPIRY:
        return decisions.ApprovalClosed(customer, approval.approval, "expired")
    if kind == deadlines.PASSING_ON:
        further = approving.passed_further(approval, situation.effective, organisation, day)
        if further is not None:
            asked = approving.asked(further, organisation, day)
            return decisions.StepPassedOn(customer, approval.approval, approval.current, asked)
        # Nobody is further up: those who are asked hear of it once more.
    asked = approving.asked(approval, organisation, day)
    return decisions.StepReminded(customer, approval.approval, approval.current, asked)
