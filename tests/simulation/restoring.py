"""A log that has lost its tail: what the topic tells of it, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

from consumers.kafka.records import Linked, Mark
from consumers.parking import Row
from ledger.deciders import Decider
from ledger.envelope import StoredEvent, decode
from ledger.events.catalogue import Catalogue
from ledger.folding import Folding
from ledger.settled import subject
from ledger.store import guards
from ledger.verification import DecisionChecks
from tests.simulation.checking import keys_of
from tests.simulation.following import ENFORCER
from tests.simulation.store import PARTITIONS, State, Store
from tests.simulation.topic import Topic


class Tail(NamedTuple):
    """What can be put back behind the log's end; not ``whole`` where the topic lacks something."""

    events: list[StoredEvent]
    whole: bool


def tail_of(topic: Topic, store: Store) -> Tail:
    """Return what the topic tells of behind the end of the log, up to the first gap."""
    newest, head = store.generations.newest, store.state.head
    found: dict[int, StoredEvent] = {}
    known = head
    for each in topic.all_told():
        if each.generation < newest:
            continue  # it was given up before
        if isinstance(each, Linked):
            found[each.event.position] = each.event
        known = max(known, each.upto if isinstance(each, Mark) else each.event.position)
    events = [found[each] for each in takewhile(found.__contains__, range(head + 1, known + 1))]
    return Tail(events, len(events) == known - head)


def without_parts(
    store: Store, tail: Tail, catalogue: Catalogue, versions: Mapping[int, Decider]
) -> Tail:
    """Return a tail without the decisions at its end of which the topic has not got all.

    They were recorded together, and would never be followed by the others.
    """
    if not tail.events or tail.events[-1].causation is None:
        return tail
    log = [*store.state.log, *tail.events]
    events = [decode(catalogue, each) for each in log]
    requests = {each.position: each for each in events}
    checks = DecisionChecks(catalogue, versions)
    for stored, event in zip(log, events, strict=True):
        checks.take(stored, event, requests)
    if not checks.following:
        return tail
    cause = tail.events[-1].causation
    return Tail([each for each in tail.events if each.causation != cause], whole=False)


def put_back(store: Store, catalogue: Catalogue, tail: list[StoredEvent]) -> None:
    """Put events back as they were, and make guards and progress again from the log."""
    with store.transaction(rebuilds=True) as state:
        for each in tail:
            store.put(each)
        _rebuild(state, catalogue)
    store.now = max(store.now, tail[-1].recorded)


def _rebuild(state: State, catalogue: Catalogue) -> None:
    """Do as ``rebuild_guards`` does."""
    folding = Folding(catalogue)
    events = [decode(catalogue, each) for each in state.log]
    folding.take_all(events, {each.position: each for each in events})
    settled = folding.settled
    state.guards = {
        guards.text_of(key): (guards.version_of(settled, key), guards.state_of(settled, key))
        for key in keys_of(settled)
    }
    state.parked = {}
    for position in folding.open:
        if position <= folding.dealt_with:
            parked = folding.parked.get(position)
            state.parked[position] = (
                Row(position, subject(settled, events[position - 1]))
                if parked is None
                else Row(position, parked.customer, parked.error)
            )
    for number in range(PARTITIONS):
        epoch, _ = state.progress[ENFORCER, number]
        state.progress[ENFORCER, number] = epoch + 1, folding.dealt_with
