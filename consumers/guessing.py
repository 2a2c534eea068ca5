"""Which guards a request may touch, as far as its own words tell. Pure.

A guess that lacks something costs a second round, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from ledger.customer import Admitted
from ledger.envelope import Event
from ledger.events import requests
from ledger.handing_over import people_at
from ledger.organisation import OrganisationAt
from ledger.settled import Key, Settled


def keys_named(request: Event, organisation: OrganisationAt) -> Iterator[Key]:
    """Yield the guards that the request itself names."""
    data = request.data
    yield ("customer", data.customer)
    match data:
        case requests.ClaimFiled():
            yield ("holdings", data.claimant)
            day = organisation.day(_takes_effect(request, organisation))
            yield ("grants", data.claimant, day.isoformat())
        case requests.AssignmentRequested():
            yield ("holdings", data.assignee)
        case requests.TransferRequested():
            yield ("holdings", data.receiver)
            yield ("holdings", request.actor)
        case requests.ReleaseRequested():
            yield ("holdings", request.actor)
        case requests.CollaborationRequested():
            yield ("holdings", data.person)
            yield ("holdings", request.actor)
        case requests.StandInRequested():
            yield ("holdings", data.person)
        case requests.RulingGiven():
            yield ("holdings", request.actor)
            if data.receiver is not None:
                yield ("holdings", data.receiver)
        case requests.RegistrationRequested() | requests.CustomerChangeRequested():
            for identifier in data.identifiers:
                yield ("identifier", identifier.system, identifier.key)
            if data.parent is not None:
                yield ("customer", data.parent)
        case requests.FollowUpLogged():
            yield ("act", data.follow_up)
        case requests.FollowUpCorrected() | requests.FollowUpVoided():
            yield ("act", data.follow_up)
        case requests.DealRecorded() | requests.DealCorrected() | requests.DealVoided():
            yield ("act", data.deal)
        case _:
            pass


def _takes_effect(request: Event, organisation: OrganisationAt) -> datetime:
    opened = organisation.import_(request.import_id) if request.import_id else None
    if opened is None or opened.closed:
        return request.recorded
    if "occurred" in request.envelope or opened.cut_over is None:
        return request.occurred
    return opened.cut_over


def needs_a_look(request: Event) -> bool:
    """Say whether the customer's present state names guards that the request does not."""
    return not isinstance(
        request.data, requests.ClaimFiled | requests.FollowUpLogged | requests.RegistrationRequested
    )


def keys_seen(batch: Sequence[Event], settled: Settled) -> Iterator[Key]:
    """Yield the guards that the customers' state, read without a lock, suggests besides."""
    for request in batch:
        if needs_a_look(request):
            customer = settled.customers.get(request.data.customer)
            if isinstance(customer, Admitted):
                for person in people_at(customer):
                    yield ("holdings", person)
                for system, key in customer.identifiers.items():
                    yield ("identifier", system, key)
    yield from keys_of_groups(batch, settled)


def keys_of_groups(batch: Iterable[Event], settled: Settled) -> Iterator[Key]:
    """Yield the guards next to customers in groups whose owner or parent a request may change."""
    for request in batch:
        customer = settled.customers.get(request.data.customer)
        if not isinstance(customer, Admitted) or not customer.is_in_group:
            continue
        if _may_regroup(request, customer):
            if customer.children:
                yield ("group", request.data.customer)
            if customer.parent is not None:
                yield ("customer", customer.parent)
                yield ("group", customer.parent)


def _may_regroup(request: Event, customer: Admitted) -> bool:
    match request.data:
        case requests.ClaimFiled() | requests.AssignmentRequested():
            return customer.owner is None
        case requests.CustomerChangeRequested() as data:
            return data.parent is not None or "parent" in data.removed
        case requests.RulingGiven() | requests.ReleaseRequested() | requests.TransferRequested():
            return True
        case requests.ApprovalGiven() | requests.DeadlineReached():
            return True
        case requests.GroupReviewRequested():
            return True
        case _:
            return False
