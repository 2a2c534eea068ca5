"""What every opening of an approval has in common."""

from __future__ import annotations

from ledger import approving
from ledger.approving import Approval
from ledger.deciders.situations import Situation
from ledger.events import decisions


def opening(situation: Situation, approval: Approval) -> decisions.ApprovalOpened:
    """Return the decision that opens ``approval``; where it has no step, nobody is asked."""
    return decisions.ApprovalOpened(
        situation.customer_id,
        approval.approval,
        approval.purpose,
        approval.requester,
        approval.owner,
        approval.reason_code,
        approval.receiver,
        tuple(each.step for each in approval.steps),
        approving.asked(approval, situation.organisation, situation.day) if approval.steps else (),
        approval.collaborators,
    )
