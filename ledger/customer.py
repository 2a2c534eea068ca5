"""The settled state of one customer: what its decisions, in order, have made of it.

A union by status, so that a field that makes no sense in a status does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from ledger.approving import TRANSFER, Approval
from ledger.collaborating import Collaboration
from ledger.conflicts import Allowed, Conflict
from ledger.counting import Counting
from ledger.events.decisions import CustomerAdmitted, CustomerChanged
from ledger.events.requests import CustomerChangeRequested, RegistrationRequested
from ledger.events.values import Attribute
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX
from ledger.standing_in import StandIns, ended

# So many former owners are remembered for the cooldown; more within one cooldown is no business.
FORMER_OWNERS_MAX = 8
# Nor of more people whom a transfer was refused, while one and the same owns the customer, or a
# claim.
TURNED_DOWN_MAX = 32
# Of what ended lately every ownership is remembered, up to so many: a late follow-up asks for it.
FORMER_OWNERSHIPS_MAX = 32
# A day more than any policy looks back, for days of the organisation are not all of 24 hours.
_LATELY = timedelta(days=LATE_FOLLOW_UP_DAYS_MAX + 1)


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody owns the customer."""


@dataclass(frozen=True, slots=True)
class Held:
    """``owner`` owns the customer since a moment, protected until another (UTC)."""

    owner: str
    since: datetime
    protected_until: datetime | None = None
    counting: Counting = field(default_factory=Counting)


@dataclass(frozen=True, slots=True)
class FormerOwner:
    """Who owned the customer before, from when on, and when that ended (UTC)."""

    person: str
    began: datetime
    ended: datetime


@dataclass(frozen=True, slots=True)
class ClaimRefusal:
    """Whose claim, which awaited approval, was refused, and when (UTC)."""

    person: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Nothing was decided that admits the customer."""

    effective: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The registration was refused; ``existing`` is the customer that is meant instead."""

    existing: str | None
    effective: datetime | None = None


