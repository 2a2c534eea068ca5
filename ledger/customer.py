"""The settled state of one customer: what its decisions, in order, have made of it.

A union by status, so that a field that makes no sense in a status does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ledger.events.decisions import CustomerAdmitted
from ledger.events.requests import CustomerChangeRequested, RegistrationRequested
from ledger.events.values import Attribute

# So many former owners are remembered for the cooldown; more within one cooldown is no business.
FORMER_OWNERS_MAX = 8


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody owns the customer."""


@dataclass(frozen=True, slots=True)
class Held:
    """``owner`` owns the customer since a moment, protected until another (UTC)."""

    owner: str
    since: datetime
    protected_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FormerOwner:
    """Who owned the customer before, and when that ended (UTC)."""

    person: str
    ended: datetime


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Nothing was decided that admits the customer."""

    effective: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The registration was refused; ``existing`` is the customer that is meant instead."""

    existing: str | None
    effective: datetime | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """The customer is in the ledger. ``effective`` is its last decision's effective time."""

    effective: datetime
    kind: str
    territory: str | None
    attributes: dict[str, Attribute]
    identifiers: dict[str, str]
    parent: str | None = None
    closed: bool = False
    tenure: Free | Held = Free()
    former: tuple[FormerOwner, ...] = ()
    won_deals: int = 0

    @property
    def owner(self) -> str | None:
        """The present owner, None while the customer is free."""
        return self.tenure.owner if isinstance(self.tenure, Held) else None


Customer = Unregistered | Refused | Admitted


def admitted(
    request: RegistrationRequested, decision: CustomerAdmitted, effective: datetime
) -> Admitted:
    """Return the customer that a registration makes."""
    return Admitted(
        effective=effective,
        kind=request.kind,
        territory=request.territory,
        attributes=dict(request.attributes),
        identifiers={each.system: each.key for each in decision.identifiers},
        parent=decision.parent,
    )


def changed(customer: Admitted, request: CustomerChangeRequested) -> Admitted:
    """Return the customer as a change makes it; names and contacts are none of our business."""
    removed = frozenset(request.removed)
    attributes = {
        name: value
        for name, value in (customer.attributes | request.attributes).items()
        if f"attribute:{name}" not in removed
    }
    identifiers = customer.identifiers | {each.system: each.key for each in request.identifiers}
    return replace(
        customer,
        territory=None if "territory" in removed else request.territory or customer.territory,
        parent=None if "parent" in removed else request.parent or customer.parent,
        closed=customer.closed if request.closed is None else request.closed,
        attributes=attributes,
        identifiers={
            system: key
            for system, key in identifiers.items()
            if f"identifier:{system}" not in removed
        },
    )


def taken(
    customer: Admitted, owner: str, effective: datetime, protected_until: datetime | None
) -> Admitted:
    """Return the customer as it is when somebody begins to own it."""
    return replace(customer, tenure=Held(owner, effective, protected_until), effective=effective)


def given_up(customer: Admitted, effective: datetime) -> Admitted:
    """Return the customer as it is when its owner no longer owns it."""
    if not isinstance(customer.tenure, Held):
        raise AssertionError("only an owned customer can be given up")
    owner = customer.tenure.owner
    former = (
        FormerOwner(owner, effective),
        *(each for each in customer.former if each.person != owner),
    )
    return replace(customer, tenure=Free(), former=former[:FORMER_OWNERS_MAX], effective=effective)
