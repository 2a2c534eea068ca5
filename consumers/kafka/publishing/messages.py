"""The bodies of what subscribers are told: a contract, apart from what is stored.

Names, types and meanings of fields are for ever: a field may be added, and what else would change
gets a type of another number. Nothing here is personal: there are ids, codes, positions and times.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from ledger.canonical import instant

Moment = Annotated[
    datetime,
    PlainSerializer(instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": "Z$"}),
]
"""A moment in UTC; in JSON RFC 3339 with six digits and ``Z``."""

Code = str
"""A word for programs, such as ``no_follow_up``; others may come."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class KnownAs(_Body):
    """What another system calls the same thing."""

    system: str = Field(description="The other system.")
    value: str = Field(description="The id there.")


ForeignIds = Annotated[
    tuple[KnownAs, ...],
    Field(
        description="The ids in other systems, as far as they are known at this position and say"
        " nothing personal; sorted."
    ),
]


class Customer(_Body):
    """A customer."""

    id: str = Field(description="The ledger's id; the key of the record too.")
    foreign_ids: ForeignIds


class Person(_Body):
    """Somebody of the organisation."""

    id: str = Field(description="The ledger's id.")
    foreign_ids: ForeignIds


class Cause(_Body):
    """The request that brought it: by this a system knows its own doing when it comes back."""

    position: int = Field(description="The position of the request in the log.")
    request_id: str = Field(description="The id that the caller gave the request.")
    caller: str = Field(description="Who recorded it, as authenticated.")
    source: str | None = Field(description="The system that it came from, where one was named.")


class Told(_Body):
    """What is told of every decision."""

    type: ClassVar[str]

    position: int = Field(description="Where it stands in the log; what comes later is higher.")
    version: int = Field(
        description="The version of the customer's ownership. It rises with each decision about the"
        " customer; not each is told, so there are gaps."
    )
    effective: Moment = Field(description="When it held. Of imported history that is long ago.")
    recorded: Moment = Field(description="When the ledger recorded it.")
    customer: Customer
    cause: Cause


class OwnerTold(Told):
    """Of a decision by which the owner changes."""

    owner: Person | None = Field(description="Who owns the customer from now on; null: nobody.")
    former_owner: Person | None = Field(description="Who did until now; null: nobody.")
    reason: Code = Field(description="Why.")


class Admitted(OwnerTold):
    """The customer is in the ledger, and nobody owns it yet."""

    type: ClassVar[str] = "guishu.ownership.admitted.v1"

    territory: str | None = Field(description="In whose pool it is; null: anybody may claim it.")
    known_from: Moment = Field(description="Before this nobody knows whose the customer was.")


class RegistrationRefused(Told):
    """The customer was not admitted."""

    type: ClassVar[str] = "guishu.ownership.registration_refused.v1"

    reason: Code = Field(description="Why.")
    existing: str | None = Field(description="The customer that is meant instead, where one is.")


class CustomerChanged(Told):
    """What is known of the customer has changed, its foreign ids or territory perhaps."""

    type: ClassVar[str] = "guishu.ownership.customer_changed.v1"

    territory: str | None = Field(description="Its territory from now on.")


class Granted(OwnerTold):
    """A claim holds."""

    type: ClassVar[str] = "guishu.ownership.granted.v1"

    protected_until: Moment | None = Field(
        description="Until then nobody else may ask for the customer; null: no protection."
    )
    approval: str | None = Field(description="What the claim awaited, where it did.")


class ClaimRefused(Told):
    """A claim fails."""

    type: ClassVar[str] = "guishu.ownership.claim_refused.v1"

    claimant: Person
    owner: Person | None = Field(description="Whose the customer is; null: nobody's.")
    reason: Code = Field(description="Why.")
    retry_at: Moment | None = Field(description="When this reason no longer holds, if known.")


class Assigned(OwnerTold):
    """A manager gave a free customer to somebody."""

    type: ClassVar[str] = "guishu.ownership.assigned.v1"

    protected_until: Moment | None = Field(
        description="Until then nobody else may ask for the customer; null: no protection."
    )


class AssignmentRefused(Told):
    """An assignment fails."""

    type: ClassVar[str] = "guishu.ownership.assignment_refused.v1"

    assignee: Person
    owner: Person | None = Field(description="Whose the customer is; null: nobody's.")
    reason: Code = Field(description="Why.")


class Released(OwnerTold):
    """The customer was given back to the pool."""

    type: ClassVar[str] = "guishu.ownership.released.v1"

    territory: str | None = Field(description="In whose pool it is; null: anybody may claim it.")


