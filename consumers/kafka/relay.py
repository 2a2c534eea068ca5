"""The relay: sends the log to its topic, in order, as often as it takes, and skips nothing.

One process leads (see ``consumers/leading.py``). It reads positions in order, sends each event to
the partition of its customer, waits until all copies in sync have it, and moves its checkpoint up
to the last acknowledgement without a gap. After any failure it begins again from the checkpoint
with a new producer: events may come twice, in the same words, and readers know them by position.

A zombie that wakes up may still send what it had at hand. That is what a later relay sends too,
word for word, and it cannot move the checkpoint, whose epoch has risen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from psycopg import Connection

from consumers.kafka.chain import Chain, Placed, checkpoint
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, RelayInterruptedError
from consumers.kafka.filling import (
    Described,
    Filled,
    Filler,
    Sender,
    describe,
    failure_of,
    move,
    raise_first,
    take_over,
)
from consumers.kafka.records import Asked, Encoded, Mark, encode, encode_mark
from consumers.kafka.tail import check_tail, open_behind_tail
from consumers.kafka.topics import LOG
from consumers.leading import Connect, LeadingLimits, while_leading
from ledger.collecting import uncollected
from ledger.envelope import StoredEvent
from ledger.store.generations import is_in_force, read_generations

CONSUMER = "relay"

_log = logging.getLogger(__name__)

_FORGET = "UPDATE ledger.relay_partitions SET position = 0 WHERE topic = %s"
_LASTS = "SELECT partition, position FROM ledger.relay_partitions WHERE topic = %s"
_MOVE_PARTITIONS = """
INSERT INTO ledger.relay_partitions (topic, partition, position)
SELECT %s, p.partition, p.position
FROM unnest(%s::integer[], %s::bigint[]) AS p(partition, position)
ON CONFLICT (topic, partition) DO UPDATE SET position = excluded.position
"""
# With the digest of a request beside its first event. Looked up for each: a join that was planned
# while the tables were small would read all request ids for each batch.
_READ = """
SELECT e.position, e.recorded, e.stream, e.version, e.name, e.body, e.causation, e.ordinal,
       r.events, r.digest
FROM (SELECT * FROM ledger.events WHERE position > %s ORDER BY position LIMIT %s) e
LEFT JOIN LATERAL (SELECT k.events, k.digest FROM ledger.request_ids k
                   WHERE k.first_position = e.position LIMIT 1) r ON true
