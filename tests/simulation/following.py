"""Who follows the topic in memory: the feed of a partition, and around it projector and enforcer.

As ``consumers/kafka/feed.py`` and ``consumers/enforcer.py``, around the real gathering, guessing,
decider of batches, settled state, and the JSON of the guards. Reading a batch and committing it are
two steps, so that anything may come between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from consumers import guessing
from consumers.batch import Asked, BatchDecider, Decided, DefectError
from consumers.feed import Batch, is_request
from consumers.parking import Row
from consumers.progress import Part, Progress
from ledger.deciding import named_by
from ledger.envelope import Event, StoredEvent, decode
from ledger.events.catalogue import Catalogue
from ledger.events.requests import RequestUnparked
from ledger.organisation import Organisation
from ledger.settled import Key, Settled
from ledger.store import guards
from tests.simulation.rules import Rules
from tests.simulation.store import (
    PARTITIONS,
    State,
    Store,
    Wanted,
    belongs,
    ready_customers,
    rows_of,
    waiting_among,
)
from tests.simulation.topic import Reader, Topic
from tests.simulation.violations import Violation

ENFORCER, PROJECTOR = "enforcer", "projector"
_ROUNDS_MAX = 50

Cut = Callable[[str], None]
"""Called at each point at which a process may be cut off, with its name; raises where it is."""


@dataclass(slots=True)
class Shared:
    """What all followers have to do with."""

    rules: Rules
    store: Store
    topic: Topic
    catalogue: Catalogue
    # The facts as folded up to now; each request is decided by those in front of it.
    organisation: Callable[[], Organisation]


class Feed:
    """The events of one partition that are wanted; as ``KafkaFeed``."""

    def __init__(self, shared: Shared, partition: int, wanted: Wanted) -> None:
        self._shared = shared
        self._partition = partition
        self._wanted = wanted
        self._reader = Reader(partition)
        self._delivered: deque[object] = deque()
        self._brought = 0

    def read(self, after: int, limit: int, polled: int, again: int = 0) -> Batch:
        """Return what is wanted behind ``after``; at most ``polled`` records come of the topic."""
        store, rules = self._shared.store, self._shared.rules
        if after < self._brought:
            head = store.state.head
            return Batch((), head) if head <= after else self._missing(after, limit, self._brought)
        self._delivered.extend(self._reader.poll(self._shared.topic, polled, again))
        head = store.state.head
        if head < after:
            return Batch((), head)
        gathered = rules.gather(
            self._delivered,  # type: ignore[arg-type]
            after,
            limit,
            head=head,
            generations=store.generations,
            wanted=self._wanted,
        )
        if gathered.missing_upto is not None and gathered.reached == after:
            if rules.reads_what_is_missing:
                return self._missing(after, limit, gathered.missing_upto)
            return Batch((), gathered.missing_upto)
        self._brought = gathered.reached
        return Batch(gathered.events, gathered.reached)

    def _missing(self, after: int, limit: int, upto: int) -> Batch:
        store = self._shared.store
        end = min(upto, store.state.head)
        return store.read_upto(after, limit, end, self._partition, self._wanted)


class Follower:
    """One process for one partition, from its taking over until it is fenced or cut off."""

    consumer = ""

    def __init__(self, shared: Shared, partition: int, name: str) -> None:
        self._shared = shared
        self.partition = partition
        self.name = name
        self._feed = Feed(shared, partition, self.wanted)
        self.progress: Progress | None = None
        self._batch: Batch | None = None
        # What the guards were when it was read; for a rule that is broken on purpose.
        self._early: Mapping[str, tuple[int, bytes]] = {}

    def wanted(self, event: StoredEvent) -> bool:
        """Say whether an event is followed."""
        raise NotImplementedError

    def start(self) -> None:
        """Take over the partition."""
        self._batch = None
        self.progress = self._shared.store.take_over(
            self.consumer, Part(self.partition, PARTITIONS)
        )

    def lose_connection(self) -> None:
        """Begin anew with the next step; the feed stays, and what it was brought."""
        self.progress = None

    @property
    def position(self) -> int:
        """How far it believes to have come."""
        return self._own().position

    def _own(self) -> Progress:
        if self.progress is None:
            self.start()
        assert self.progress is not None
        return self.progress

    def read(self, limit: int, polled: int, again: int = 0) -> str:
        """Read a batch, where none is at hand; return what it has."""
        position = self.position
        if self._batch is None:
            self._batch = self._feed.read(position, limit, polled, again)
            self._early = self._shared.store.state.guards
        found = [each.position for each in self._batch.requests]
        return f"{found} up to {self._batch.reached}, behind {position}"

    def commit(self, cut: Cut) -> None:
        """Do what is to be done about the batch at hand, and move on."""
        batch, self._batch = self._batch, None
        position = self.position
        if batch is None or batch.reached == position:
            return
        if batch.reached < position:
            raise Violation("progress", f"{position} was reached, and the log ends in front of it")
        self.take(batch, cut)

    def take(self, batch: Batch, cut: Cut) -> None:
        """Take a batch that is not empty."""
        raise NotImplementedError

    def _skip(self, reached: int) -> None:
        own = self._own()
        with self._shared.store.transaction(durable=False) as state:
            move(self._shared.rules, state, own, reached)
        own.position = reached


def move(rules: Rules, state: State, own: Progress, position: int) -> None:
    """Move a row by the rule for it; whoever was replaced must not come through."""
    rules.move(state, own, position)
    epoch, _ = state.progress[own.consumer, own.part]
    if epoch != own.epoch:
        raise Violation("zombie", f"{own.consumer} {own.part} of epoch {own.epoch} writes")


class Projector(Follower):
    """Remembers all that it was brought, in the transaction in which it moves on."""

    consumer = PROJECTOR

    def wanted(self, event: StoredEvent) -> bool:
        return True

    def take(self, batch: Batch, cut: Cut) -> None:
        own, store = self._own(), self._shared.store
        with store.transaction() as state:
            move(self._shared.rules, state, own, batch.reached)
            self._apply(state, batch)
            cut("before its commit")
        own.position = batch.reached
        cut("after its commit")

    def _apply(self, state: State, batch: Batch) -> None:
        before = state.applied.get(self.partition, ())
        found = tuple(each.position for each in batch.requests)
        state.applied[self.partition] = before + found


class _MoreGuardsError(Exception):
    """The transaction is rolled back, for more guards are to be locked."""


class Enforcer(Follower):
    """Decides the requests of a partition."""

    consumer = ENFORCER

    def wanted(self, event: StoredEvent) -> bool:
        return is_request(event)

    def start(self) -> None:
        super().start()
        for customer in ready_customers(self._shared.store.state):
            if belongs(f"customer-{customer}") == self.partition:
                self._decide_parked(customer, None, lambda point: None)

    def take(self, batch: Batch, cut: Cut) -> None:
        if not batch.requests:
            self._skip(batch.reached)
            return
        asked, reached = self._next_of(batch)
        first = asked[0].event
        if first is not None and isinstance(first.data, RequestUnparked):
            self._unpark(first.data, cut)
        self._decide(asked, reached, cut)

    def _next_of(self, batch: Batch) -> tuple[list[Asked], int]:
        """Return what is decided in one transaction: an unparking comes alone."""
        asked: list[Asked] = []
        for each in batch.requests:
            request = self._read(each)
            if asked and (request.unparks or asked[0].unparks):
                return asked, each.position - 1
            asked.append(request)
        return asked, batch.reached

    def _read(self, stored: StoredEvent, row: Row | None = None) -> Asked:
        event = decode(self._shared.catalogue, stored)
        return Asked(stored.position, named_by(stored.stream), event, row=row)

    def _unpark(self, unparking: RequestUnparked, cut: Cut) -> None:
        row = self._shared.store.state.parked.get(unparking.request)
        customer = unparking.customer if row is None else row.customer
        self._decide_parked(customer, unparking, cut)

    def _decide_parked(self, customer: str, unparking: RequestUnparked | None, cut: Cut) -> None:
        """Decide a customer's parked requests in their order, up to one that nobody set free."""
        store = self._shared.store
        rows = rows_of(store.state, customer)
        if not rows:
            return
        asked = [self._read(store.state.log[row.position - 1], row) for row in rows]
        if unparking is not None:
            asked = [
                replace(each, version=unparking.decider)
                if each.position == unparking.request
                else each
                for each in asked
            ]
        self._decide(asked, self._own().position, cut, unparked=customer)

    def _decide(
        self, batch: Sequence[Asked], reached: int, cut: Cut, unparked: str | None = None
    ) -> None:
        deciding = _Deciding(self._shared, batch, reached, unparked, self._early)
        own = self._own()
        deciding.commit(own, cut)
        own.position = reached
        cut("after its commit")


