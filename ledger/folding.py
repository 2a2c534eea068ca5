"""Folding the whole log in order: settled state, the organisation, and what is still undecided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ledger.collecting import uncollected
from ledger.deciding import apply_parking, closes, is_request_stream, named_by
from ledger.envelope import Event, StoredEvent, decode
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import RequestParked
from ledger.events.requests import RequestUnparked
from ledger.organisation import Organisation
from ledger.settled import Key, Settled
from ledger.store.reading import read_after, read_requests

PAGE_EVENTS = 2_000


@dataclass(slots=True)
class Folding:
    """What a log amounts to.

    Holds the settled state of every customer, some hundred bytes each, but no events: a backlog
    of requests costs a few dozen bytes each.
    """

    catalogue: Catalogue
    settled: Settled = field(default_factory=lambda: Settled(complete=True))
    organisation: Organisation = field(default_factory=Organisation)
    # The undecided requests: their positions, in order, and the customers that they name.
    open: dict[int, str] = field(default_factory=dict)
    # Of these the parked ones: their positions, and why.
    parked: dict[int, RequestParked] = field(default_factory=dict)
    # The versions of the decider that unparkings named, by the position of the parked request.
    named: dict[int, frozenset[int]] = field(default_factory=dict)
    # The undecided ones among them, and the customers that they set free.
    unparking: dict[int, str] = field(default_factory=dict)
    # Of what the enforcer has dealt with, decided or parked, the highest position of a request.
    dealt_with: int = 0
    position: int = 0
    # What was changed since this was made a set; None while nobody asks.
    changed: set[Key] | None = None

    def take(self, event: Event, requests: Mapping[int, Event]) -> None:
        """Fold the next event; ``requests`` holds, by position, what decisions are about.

        Raises KeyError where a decision is about no open request.
        """
        data = event.data
        kind = self.catalogue.kind_of(event.name)
        if kind == "fact":
            self.organisation.apply(event)
        elif kind == "request":
            self.open[event.position] = data.customer
            if isinstance(data, RequestUnparked):
                before = self.named.get(data.request, frozenset())
                self.named[data.request] = before | {data.decider}
                self.unparking[event.position] = data.customer
        elif isinstance(data, RequestParked):
            self.parked[data.request] = data
            self.dealt_with = max(self.dealt_with, data.request)
            apply_parking(self.settled, data)
        else:
            request = requests[event.causation or 0]
            if closes(request, event):
                del self.open[request.position]
                self.parked.pop(request.position, None)
                self.unparking.pop(request.position, None)
                self.dealt_with = max(self.dealt_with, request.position)
            organisation = self.organisation.at(request.position)
            self.settled.apply(request, data, event.effective, organisation)
        self.position = event.position

    def read(self, stored: StoredEvent) -> Event | None:
        """Return an event as read; None for a request that cannot be, which is undecided like any.

        Nobody but the enforcer is to read requests by what they mean, and it parks such a one.
        """
        try:
            return decode(self.catalogue, stored)
        except (LedgerError, ValueError, KeyError, TypeError, AttributeError):
            if not is_request_stream(stored.stream):
                raise
            self.open[stored.position] = named_by(stored.stream)
            return None

    def take_all(self, events: Iterable[Event], requests: Mapping[int, Event]) -> None:
        """Fold the next events, in order."""
        for event in events:
            self.take(event, requests)
        if self.changed is not None:
            self.changed |= self.settled.touched
        self.settled.touched.clear()

    def waiting(self) -> frozenset[str]:
        """Return the customers whose requests wait for a parked one, or are just being unparked."""
        parked = (each.customer for each in self.parked.values())
        return frozenset((*parked, *self.unparking.values()))


def fold_log(
    connection: Connection[Any],
    folding: Folding,
    upto: int,
    told: Callable[[int], None] = lambda position: None,
    taking: Callable[[Iterable[Event], Mapping[int, Event]], None] | None = None,
) -> None:
    """Fold what is behind the folding's position, up to ``upto``, a page a statement.

    ``told`` hears of the position reached. ``taking`` is who folds a page into the folding, where
    that is not its own ``take_all``. Raises as ``decode`` and ``Folding.take``.
    """
    take_all = taking or folding.take_all
    while folding.position < upto:
        with uncollected():
            _fold_page(connection, folding, upto, take_all)
        told(folding.position)


def _fold_page(
    connection: Connection[Any],
    folding: Folding,
    upto: int,
    take_all: Callable[[Iterable[Event], Mapping[int, Event]], None],
) -> None:
    stored = read_after(connection, folding.position, PAGE_EVENTS, upto)
    if not stored:
        raise AssertionError(f"nothing stands behind position {folding.position}")
    events = [each for each in map(folding.read, stored) if each is not None]
    causes = [event.causation for event in events if event.causation is not None]
    take_all(events, read_requests(connection, folding.catalogue, causes, events))
    folding.position = stored[-1].position
