"""From a request to the event that decides it: what the enforcer appends, and ``verify`` expects.

Both make the event here, so that deciding again can be compared with the log byte by byte. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.canonical import canonical_bytes
from ledger.customer import Admitted
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, Ruling, decision_bodies
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import RequestParked
from ledger.events.requests import HandOverRequested
from ledger.handing_over import OF_PERSON, OUTCOMES, next_ordinal
from ledger.settled import Settled
from ledger.store.appending import Append, NewEvent, check_append

ENFORCER = "enforcer"
"""Who parks requests, as the envelope of a parking names its caller."""


def decision_events(
    catalogue: Catalogue, request: Event, draft: Draft, version: int, before: Mapping[str, int]
) -> tuple[NewEvent, ...]:
    """Return the events that record ``draft`` as what was decided on ``request``, by ordinal.

    Each stands in the stream of the customer that it is about; what is about a person in that of
    the person, where others' requests come between, at whatever version comes next. ``version`` is
    that of the decider; ``before`` are the versions of the customers' streams, 0 where none is
    named. Raises EntryTooLargeError.
    """
    ruling = Ruling(
        causation=request.position,
        ordinal=draft.ordinal,
        effective=draft.effective,
        decider=version,
        policy=draft.policy,
        guards=draft.guards,
        import_id=request.import_id,
    )
    decided = draft.all
    reached: dict[str, int] = {}
    events = []
    for number, body in enumerate(decision_bodies(catalogue, ruling, decided)):
        data = decided[number]
        expected: int | None = None
        if isinstance(data, OF_PERSON):
            stream = person_stream(data.giver)
        else:
            customer = data.customer
            stream = ownership_stream(customer)
            expected = (reached.get(customer) or before.get(customer, 0)) + 1
            reached[customer] = expected
        event = NewEvent(
            stream,
            catalogue.name_of(data),
            body,
            expected,
            request.position,
            draft.ordinal + number,
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


def person_stream(person: str) -> str:
    """Return the stream of the requests about all that a person holds, and of their outcome."""
    return f"person-{person}"


def stream_of(kind: str, data: Any) -> str:
    """Return the stream of a ``request`` or ``decision`` (see the catalogue)."""
    if isinstance(data, (HandOverRequested, *OF_PERSON)):
        return person_stream(data.giver)
    customer: str = data.customer
    return request_stream(customer) if kind == "request" else ownership_stream(customer)


def is_request_stream(stream: str) -> bool:
    """Say whether requests stand in a stream."""
    return stream.startswith((request_stream(""), person_stream("")))


def named_by(stream: str) -> str:
    """Return the customer or person that a stream of requests is about."""
    return stream.removeprefix(request_stream("")).removeprefix(person_stream(""))


def is_hand_over(request: Event) -> bool:
    """Say whether a request is decided in parts: it is about all that a person holds."""
    return isinstance(request.data, HandOverRequested)


def closes(request: Event, decision: Event) -> bool:
    """Say whether a request is decided with this decision: the first, of a hand-over the last."""
    if isinstance(request.data, HandOverRequested):
        return isinstance(decision.data, OUTCOMES)
    return not decision.ordinal


def expected_ordinal(request: Event, settled: Settled) -> int:
    """Return the ordinal with which what is decided next on a request begins."""
    if isinstance(request.data, HandOverRequested):
        return next_ordinal(settled.hand_over_of(request.data.giver))
    return 0


def apply_parking(settled: Settled, parked: RequestParked) -> None:
    """Fold a parking: it decides nothing, and takes a version of the customer's stream.

    Whoever is a customer already waits until the request is decided.
    """
    customer = parked.customer
    found = settled.customers.get(customer)
    if isinstance(found, Admitted):
        settled.customers[customer] = found._replace(parked=parked.request)
    settled.versions[customer] = settled.version(customer) + 1
    settled.touched.add(("customer", customer))
