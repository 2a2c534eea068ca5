"""What the interface answers, as JSON: the shapes that several resources share.

Instants are RFC 3339 in UTC; money is ``{"amount": "1054.00", "currency": "CNY"}``; ids are opaque.
What is None is not known, or is not for the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.outcomes import Status, status_of
from ledger import reasons
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue
from ledger.recording import Recorded

T = TypeVar("T")


class Shape(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Problem(Shape):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:guishu:problem:invalid_request"])
    title: str
    status: int
    detail: str
    code: str
    way_out: str | None = None
    permission: str | None = Field(None, description="The permission that is missing (403).")
    errors: list[dict[str, str]] | None = Field(
        None, description="Where several things are wrong: each with pointer and detail."
    )


MISSING: dict[int | str, dict[str, Any]] = {404: {"description": "There is none of this id."}}
"""What a route that names something answers where there is none of it."""


class Money(Shape):
    """An amount, which is a decimal string, with its ISO 4217 currency."""

    amount: Decimal = Field(examples=["1054.00"])
    currency: str = Field(examples=["CNY"])


class ForeignId(Shape):
    """What another system calls somebody or something."""

    system: str
    value: str


class Page(Shape, Generic[T]):
    """A page of a list. ``next`` is the cursor of the next one; None: this is the last."""

    items: list[T]
    next: str | None = None


class Decision(Shape):
    """A decision, as the log has it."""

    position: int
    name: str = Field(examples=["OwnershipGranted.v1"])
    customer: str
    effective: datetime
    recorded: datetime
    reason: str | None = Field(None, description="Why something was refused, as a stable code.")
    sentence: str | None = Field(None, description="The reason in words.")
    data: dict[str, Any]


class Outcome(Shape):
    """What was recorded, and what came of it.

    ``request`` is the position of the request in the log, ``made`` the id of what it made (a
    follow-up, a transfer, …). ``repeated``: it was recorded before, and this is the first answer.
    """

    request: int
    request_id: str
    customer: str
    made: str | None = None
    repeated: bool = False
    status: Status
    decisions: list[Decision]


def decision(catalogue: Catalogue, event: Event) -> Decision:
    """Return the shape of a decision."""
    data = catalogue.dump(event.data)
    reason = data.get("reason") or data.get("remark")
    return Decision(
        position=event.position,
        name=event.name,
        customer=data.get("customer", ""),
        effective=event.effective,
        recorded=event.recorded,
        reason=reason,
        sentence=reasons.SENTENCES.get(reason) if reason else None,
        data=data,
    )


def outcome(catalogue: Catalogue, recorded: Recorded, decided: Sequence[Event]) -> Outcome:
    """Return the shape of what was recorded and decided."""
    return Outcome(
        request=recorded.positions[-1],
        request_id=recorded.request_id,
        customer=recorded.customer,
        made=recorded.made,
        repeated=recorded.repeated,
        status=status_of(decided),
        decisions=[decision(catalogue, each) for each in decided],
    )
