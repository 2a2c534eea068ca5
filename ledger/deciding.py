"""From a request to the event that decides it: what the enforcer appends, and ``verify`` expects.

Both make the event here, so that deciding again can be compared with the log byte by byte. Pure.
"""

from __future__ import annotations

from ledger.canonical import canonical_bytes
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, Ruling, decision_body
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import RequestParked
from ledger.settled import Settled
from ledger.store.appending import Append, NewEvent, check_append

ENFORCER = "enforcer"
"""Who parks requests, as the envelope of a parking names its caller."""


def decision_events(
    catalogue: Catalogue, request: Event, draft: Draft, version: int, settled: Settled
) -> tuple[NewEvent, ...]:
    """Return the events that record ``draft`` as what was decided on ``request``, by ordinal.

    Each stands in the stream of the customer that it is about. ``version`` is that of the decider;
    ``settled`` holds what was decided before. Raises EntryTooLargeError.
    """
    versions: dict[str, int] = {}
    events = []
    for ordinal, data in enumerate(draft.all):
        customer = data.customer
        versions[customer] = versions.get(customer, settled.version(customer)) + 1
        ruling = Ruling(
            causation=request.position,
            ordinal=ordinal,
            effective=draft.effective,
            decider=version,
            policy=draft.policy,
            guards=draft.guards,
            import_id=request.import_id,
        )
        event = NewEvent(
            ownership_stream(customer),
            catalogue.name_of(data),
            decision_body(catalogue, ruling, data),
            versions[customer],
            request.position,
            ordinal,
        )
        check_append(Append((event,)))
        events.append(event)
    return tuple(events)


def parking_event(catalogue: Catalogue, parked: RequestParked, settled: Settled) -> NewEvent:
    """Return the event that records that a request could not be decided.

    It is no decision: the request is still to get its one, so that nothing is caused by it yet.
    """
    return NewEvent(
        ownership_stream(parked.customer),
        catalogue.name_of(parked),
        canonical_bytes({"caller": ENFORCER, "data": catalogue.dump(parked)}),
        settled.version(parked.customer) + 1,
    )


def ownership_stream(customer: str) -> str:
    """Return the stream of the decisions about a customer."""
    return f"ownership-{customer}"


def request_stream(customer: str) -> str:
    """Return the stream of the requests about a customer."""
    return f"customer-{customer}"


def apply_parking(settled: Settled, customer: str) -> None:
    """Fold a parking: it decides nothing, and takes a version of the customer's stream."""
    settled.versions[customer] = settled.version(customer) + 1
    settled.touched.add(("customer", customer))
