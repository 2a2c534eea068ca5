"""What is told of a claim: by what was decided on it just now, or by the read model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from api.http.shapes import Shape
from api.outcomes import status_of
from ledger import reasons
from ledger.approving import CLAIM
from ledger.envelope import Event, decode
from ledger.events import decisions
from ledger.events.catalogue import Catalogue
from ledger.recording import Recorded
from ledger.store.reading import read_at
from projections import claims


class Claim(Shape):
    """A claim, and what was decided on it.

    ``claim`` is the position of its request. ``status`` is ``pending`` (not decided yet),
    ``parked`` (it could not be decided, or waits for an earlier request that could not: an
    administrator must look), ``awaiting`` (approval), ``granted``, ``refused`` (for ``reason``),
    ``withdrawn`` or ``expired``. ``owner`` is whose the customer was at the decision, or is by it;
    ``retry_at`` when the reason no longer holds. ``filed_for`` is the duplicate that it named
    instead of ``customer``. ``filed`` is told when the claim is read, and not by the answer to it.
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


def told(claimant: str, recorded: Recorded, decided: Sequence[Event]) -> dict[str, Any]:
    """Return the fields of a claim by what was recorded and decided."""
    fields: dict[str, Any] = {
        "claim": recorded.positions[-1],
        "customer": recorded.customer,
        "claimant": claimant,
        "status": "pending",
        "repeated": recorded.repeated,
    }
    for event in decided:
        if (said := said_by(event.data)) is not None:
            fields |= said | {
                "effective": event.effective,
                "decided": event.recorded,
                "decided_position": event.position,
            }
            if event.data.customer != recorded.customer:
                fields |= {"customer": event.data.customer, "filed_for": recorded.customer}
            return fields
    if status_of(decided) == "parked":
        fields["status"] = "parked"
    return fields


def said_by(data: Any) -> dict[str, Any] | None:
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


def shown(
    connection: Connection[Any], catalogue: Catalogue, found: Sequence[claims.Claim]
) -> list[Claim]:
    """Return claims as the read model has them; until when a grant protects is read in the log."""
    grants = [
        each.decided_position
        for each in found
        if each.status == "granted" and each.decided_position is not None
    ]
    protected = {}
    for stored in read_at(connection, grants) if grants else ():
        said = said_by(decode(catalogue, stored).data) or {}
        protected[stored.position] = said.get("protected_until")
    return [_shown(each, protected.get(each.decided_position or 0)) for each in found]


def _shown(found: claims.Claim, protected_until: datetime | None) -> Claim:
    sentence = reasons.SENTENCES.get(found.reason) if found.reason else None
    known = {name: getattr(found, name) for name in Claim.model_fields if hasattr(found, name)}
    return Claim(claim=found.position, sentence=sentence, protected_until=protected_until, **known)
