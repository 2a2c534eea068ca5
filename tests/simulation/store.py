"""The ledger's store in memory: what is committed is kept state by state, so that it can be lost.

The semantics are those of the SQL: ``consumers/progress.py`` (moved only where epoch and position
match), ``ledger/store/appending.py`` (dense positions, expected versions, one decision of a cause
and ordinal), ``ledger/store/generations.py``, ``consumers/kafka/relay.py`` (the checkpoint's row),
``consumers/feed.py`` (what is missing in the topic). Transactions follow each other, as under the
locks of the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from consumers.feed import Batch
from consumers.kafka.chain import key_of, partition_of
from consumers.parking import Row
from consumers.progress import FencedError, Part, Progress, ProgressDividedError
from ledger.envelope import StoredEvent
from ledger.store.appending import Append, NewEvent, check_append
from ledger.store.generations import Generation, Generations
from tests.simulation.violations import Violation

PARTITIONS = 2
# As consumers/feed.py has it: so many positions are looked through in one go.
_SPAN_PER_EVENT = 4
_SERVER = "server"


class NoGenerationError(Exception):
    """Nothing is appended on a timeline for which no generation was opened (SQLSTATE GS004)."""


@dataclass(slots=True)
class Checkpoint:
    """The relay's rows: how far the topic of this id was filled, in all and in each partition."""

    epoch: int = 0
    position: int = 0
    topic_id: int | None = None
    lasts: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """All that one commit has left in the tables."""

    log: list[StoredEvent] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    decided: set[tuple[int, int]] = field(default_factory=set)
    guards: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    parked: dict[int, Row] = field(default_factory=dict)
    # By consumer and part: epoch and position.
    progress: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    # What the projector has applied of each partition, in its order.
    applied: dict[int, tuple[int, ...]] = field(default_factory=dict)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    generations: tuple[Generation, ...] = ()
    # Whether the commit waited for the disk: a crash of the server takes away what did not.
    durable: bool = True

    def copy(self) -> State:
        """Return one that can be changed without changing this."""
        return State(
            self.log.copy(),
            self.versions.copy(),
            self.decided.copy(),
            self.guards.copy(),
            self.parked.copy(),
            self.progress.copy(),
            self.applied.copy(),
            replace(self.checkpoint, lasts=self.checkpoint.lasts.copy()),
            self.generations,
        )

    @property
    def head(self) -> int:
        """The highest position."""
        return len(self.log)