class ReleaseRefused(Told):
    """A release fails."""

    type: ClassVar[str] = "guishu.ownership.release_refused.v1"

    owner: Person | None = Field(description="Whose the customer is; null: nobody's.")
    reason: Code = Field(description="Why.")


class Transferred(OwnerTold):
    """Somebody else owns the customer."""

    type: ClassVar[str] = "guishu.ownership.transferred.v1"

    protected_until: Moment | None = Field(
        description="Until then nobody else may ask for the customer; null: no protection."
    )
    approval: str = Field(description="The transfer, as it was approved.")
    hand_over: str | None = Field(description="The hand-over that moved it, where one did.")


class TransferRefused(Told):
    """A transfer fails before anybody is asked to approve it."""

    type: ClassVar[str] = "guishu.ownership.transfer_refused.v1"

    transfer: str = Field(description="Its id.")
    receiver: Person
    owner: Person | None = Field(description="Whose the customer is; null: nobody's.")
    reason: Code = Field(description="Why.")
    retry_at: Moment | None = Field(description="When this reason no longer holds, if known.")


class ApprovalOpened(Told):
    """Something awaits approval; the owner stays until then."""

    type: ClassVar[str] = "guishu.ownership.approval_opened.v1"

    approval: str = Field(description="Its id; of a transfer that of the transfer.")
    purpose: Code = Field(description="transfer, release, claim or collaboration.")
    reason: Code = Field(description="Why it was asked for.")
    owner: Person | None = Field(description="Whose the customer is; null: nobody's.")
    receiver: Person | None = Field(description="Whose it would be, or who would collaborate.")


class ApprovalClosed(Told):
    """Nothing is awaited any more. If the owner changes, another message says so."""

    type: ClassVar[str] = "guishu.ownership.approval_closed.v1"

    approval: str = Field(description="Its id.")
    purpose: Code | None = Field(description="As when it was opened.")
    outcome: Code = Field(description="completed, refused, withdrawn, expired or void.")
    reason: Code | None = Field(description="Why it was refused or is void.")


class ConflictOpened(Told):
    """Several people meet at the customer."""

    type: ClassVar[str] = "guishu.ownership.conflict_opened.v1"

    conflict: str = Field(description="Its id.")
    kind: Code = Field(description="competing_claims, follow_up, deal, identifier or group.")
    parties: tuple[Person, ...] = Field(description="They begin with the owner.")


class ConflictExtended(Told):
    """There is more evidence in an open conflict, and perhaps more parties."""

    type: ClassVar[str] = "guishu.ownership.conflict_extended.v1"

    conflict: str = Field(description="Its id.")
    parties: tuple[Person, ...] = Field(description="Those who join it.")


class ConflictResolved(Told):
    """A conflict was ruled on, or its cause is gone. Other messages say whose the customer is."""

    type: ClassVar[str] = "guishu.ownership.conflict_resolved.v1"

    conflict: str = Field(description="Its id.")
    outcome: Code = Field(description="keep, award, split, allow, dismiss or gone.")
    reason: Code = Field(description="That of the ruling, or why the cause is gone.")
    receiver: Person | None = Field(description="To whom it was awarded.")


class RecycleWarned(Told):
    """The customer goes back to the pool if nobody does anything."""

    type: ClassVar[str] = "guishu.ownership.recycle_warned.v1"

    owner: Person
    reason: Code = Field(description="no_follow_up or no_deal.")
    goes: Moment = Field(description="When.")


class RecycleHeld(Told):
    """Nothing is counted towards that for a while."""

    type: ClassVar[str] = "guishu.ownership.recycle_held.v1"

    owner: Person
    until: Moment = Field(description="How long.")


class Recycled(OwnerTold):
    """The customer went back to the pool, for nobody did enough."""

    type: ClassVar[str] = "guishu.ownership.recycled.v1"

    territory: str | None = Field(description="In whose pool it is; null: anybody may claim it.")


class Current(_Body):
    """Who owns a customer now: all that is to be kept of it, whatever was known before.

    Keep that of the highest version: an older one may come again.
    """

    type: ClassVar[str] = "guishu.ownership.current.v1"

    position: int = Field(description="The position of the log that made it so.")
    version: int = Field(description="The version of the customer's ownership that made it so.")
    recorded: Moment = Field(description="When the ledger recorded that.")
    customer: Customer
    owner: Person | None = Field(description="Who owns the customer; null: it is free.")
    former_owner: Person | None = Field(description="Who did last before; null: nobody.")
    since: Moment = Field(description="From when on that owner does, or from when on it is free.")
    protected_until: Moment | None = Field(
        description="Until then nobody else may ask for the customer; null: no protection."
    )
    reason: Code = Field(description="Why it came to be so.")
    cause: Cause
