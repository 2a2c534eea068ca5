"""A hand-over's next part: which guards it touches, and what it goes through, under the locks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from psycopg import Connection

from consumers.grouping import with_groups
from ledger.customer import Admitted
from ledger.deciders import Decider, decider
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.errors import LedgerError
from ledger.events.decisions import Decision
from ledger.events.requests import HandOverRequested
from ledger.handing_over import PART_CUSTOMERS, behind, listed_behind, people_at
from ledger.organisation import OrganisationAt
from ledger.settled import Key, Settled
from ledger.store import guards, involved


def guess(connection: Connection[Any], request: Event) -> set[Key]:
    """Return what the next part seems to touch, read without a lock.

    Most customers have nobody but the giver; of the others ``load`` tells.
    """
    order: HandOverRequested = request.data
    settled = Settled()
    guards.read(connection, [("person", order.giver)], settled)
    customers = _page(connection, order, settled)
    return _named(request) | {("customer", each) for each in customers}


def load(connection: Connection[Any], request: Event, settled: Settled) -> set[Key]:
    """Load what the next part goes through, when all the guards are locked.

    Returns the guards that are not, and should have been: then nothing is to be decided.
    """
    order: HandOverRequested = request.data
    customers = _page(connection, order, settled)
    wanted = (*customers, *_besides(order, settled, customers))
    missing: set[Key] = {("customer", each) for each in wanted if each not in settled.customers}
    there = [each for each in wanted if each in settled.customers]
    people = _of_people(settled, there) - {("holdings", each) for each in settled.holdings}
    return missing | people | _of_groups(settled, there)


def _besides(
    order: HandOverRequested, settled: Settled, customers: Iterable[str]
) -> tuple[str, ...]:
    """Return, where one of the customers was entered twice, which others tell who is meant.

    They are the one that exists, and all that are named: each is handed over once. Seldom any is.
    """
    there = [each for each in customers if each in settled.customers]
    existing = {settled.existing(each) for each in there} - set(there)
    return (*existing, *order.customers) if existing else ()


def _named(request: Event) -> set[Key]:
    order: HandOverRequested = request.data
    people = (order.giver, *order.receivers)
    # The giver stands for a customer that waits, where the request cannot be decided.
    return {
        ("customer", order.giver),
        ("person", order.giver),
        *(("holdings", each) for each in people),
    }


def _of_people(settled: Settled, customers: Iterable[str]) -> set[Key]:
    return {
        ("holdings", person)
        for customer in customers
        for person in people_at(settled.customers[customer])
    }


def _of_groups(settled: Settled, customers: Iterable[str]) -> set[Key]:
    """Return what is not loaded next to the customers that are in groups; seldom any is."""
    found: set[Key] = set()
    for name in customers:
        customer = settled.customers[name]
        if not isinstance(customer, Admitted) or not customer.is_in_group:
            continue
        if customer.children and name not in settled.groups:
            found.add(("group", name))
        if customer.parent is not None and customer.parent not in settled.customers:
            found.add(("customer", customer.parent))
    return found


def _page(
    connection: Connection[Any], order: HandOverRequested, settled: Settled
) -> tuple[str, ...]:
    """Return the customers of the next part, and have ``settled`` know what comes behind them."""
    last = behind(settled.hand_overs[order.giver])
    if order.customers:
        return listed_behind(order, last)[:PART_CUSTOMERS]
    found = involved.customers_behind(connection, order.giver, last)
    settled.pages[order.giver, last] = found
    return found[:PART_CUSTOMERS]


class UnderWayError(LedgerError):
    """What somebody holds is being handed over already, and nobody can say what will be left."""

    code = "hand_over_under_way"

    def __init__(self, giver: str) -> None:
        super().__init__(
            f"What {giver} holds is being handed over just now.",
            way_out="Ask again when guishu hand-overs says that it is done.",
        )


def foretell(connection: Connection[Any], request: Event, organisation: OrganisationAt) -> Draft:
    """Return what all parts of a hand-over would bring, read without locks in one snapshot.

    Raises UnderWayError.
    """
    decide, settled = decider(organisation.decider), Settled()
    order: HandOverRequested = request.data
    guards.read(connection, [("person", order.giver)], settled)
    if settled.hand_overs[order.giver] is not None:
        raise UnderWayError(order.giver)
    decided: list[Decision] = []
    while True:
        draft = _foretold_part(connection, request, organisation, decide, settled)
        decided += draft.all
        if draft.is_last:
            return replace(draft, data=decided[0], more=tuple(decided[1:]), ordinal=0)


def _foretold_part(
    connection: Connection[Any],
    request: Event,
    organisation: OrganisationAt,
    decide: Decider,
    settled: Settled,
) -> Draft:
    customers = _page(connection, request.data, settled)
    theirs: set[Key] = {("customer", each) for each in customers}
    _read_new(connection, with_groups(connection, theirs), settled)
    besides = _besides(request.data, settled, customers)
    theirs = {("customer", each) for each in besides}
    _read_new(connection, with_groups(connection, theirs), settled)
    customers += besides
    _read_new(connection, _named(request) | _of_people(settled, customers), settled)
    draft = decide(settled, request, organisation)
    for data in draft.all:
        settled.apply(request, data, draft.effective, organisation)
    return draft


def _read_new(connection: Connection[Any], keys: set[Key], settled: Settled) -> None:
    """Read guards that were not read yet: of others the parts before have changed the state."""
    there: set[Key] = {
        *(("customer", each) for each in settled.customers),
        *(("holdings", each) for each in settled.holdings),
        *(("person", each) for each in settled.hand_overs),
        *(("group", each) for each in settled.groups),
    }
    if keys - there:
        guards.read(connection, keys - there, settled)