@dataclass(slots=True)
class _Deciding:
    """A batch on its way through one transaction, which begins anew with more guards."""

    shared: Shared
    batch: Sequence[Asked]
    reached: int
    unparked: str | None
    early: Mapping[str, tuple[int, bytes]]
    keys: set[Key] = field(default_factory=set)
    defects: dict[int, str] = field(default_factory=dict)

    def commit(self, own: Progress, cut: Cut) -> None:
        """Decide, and write what that brings."""
        shared = self.shared
        self._guess()
        for _ in range(_ROUNDS_MAX):
            try:
                if not shared.rules.one_transaction:
                    self._move_before(own)
                with shared.store.transaction() as state:
                    if shared.rules.one_transaction:
                        move(shared.rules, state, own, self.reached)
                    cut("after the move")
                    self._decide_within(state)
                    cut("before its commit")
            except DefectError as defect:
                self.defects[defect.position] = defect.words
            except _MoreGuardsError:
                pass
            else:
                return
        raise AssertionError("a batch touches more and more guards without end")

    def _move_before(self, own: Progress) -> None:
        with self.shared.store.transaction() as state:
            move(self.shared.rules, state, own, self.reached)
        own.position = self.reached

    def _guess(self) -> None:
        organisation = self.shared.organisation()
        self.keys = {("customer", asked.customer) for asked in self.batch}
        for request in self._requests():
            self.keys.update(guessing.keys_named(request, organisation.at(request.position)))
        looked_at = [each for each in self._requests() if guessing.needs_a_look(each)]
        settled = self._loaded(
            self.shared.store.state, {("customer", each.data.customer) for each in looked_at}
        )
        self.keys.update(guessing.keys_seen(looked_at, settled))

    def _requests(self) -> list[Event]:
        return [asked.event for asked in self.batch if asked.event is not None]

    def _loaded(self, state: State, keys: set[Key]) -> Settled:
        settled = Settled()
        wanted = sorted(guards.text_of(key) for key in keys)
        there = state.guards if self.shared.rules.reads_guards_when_locked else self.early
        guards.load(settled, wanted, [(key, *there[key]) for key in wanted if key in there])
        return settled

    def _decide_within(self, state: State) -> None:
        settled = self._loaded(state, self.keys)
        waiting = waiting_among(state, settled.customers) - {self.unparked or ""}
        rules, organisation = self.shared.rules, self.shared.organisation()
        batches: BatchDecider = rules.decider(self.shared.catalogue, rules.versions, organisation)
        decided = batches.decide(self.batch, settled, waiting, self.defects)
        if decided.missing:
            self.keys |= decided.missing
            raise _MoreGuardsError
        self._write(state, settled, decided, batches)

    def _write(
        self, state: State, settled: Settled, decided: Decided, batches: BatchDecider
    ) -> None:
        for position in decided.freed:
            state.parked.pop(position, None)
        for row in decided.parked:
            if row.position in state.parked:
                raise Violation("once", f"request {row.position} is parked a second time")
            state.parked[row.position] = row
        for key in settled.touched:
            value = guards.version_of(settled, key), guards.state_of(settled, key)
            state.guards[guards.text_of(key)] = value
        events = batches.events_of(decided)
        if events:
            self.shared.store.append(events)