ORDER BY e.position
"""
_LOOK_UP = "SELECT set_config('enable_seqscan', 'off', false)"


@dataclass(frozen=True, slots=True)
class RelayLimits(LeadingLimits):
    """Bounds of the relay."""

    batch_events_max: int = 2_000
    poll_seconds: float = 0.2
    # How often partitions without anything new are told so, at most.
    mark_seconds: float = 0.2
    # How often all partitions are told again, so that each holds something however long nothing is
    # recorded: one from which everything has expired cannot say whether the log has lost its tail.
    mark_again_seconds: float = 24 * 60 * 60.0
    # After so long without an acknowledgement all is begun again; events wait in the log.
    delivery_seconds_max: float = 30.0


class Relay(Filler):
    """Fills the log's topic, on a connection of its own (autocommit, nobody else's).

    Usable until its first error; then a new one begins from the checkpoint. ``acknowledged`` is
    called between the acknowledgements of a batch and the move of the checkpoint, for the tests.
    """

    def __init__(
        self,
        connection: Connection[Any],
        cluster: Cluster,
        limits: RelayLimits | None = None,
        *,
        acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__((limits or RelayLimits()).poll_seconds)
        self._connection = connection
        self._cluster = cluster
        self._limits = limits or RelayLimits()
        self._acknowledged = acknowledged
        self._topic = LOG.name(cluster.topic_prefix)
        self._filled = Filled(self._topic, 0, 0)
        self._chain = Chain(0, {})
        # Of each partition its last position up to the checkpoint, and up to where it was told so.
        self._lasts: list[int] = []
        self._told: list[int] = []
        # Marks under way: they go with the events that come next, so that these need not wait.
        self._marks: list[tuple[int, Mark, Any]] = []
        self._marked_at = 0.0
        self._told_all_at = time.monotonic()

    @property
    def position(self) -> int:
        """The checkpoint: up to here everything stands in the topic."""
        return self._filled.position

    def start(self) -> None:
        """Take over from whoever relayed before.

        Raises KafkaUnavailableError, KafkaError and OSError where the cluster cannot be reached;
        TopicMissingError; TopicPartitionsError; what a lost tail brings (``tail.open_behind_tail``
        and ``check_tail``).
        """
        topic = describe(self._cluster, self._topic)
        if is_in_force(self._connection):
            check_tail(self._connection, self._cluster)
        else:
            open_behind_tail(self._connection, self._cluster)
        self._connection.execute(_LOOK_UP)
        self._take_over(topic)
        self._sender = Sender(self._connection, self._cluster, self._limits.delivery_seconds_max)

    def run_once(self) -> int:
        """Send one batch and wait for its acknowledgements; return how many events it had.

        From time to time idle partitions are told so. Raises RelayInterruptedError where
        something was not acknowledged, after the checkpoint was moved as far as may be; FencedError
        where another relay has taken over; KafkaError; psycopg's errors.
        """
        with uncollected():
            stored = self._read()
            if stored:
                self._send_all(stored)
        is_due = time.monotonic() - self._marked_at >= self._limits.mark_seconds
        if is_due and not self._marks:
            self._mark()
        if self._marks and not stored:
            self._started.flush(self._stop)
            self._settle_marks()
        return len(stored)

    # --- taking over ---------------------------------------------------------------------------

    def _take_over(self, topic: Described) -> None:
        connection, partitions = self._connection, topic.partitions
        with connection.transaction():
            self._filled = take_over(connection, topic)
            if self._filled.anew:
                connection.execute(_FORGET, (self._topic,))
            lasts = dict(connection.execute(_LASTS, (self._topic,)).fetchall())
        self._chain = Chain(partitions, lasts)
        self._lasts = [lasts.get(number, 0) for number in range(partitions)]
        self._told = [0] * partitions

    # --- sending -------------------------------------------------------------------------------

    def _read(self) -> list[tuple[StoredEvent, Asked | None]]:
        """Return the events behind the checkpoint, each with what was asked with it."""
        limits = (self.position, self._limits.batch_events_max)
        rows = self._connection.execute(_READ, limits, prepare=True, binary=True).fetchall()
        return [
            (StoredEvent._make(row[:8]), None if row[9] is None else Asked(row[8], row[9]))
            for row in rows
        ]

    def _send_all(self, stored: Sequence[tuple[StoredEvent, Asked | None]]) -> None:
        """Send a batch, and wait for its acknowledgements."""
        generations = read_generations(self._connection)
        placed = [self._chain.place(event) for event, _ in stored]
        sent = [
            self._send(each.partition, encode(each, generations.of(event.position), asked))
            for each, (event, asked) in zip(placed, stored, strict=True)
        ]
        self._settle(placed, sent)

    def _send(self, partition: int, encoded: Encoded) -> Any:
        return self._started.send(self._topic, partition, encoded)

    @property
    def _started(self) -> Sender:
        if self._sender is None:
            raise RuntimeError("The relay is used before start.")
        return self._sender

    def _settle(self, placed: Sequence[Placed], sent: Sequence[Any]) -> None:
        """Wait for the acknowledgements of a batch, and move the checkpoint as far as they go."""
        self._started.flush(self._stop)
        failures = [failure_of(future) for future in sent]
        self._acknowledged()
        reached = checkpoint(placed, [each is None for each in failures])
        if reached is not None:
            self._move(reached.position, reached.lasts)
        raise_first(self._topic, failures)
        self._settle_marks()

    def _move(self, position: int, lasts: dict[int, int]) -> None:
        connection = self._connection
        with connection.transaction():
            move(connection, self._filled, position, CONSUMER)
            moved = (self._topic, list(lasts), list(lasts.values()))
            connection.execute(_MOVE_PARTITIONS, moved, prepare=True)
        self._filled.position = position
        for partition, last in lasts.items():
            self._lasts[partition] = self._told[partition] = last

    def _mark(self) -> None:
        """Begin to tell every partition that it has nothing more up to the checkpoint."""
        if time.monotonic() - self._told_all_at >= self._limits.mark_again_seconds:
            self._told = [0] * len(self._told)
            self._told_all_at = time.monotonic()
        behind = [number for number, told in enumerate(self._told) if told < self.position]
        if not behind:
            return
        self._marked_at = time.monotonic()
        # That of the position, and not the newest: the same mark says the same at each sending.
        generation = read_generations(self._connection).of(self.position)
        marks = [(each, Mark(self.position, generation, self._lasts[each])) for each in behind]
        self._marks += [(each, mark, self._send(each, encode_mark(mark))) for each, mark in marks]

    def _settle_marks(self) -> None:
        """See that the marks under way are acknowledged, behind a flush."""
        marks, self._marks = self._marks, []
        raise_first(self._topic, [failure_of(future) for _, _, future in marks])
        for partition, mark, _ in marks:
            self._told[partition] = max(self._told[partition], mark.upto)


@contextmanager
def relaying(
    connection: Connection[Any],
    cluster: Cluster,
    limits: RelayLimits | None = None,
    *,
    acknowledged: Callable[[], None] = lambda: None,
) -> Iterator[Relay]:
    """Open a relay that has taken over; raises as ``Relay.start``."""
    relay = Relay(connection, cluster, limits, acknowledged=acknowledged)
    try:
        relay.start()
        yield relay
    finally:
        relay.close()


def relay(
    connect: Connect,
    cluster: Cluster,
    stop: threading.Event,
    wait: Callable[[float], object],
    limits: RelayLimits | None = None,
    *,
    acknowledged: Callable[[], None] = lambda: None,
) -> None:
    """Relay while this process leads, and stand by while another does, until ``stop`` is set.

    A lost database or cluster is tried again, with pauses that grow. Raises what no retry mends:
    TopicMissingError, TopicPartitionsError, TailLostError, and what the database refuses.
    """
    bounds = limits or RelayLimits()

    def work(connection: Connection[Any]) -> None:
        with relaying(connection, cluster, bounds, acknowledged=acknowledged) as started:
            _log.info("this process relays from position %d on", started.position)
            started.run(stop, wait)

    others = (RelayInterruptedError, KafkaUnavailableError, KafkaError, OSError)
    while_leading(CONSUMER, "relaying", connect, work, stop, bounds, others=others)
