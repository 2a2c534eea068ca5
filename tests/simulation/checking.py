"""What must hold when all faults have ended and everything has caught up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from consumers.kafka.chain import Chain
from consumers.kafka.records import Linked, Mark
from ledger.deciders import Decider
from ledger.envelope import Event, decode
from ledger.events import decisions
from ledger.events.catalogue import Catalogue
from ledger.events.requests import RequestUnparked
from ledger.folding import Folding
from ledger.settled import Key, Settled
from ledger.store import guards
from ledger.verification import DecisionChecks, DiffersError
from tests.simulation.following import ENFORCER, PROJECTOR
from tests.simulation.store import PARTITIONS, State, Store, belongs
from tests.simulation.topic import Topic
from tests.simulation.violations import Violation


def check(
    store: Store,
    topic: Topic,
    catalogue: Catalogue,
    versions: Mapping[int, Decider],
    acknowledged: Mapping[int, bytes],
    filled_from: int,
) -> None:
    """Raise Violation for the first thing that does not hold.

    ``acknowledged`` are the bodies of all requests that their clients know to be recorded, and
    ``filled_from`` is behind where the topic must have everything.
    """
    state = store.state
    events = [decode(catalogue, each) for each in state.log]
    _check_log(state, acknowledged)
    _check_owners(events)
    _check_order(events, catalogue)
    folding = _check_decisions(state, events, catalogue, versions)
    _check_guards(state, folding.settled)
    _check_topic(store, topic, filled_from)
    _check_followers(state)


def _check_log(state: State, acknowledged: Mapping[int, bytes]) -> None:
    for number, each in enumerate(state.log, 1):
        if each.position != number:
            raise Violation("dense", f"position {each.position} stands at {number}")
    for position, body in acknowledged.items():
        if position > state.head or state.log[position - 1].body != body:
            raise Violation("acknowledged", f"the request at {position} is not in the log")


def _check_owners(events: Iterable[Event]) -> None:
    """By the names of the events alone, whatever settled state makes of them."""
    owners: dict[str, str] = {}
    for event in events:
        data = event.data
        match data:
            case decisions.OwnershipGranted() | decisions.OwnershipAssigned():
                if data.customer in owners:
                    raise Violation("one owner", f"at {event.position} {data.customer} has two")
                owners[data.customer] = data.owner
            case decisions.OwnershipTransferred():
                if owners.get(data.customer) != data.former_owner:
                    raise Violation("one owner", f"at {event.position} another one gives it away")
                owners[data.customer] = data.owner
            case decisions.OwnershipReleased() | decisions.CustomerRecycled():
                del owners[data.customer]
            case _:
                pass


def _check_order(events: Iterable[Event], catalogue: Catalogue) -> None:
    """Each request is decided once, those of a customer in the order of the log."""
    undecided: dict[int, Event] = {}
    last: dict[str, int] = {}
    for event in events:
        kind = catalogue.kind_of(event.name)
        if kind == "request":
            undecided[event.position] = event
        elif kind == "decision" and event.ordinal == 0:
            request = undecided.pop(event.causation or 0, None)
            if request is None:
                raise Violation("once", f"{event} decides what was decided, or never asked")
            if isinstance(request.data, RequestUnparked):
                continue  # it comes before those that it has set free
            name = request.data.customer
            if last.get(name, 0) > request.position:
                raise Violation("order", f"{request.position} of {name} is decided too late")
            last[name] = request.position
    if undecided:
        raise Violation("once", f"{sorted(undecided)} are not decided")


def _check_decisions(
    state: State, events: Iterable[Event], catalogue: Catalogue, versions: Mapping[int, Decider]
) -> Folding:
    """Decide the log again, as ``guishu verify`` does; return what it amounts to."""
    checks = DecisionChecks(catalogue, versions)
    requests = {each.position: each for each in events}
    for stored, event in zip(state.log, events, strict=True):
        try:
            checks.take(stored, event, requests)
        except DiffersError as error:
            raise Violation("decided again", f"at {event.position}: {error}") from error
    try:
        checks.check_end()
    except DiffersError as error:
        raise Violation("decided again", f"at the end: {error}") from error
    return checks.folding


def _check_guards(state: State, settled: Settled) -> None:
    """What the enforcers keep beside the log is what the log makes of it."""
    blank = Settled()
    expected = {guards.text_of(key): key for key in keys_of(settled)}
    for text in sorted(expected.keys() | state.guards.keys()):
        key = guards.key_of(text)
        guards.load(blank, [text], [])
        empty = 0, guards.state_of(blank, key)
        wanted = empty
        if text in expected:
            wanted = guards.version_of(settled, key), guards.state_of(settled, key)
        if state.guards.get(text, empty) != wanted:
            raise Violation("guards", f"{key} is {state.guards.get(text)}, not {wanted}")


def keys_of(settled: Settled) -> Iterator[Key]:
    """Yield the keys of all that is settled."""
    yield from (("customer", each) for each in settled.customers)
    yield from (("holdings", each) for each in settled.holdings)
    yield from (("grants", *each) for each in settled.grants)
    yield from (("identifier", *each) for each in settled.identifiers)
    yield from (("act", each) for each in settled.acts)
    yield from (("group", each) for each in settled.groups)


def _check_topic(store: Store, topic: Topic, filled_from: int) -> None:
    """Whoever reads the topic as a consumer reads the log, byte for byte, and every event of it."""
    chain, log = Chain(PARTITIONS, {}), store.state.log
    placed = [chain.place(each) for each in log]
    generations = store.generations
    there: set[int] = set()
    for number in range(PARTITIONS):
        for said in topic.told(number, cut_off=True):
            position = said.upto if isinstance(said, Mark) else said.event.position
            if said.generation != generations.of(position):
                continue  # it was given up
            if isinstance(said, Mark):
                between = [
                    each for each in placed if said.previous < each.event.position <= position
                ]
                if any(each.partition == number for each in between):
                    raise Violation("marks", f"{said} of partition {number} passes over events")
                continue
            at = placed[position - 1]
            if said != Linked(at.event, said.generation, at.previous) or at.partition != number:
                raise Violation("topic", f"{said} in partition {number} is not {at}")
            there.add(position)
    missing = [each for each in range(filled_from + 1, len(log) + 1) if each not in there]
    if missing:
        raise Violation("topic", f"{missing} were never sent")


def _check_followers(state: State) -> None:
    for (consumer, part), (_, position) in state.progress.items():
        if position != state.head:
            raise Violation("catches up", f"{consumer} {part} is at {position} of {state.head}")
    for number in range(PARTITIONS):
        expected = tuple(each.position for each in state.log if belongs(each.stream) == number)
        if state.applied.get(number, ()) != expected:
            raise Violation(
                "projected", f"partition {number}: {state.applied.get(number)}, not {expected}"
            )
    if state.parked:
        raise Violation("parked", f"{sorted(state.parked)} are still parked")
    assert {consumer for consumer, _ in state.progress} == {ENFORCER, PROJECTOR}
