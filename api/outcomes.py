"""What came of a request, told the same way by the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ledger.envelope import Event
from ledger.events import decisions

Status = Literal["pending", "parked", "awaiting", "refused", "done"]
"""``pending``: not decided yet; ``parked``: it could not be decided, and an administrator must
look; ``awaiting``: approval is awaited; ``refused`` or ``done``: by what was decided."""


def is_refusal(data: decisions.Decision | decisions.RequestParked) -> bool:
    """Say whether a decision refuses what was asked."""
    return isinstance(
        data,
        decisions.ClaimRefused
        | decisions.ReleaseRefused
        | decisions.AssignmentRefused
        | decisions.RegistrationRefused
        | decisions.ChangeRefused
        | decisions.CorrectionRefused
        | decisions.TransferRefused
        | decisions.AnswerNotCounted
        | decisions.CollaborationRefused
        | decisions.RulingRefused
        | decisions.RecycleHoldRefused
        | decisions.GroupReviewRefused
        | decisions.StandInRefused
        | decisions.HandOverRefused,
    )


def status_of(decided: Sequence[Event]) -> Status:
    """Return the status of a request by all the decisions on it; none: it is pending.

    In their place may stand the RequestParked for which it waits, its own or an earlier one's.
    """
    return status_by([event.data for event in decided])


def status_by(decided: Sequence[decisions.Decision | decisions.RequestParked]) -> Status:
    """Return the status of a request by what was, or would be, decided on it."""
    if not decided:
        return "pending"
    if any(isinstance(each, decisions.RequestParked) for each in decided):
        return "parked"
    if any(map(is_refusal, decided)):
        return "refused"
    return "awaiting" if isinstance(decided[0], decisions.ApprovalOpened) else "done"
