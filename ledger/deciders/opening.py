"""What every opening of an approval or conflict has in common: who is asked."""

from __future__ import annotations

from ledger import approving, conflicts
from ledger.approving import Approval
from ledger.deciders.situations import Situation
from ledger.events import decisions


def lacks_an_approver(situation: Situation, approval: Approval) -> bool:
    """Say whether some step could not be filled as the organisation stands."""
    return approving.lacks_an_approver(
        approval, situation.organisation, situation.day, situation.version
    )


def opening(situation: Situation, approval: Approval) -> decisions.ApprovalOpened:
    """Return the decision that opens ``approval``; where it has no step, nobody is asked."""
    asked: tuple[str, ...] = ()
    if approval.steps:
        asked = approving.asked(approval, situation.organisation, situation.day, situation.version)
    return decisions.ApprovalOpened(
        situation.customer_id,
        approval.approval,
        approval.purpose,
        approval.requester,
        approval.owner,
        approval.reason_code,
        approval.receiver,
        tuple(each.step for each in approval.steps),
        asked,
        approval.collaborators,
        ruled_among=approval.ruled_among or None,
    )


def rulers(situation: Situation, parties: tuple[str, ...], passed_on: int) -> tuple[str, ...]:
    """Return, sorted, who may rule among ``parties``."""
    return conflicts.rulers(
        parties, passed_on, situation.organisation, situation.day, situation.version
    )