# No dataclass: every decision changes something, and one of as many fields takes thrice as long.
class Admitted(NamedTuple):
    """The customer is in the ledger. ``effective`` is its last decision's effective time.

    Before ``known_from`` nobody knows whose it was. ``former`` holds ended ownerships, the last
    first (see ``given_up``), and ``contacts`` and ``sites`` the ids of those that the customer has
    now.
    """

    effective: datetime
    known_from: datetime
    kind: str
    territory: str | None
    attributes: dict[str, Attribute]
    identifiers: dict[str, str]
    parent: str | None = None
    closed: bool = False
    tenure: Free | Held = Free()
    former: tuple[FormerOwner, ...] = ()
    won_deals: int = 0
    contacts: frozenset[str] = frozenset()
    # What awaits approval, and the receivers of transfers that were refused to this owner.
    approval: Approval | None = None
    turned_down: tuple[str, ...] = ()
    sites: frozenset[str] = frozenset()
    collaborations: tuple[Collaboration, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    # What rulings allow while this owner owns the customer.
    allowed: tuple[Allowed, ...] = ()
    # How many customers name it as their parent; with any it is in a group (see ledger/groups.py).
    children: int = 0
    stand_ins: StandIns = ()
    # Claims that were refused by those whose approval they awaited, the last of each person first.
    claim_refusals: tuple[ClaimRefusal, ...] = ()
    # The position of the request that could not be decided, and for which the customer waits.
    parked: int | None = None

    @property
    def is_in_group(self) -> bool:
        """Whether other customers stand above or below it."""
        return self.parent is not None or self.children > 0

    @property
    def owner(self) -> str | None:
        """The present owner, None while the customer is free."""
        return self.tenure.owner if isinstance(self.tenure, Held) else None

    def ended(self, person: str) -> datetime | None:
        """Return when somebody's last ownership ended (UTC), None where that is not remembered."""
        return next((each.ended for each in self.former if each.person == person), None)

    def claim_refused(self, person: str) -> datetime | None:
        """Return when a claim of somebody was last refused (UTC), None where none is known."""
        return next((each.at for each in self.claim_refusals if each.person == person), None)

    def remembers(self, moment: datetime) -> bool:
        """Say whether ``owner_at`` knows of a moment that a policy lets a late follow-up name."""
        all_remembered = len(self.former) < FORMER_OWNERSHIPS_MAX
        return moment >= self.known_from and (all_remembered or moment >= self.former[-1].began)

    def owner_at(self, moment: datetime) -> str | None:
        """Return the owner at a moment that is remembered, None where the customer was free."""
        if isinstance(self.tenure, Held) and moment >= self.tenure.since:
            return self.tenure.owner
        for each in self.former:
            if each.began <= moment < each.ended:
                return each.person
        return None


Customer = Unregistered | Refused | Admitted


def admitted(
    request: RegistrationRequested, decision: CustomerAdmitted, effective: datetime
) -> Admitted:
    """Return the customer that a registration makes."""
    return Admitted(
        effective=effective,
        known_from=decision.known_from,
        kind=request.kind,
        territory=request.territory,
        attributes=dict(request.attributes),
        identifiers={each.system: each.key for each in decision.identifiers},
        parent=decision.parent,
        contacts=frozenset(each.contact for each in request.contacts),
        sites=frozenset(each.site for each in request.sites),
    )


def changed(
    customer: Admitted, request: CustomerChangeRequested, decision: CustomerChanged
) -> Admitted:
    """Return the customer as a change makes it; names are none of our business."""
    removed = frozenset(request.removed)
    attributes = {
        name: value
        for name, value in (customer.attributes | request.attributes).items()
        if f"attribute:{name}" not in removed
    }
    identifiers = customer.identifiers | {each.system: each.key for each in request.identifiers}
    contacts = customer.contacts.union(each.contact for each in request.contacts)
    sites = customer.sites.union(each.site for each in request.sites)
    return customer._replace(
        territory=None if "territory" in removed else request.territory or customer.territory,
        parent=decision.parent,
        closed=customer.closed if request.closed is None else request.closed,
        attributes=attributes,
        identifiers={
            system: key
            for system, key in identifiers.items()
            if f"identifier:{system}" not in removed
        },
        contacts=frozenset(each for each in contacts if f"contact:{each}" not in removed),
        sites=frozenset(each for each in sites if f"site:{each}" not in removed),
    )


def taken(
    customer: Admitted,
    owner: str,
    effective: datetime,
    protected_until: datetime | None,
    import_id: str | None = None,
) -> Admitted:
    """Return the customer as it is when somebody begins to own it, by an import where one says."""
    return customer._replace(
        tenure=Held(owner, effective, protected_until, Counting(import_id)),
        turned_down=(),
        effective=effective,
    )


def given_up(customer: Admitted, effective: datetime, recorded: datetime) -> Admitted:
    """Return the customer as it is when its owner no longer owns it.

    ``recorded`` is when the request was that ends it. Of the ownerships that ended before, those
    are forgotten that no policy can ask for any more. The log alone says which: no request behind
    this one is recorded earlier.
    """
    if not isinstance(customer.tenure, Held):
        raise AssertionError("only an owned customer can be given up")
    over = FormerOwner(customer.tenure.owner, customer.tenure.since, effective)
    former = _remembered((over, *customer.former), recorded - _LATELY)
    return customer._replace(
        tenure=Free(),
        allowed=(),
        former=tuple(islice(former, FORMER_OWNERSHIPS_MAX)),
        stand_ins=ended(customer.stand_ins, effective) if customer.stand_ins else (),
        effective=effective,
    )


def _remembered(former: Iterable[FormerOwner], lately: datetime) -> Iterator[FormerOwner]:
    """Yield, of ownerships with the last first, what a policy can still ask for.

    A late follow-up asks for all that lasted and ended lately, the cooldown for the last one of
    each of the last owners.
    """
    people: set[str] = set()
    for each in former:
        is_last = each.person not in people and len(people) < FORMER_OWNERS_MAX
        if is_last:
            people.add(each.person)
        if is_last or each.ended > max(each.began, lately):
            yield each


def open_approvals(customer: Admitted) -> Iterator[Approval]:
    """Yield all that awaits approval: a transfer or release, and collaborations."""
    if customer.approval is not None:
        yield customer.approval
    for each in customer.collaborations:
        if each.approval is not None:
            yield each.approval


def open_approval(customer: Admitted, approval: str) -> Approval | None:
    """Return what awaits approval under an id, None where nothing does."""
    return next((each for each in open_approvals(customer) if each.approval == approval), None)


def approval_closed(
    customer: Admitted, outcome: str, effective: datetime, claimant: str | None = None
) -> Admitted:
    """Return the customer as it is when nothing awaits approval any more.

    ``claimant`` is who is turned down with a refused claim.
    """
    approval, turned_down = customer.approval, customer.turned_down
    if approval is None:
        raise AssertionError("only what is open can be closed")
    receiver = approval.receiver
    if outcome == "refused" and approval.purpose == TRANSFER and receiver is not None:
        others = (each for each in turned_down if each != receiver)
        turned_down = tuple(islice((receiver, *others), TURNED_DOWN_MAX))
    refusals = customer.claim_refusals
    if claimant is not None:
        before = (each for each in refusals if each.person != claimant)
        refusals = tuple(islice((ClaimRefusal(claimant, effective), *before), TURNED_DOWN_MAX))
    return customer._replace(
        approval=None, turned_down=turned_down, claim_refusals=refusals, effective=effective
    )