class Store:
    """What is committed, and the transactions that change it; none of them is ever half done."""

    def __init__(self, begun: State, now: datetime) -> None:
        self._states = [begun]
        self._working: State | None = None
        self.timeline = 1
        self.now = now

    @property
    def state(self) -> State:
        """What is committed, or in a transaction what it sees itself."""
        return self._states[-1] if self._working is None else self._working

    @contextmanager
    def transaction(self, *, durable: bool = True, rebuilds: bool = False) -> Iterator[State]:
        """Commit what the block does to the state, or where it raises nothing of it.

        Only where it ``rebuilds`` may progress go back, and then its epoch has risen.
        """
        self._working = self._states[-1].copy()
        self._working.durable = durable
        try:
            yield self._working
            _check_progress(self._states[-1], self._working, rebuilds=rebuilds)
            self._states.append(self._working)
        finally:
            self._working = None

    # --- the log ---------------------------------------------------------------------------------

    @property
    def generations(self) -> Generations:
        """All generations there are."""
        return Generations(self.state.generations)

    def is_open(self) -> bool:
        """Say whether a generation is open for the server as it is now."""
        opened = self.state.generations
        return bool(opened) and opened[-1].timeline == self.timeline

    def append(self, events: Sequence[NewEvent]) -> int:
        """Append within a transaction; return the first position."""
        if not self.is_open():
            raise NoGenerationError
        check_append(Append(tuple(events)))
        state = self.state
        first = state.head + 1
        for event in events:
            self.now += timedelta(seconds=1)
            version = state.versions.get(event.stream, 0) + 1
            if event.version not in (None, version):
                raise Violation("fenced", f"{event.stream} is at {version - 1}: {event}")
            self.put(
                StoredEvent(
                    state.head + 1,
                    self.now,
                    event.stream,
                    version,
                    event.name,
                    event.body,
                    event.causation,
                    event.ordinal,
                )
            )
        return first

    def put(self, stored: StoredEvent) -> None:
        """Let an event stand at the end of the log, as it is, within a transaction."""
        state = self.state
        if stored.causation is not None:
            cause = stored.causation, stored.ordinal or 0
            if cause in state.decided:
                raise Violation("once", f"request {stored.causation} is decided a second time")
            state.decided.add(cause)
        state.versions[stored.stream] = stored.version
        state.log.append(stored)

    def read_after(self, after: int, limit: int) -> list[StoredEvent]:
        """Return what stands behind a position."""
        return self.state.log[after : after + limit]

    def read_upto(self, after: int, limit: int, upto: int, partition: int, wanted: Wanted) -> Batch:
        """Return what is wanted of a partition, as ``StoreFeed.read_upto`` does."""
        end = min(upto, after + limit * _SPAN_PER_EVENT)
        found = [each for each in self.state.log[after:end] if wanted(each)][:limit]
        reached = found[-1].position if len(found) == limit else end
        return Batch([each for each in found if belongs(each.stream) == partition], reached)

    # --- progress --------------------------------------------------------------------------------

    def take_over(self, consumer: str, part: Part) -> Progress:
        """Take a new epoch of a part; raises ProgressDividedError."""
        with self.transaction() as state:
            state.progress.setdefault((consumer, 0), (0, 0))
            epoch, position = state.progress.get((consumer, part.number), (0, 0))
            state.progress[consumer, part.number] = epoch + 1, position
            found = _parts(state, consumer)
            if found != part.of:
                raise ProgressDividedError(consumer, found, part.of)
        return Progress(consumer, epoch + 1, position, part.number)

    def divide(self, consumer: str, parts: int) -> None:
        """Divide a progress that is whole; raises ProgressDividedError."""
        with self.transaction() as state:
            state.progress.setdefault((consumer, 0), (0, 0))
            found = _parts(state, consumer)
            if found == parts:
                return
            if found != 1:
                raise ProgressDividedError(consumer, found, parts)
            epoch, position = state.progress[consumer, 0]
            state.progress[consumer, 0] = epoch + 1, position
            for number in range(1, parts):
                state.progress[consumer, number] = 0, position

    # --- the worst day ---------------------------------------------------------------------------

    def crash(self) -> int:
        """Lose what did not wait for the disk, if it is at the end; return how many commits."""
        lost = 0
        while len(self._states) > 1 and not self._states[-1].durable:
            self._states.pop()
            lost += 1
        return lost

    def lose_tail(self, commits: int) -> list[StoredEvent]:
        """Go on with an older state on a new timeline; return the events that are lost.

        Never with one that knows fewer generations: see the package's words.
        """
        before = self.state
        for _ in range(commits):
            if len(self._states) > 1 and self._states[-2].generations == before.generations:
                self._states.pop()
        self.timeline += 1
        return before.log[self.state.head :]

    def open_generation(self) -> None:
        """Open a generation where the server is not the one that wrote last."""
        if not self.is_open():
            with self.transaction() as state:
                number = len(state.generations) + 1
                opened = Generation(number, state.head + 1, _SERVER, self.timeline)
                state.generations = (*state.generations, opened)


Wanted = Callable[[StoredEvent], bool]


def belongs(stream: str) -> int:
    """Return the partition in which a stream stands."""
    return partition_of(key_of(stream), PARTITIONS)


def move(state: State, progress: Progress, position: int) -> None:
    """Move a row of progress within a transaction; raises FencedError where it is not ours."""
    key = progress.consumer, progress.part
    if state.progress.get(key) != (progress.epoch, progress.position):
        raise FencedError(progress.consumer)
    state.progress[key] = progress.epoch, position


def waiting_among(state: State, customers: Iterable[str]) -> set[str]:
    """Return those of the customers that wait for a parked request."""
    return {row.customer for row in state.parked.values()} & set(customers)


def rows_of(state: State, customer: str) -> list[Row]:
    """Return the parked requests of a customer, in the order of the log."""
    return [row for _, row in sorted(state.parked.items()) if row.customer == customer]


def ready_customers(state: State) -> list[str]:
    """Return the customers whose parked requests all can be decided."""
    stuck = {row.customer for row in state.parked.values() if row.error is not None}
    rows = (row for _, row in sorted(state.parked.items()))
    return list(dict.fromkeys(row.customer for row in rows if row.customer not in stuck))


def _parts(state: State, consumer: str) -> int:
    return sum(1 for name, _ in state.progress if name == consumer)


def _check_progress(before: State, after: State, *, rebuilds: bool) -> None:
    for key, (epoch, position) in before.progress.items():
        new_epoch, reached = after.progress[key]
        goes_back = reached < position and not (rebuilds and new_epoch > epoch)
        if goes_back or new_epoch < epoch:
            raise Violation("progress", f"{key} goes back from {position} to {reached}")
