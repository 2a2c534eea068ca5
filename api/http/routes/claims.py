"""Claims: filing one, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import AwareDatetime

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import Shape
from api.http.writing import Writes, submit
from ledger import commands, reasons
from ledger.approving import CLAIM
from ledger.commands import Id, Note
from ledger.envelope import Event
from ledger.events import decisions
from ledger.recording import Recorded
from projections import claims

router = APIRouter(prefix="/v1/claims", tags=["claims"])


class ClaimIn(commands.Command):
    """A claim to file. Without ``claimant`` the caller claims for themselves."""

    customer: Id
    claimant: Id | None = None
    note: Note | None = None
    occurred: AwareDatetime | None = None


class Claim(Shape):
    """A claim, and what was decided on it.

    ``claim`` is the position of its request. ``status`` is ``pending`` (not decided yet),
    ``awaiting`` (approval), ``granted``, ``refused`` (for ``reason``), ``withdrawn`` or
    ``expired``. ``owner`` is whose the customer was at the decision, or is by it; ``retry_at``
    when the reason no longer holds. ``filed_for`` is the duplicate that it named instead of
    ``customer``.
    """

    claim: int
    customer: str
    claimant: str
    status: claims.Status
    filed: datetime | None = None
    reason: str | None = None
    sentence: str | None = None
    owner: str | None = None
    protected_until: datetime | None = None
    retry_at: datetime | None = None
    approval: str | None = None
    effective: datetime | None = None
    decided: datetime | None = None
    decided_position: int | None = None
    filed_for: str | None = None
    repeated: bool = False


@router.post("", status_code=202, responses={201: {"model": Claim}})
async def file_claim(
    claim: ClaimIn,
    response: Response,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.CLAIM)],
    writes: Annotated[Writes, Depends()],
) -> Claim:
    """File a claim; with ``Prefer: wait=N`` the answer has its decision.

    A refused claim is a recorded outcome (201, status ``refused``) and no error. Without the
    decision the answer is 202, and ``Location`` names the claim.
    """
    fields: dict[str, Any] = {
        "customer": claim.customer,
        "claimant": claim.claimant or caller.actor,
        "note": claim.note,
    }
    recorded, decided = await submit(
        services, caller, writes, commands.FileClaim, fields, occurred=claim.occurred
    )
    response.headers["Location"] = f"/v1/claims/{recorded.positions[-1]}"
    return decided_claim(fields["claimant"], recorded, decided)


def decided_claim(claimant: str, recorded: Recorded, decided: Sequence[Event]) -> Claim:
    """Return a claim by what was recorded and decided."""
    told: dict[str, Any] = {
        "claim": recorded.positions[-1],
        "customer": recorded.customer,
        "claimant": claimant,
        "status": "pending",
        "repeated": recorded.repeated,
    }
    for event in decided:
        if (said := _said(event.data)) is not None:
            told |= said | {
                "effective": event.effective,
                "decided": event.recorded,
                "decided_position": event.position,
            }
            if event.data.customer != recorded.customer:
                told |= {"customer": event.data.customer, "filed_for": recorded.customer}
            break
    return Claim(**told)


def _said(data: Any) -> dict[str, Any] | None:
    """Return what a decision says of the claim, None where it is about something else."""
    match data:
        case decisions.OwnershipGranted():
            return {
                "status": "granted",
                "owner": data.owner,
                "protected_until": data.protected_until,
                "approval": data.approval,
            }
        case decisions.ClaimRefused():
            return {
                "status": "refused",
                "reason": data.reason,
                "sentence": reasons.SENTENCES.get(data.reason),
                "owner": data.owner,
                "retry_at": data.retry_at,
            }
        case decisions.ApprovalOpened(purpose=purpose) if purpose == CLAIM:
            return {"status": "awaiting", "approval": data.approval, "owner": data.owner}
        case _:
            return None


@router.get("/{claim}")
def get_claim(
    claim: Annotated[int, Path(ge=1, le=2**63 - 1)],
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
) -> Claim:
    """Return a claim and what came of it."""
    with services.reading(reads) as connection:
        found = claims.claim_at(connection, claim)
    if found is None:
        raise NotFoundError("claim", claim)
    sentence = reasons.SENTENCES.get(found.reason) if found.reason else None
    shown = {name: getattr(found, name) for name in Claim.model_fields if hasattr(found, name)}
    return Claim(claim=found.position, sentence=sentence, **shown)
