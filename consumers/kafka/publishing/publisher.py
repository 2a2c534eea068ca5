"""The publisher: fills the topics of subscribers with public decisions, in the order of the log.

One process leads, beside the relay and as it does (see ``consumers/kafka/relay.py``). It follows
the log no further than the relay has sent it: what subscribers were told stands in the log's topic
too, and can be put back from there into a database that has lost it.

The checkpoints of both topics, and how customers stand as of them, move in one transaction. After
any failure it begins again from there: messages may come twice, in the same words, and subscribers
know them by position and version. A zombie that wakes up sends at most what it had at hand, which
are those words too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from kafka.errors import KafkaError
from psycopg import Connection

from consumers.kafka.chain import partition_of
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, RelayInterruptedError
from consumers.kafka.filling import (
    Described,
    Filled,
    Filler,
    Sender,
    check_ours,
    describe,
    failure_of,
    move,
    raise_first,
    take_over,
)
from consumers.kafka.publishing import standings
from consumers.kafka.publishing.cloud_events import Sent, encode, source_of
from consumers.kafka.publishing.messages import Current, Told
from consumers.kafka.publishing.standing import Standing, after
from consumers.kafka.publishing.telling import PUBLIC, Telling
from consumers.kafka.topics import CURRENT, LOG, OWNERSHIP
from consumers.leading import Connect, LeadingLimits, while_leading
from ledger.collecting import uncollected
from ledger.envelope import Event, StoredEvent, decode
from ledger.events.catalogue import Catalogue
from ledger.store import arrays
from ledger.store.generations import Generations, read_generations
from ledger.store.reading import read_after, read_at
from projections.facts import Facts

CONSUMER = "publisher"

_log = logging.getLogger(__name__)

_RELAYED = "SELECT position FROM ledger.relay WHERE topic = %s"
_KEYS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class PublisherLimits(LeadingLimits):
    """Bounds of the publisher."""

    batch_events_max: int = 2_000
    # There is no hint that the relay has come further: so often it is asked.
    poll_seconds: float = 0.05
    # After so long without an acknowledgement all is begun again; events wait in the log.
    delivery_seconds_max: float = 30.0


class _Filling(NamedTuple):
    """A topic that is filled."""

    topic: Described
    filled: Filled
    sent: Sent


class Publisher(Filler):
    """Fills the public topics, on a connection of its own (autocommit, nobody else's).

    Usable until its first error; then a new one begins from the checkpoint. ``acknowledged`` is
    called between the acknowledgements of a batch and the move of the checkpoint, for the tests.
    """

    def __init__(
        self,
        connection: Connection[Any],
        cluster: Cluster,
        catalogue: Catalogue,
        limits: PublisherLimits | None = None,
        *,
        acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__((limits or PublisherLimits()).poll_seconds)
        self._connection = connection
        self._cluster = cluster
        self._catalogue = catalogue
        self._limits = limits or PublisherLimits()
        self._acknowledged = acknowledged
        self._log_topic = LOG.name(cluster.topic_prefix)
        self._public = {catalogue.name_of_class(each) for each in PUBLIC}
        self._facts = Facts()
        self._fillings: dict[type[Any], _Filling] = {}
        self._position = 0
        # Kafka's hash is slow in Python, and customers come again.
        self._partition_of = lru_cache(_KEYS_KEPT)(partition_of)
        arrays.register(connection)

    @property
    def position(self) -> int:
        """Up to here customers stand as subscribers were told."""
        return self._position

    def start(self) -> None:
        """Take over from whoever published before.

        Raises KafkaUnavailableError, KafkaError and OSError where the cluster cannot be reached;
        TopicMissingError; TopicPartitionsError.
        """
        cluster, connection = self._cluster, self._connection
        source = source_of(cluster.topic_prefix)
        decided = describe(cluster, OWNERSHIP.name(cluster.topic_prefix))
        current = describe(cluster, CURRENT.name(cluster.topic_prefix))
        with connection.transaction():
            self._fillings = {
                holds: _Filling(topic, take_over(connection, topic), Sent(topic.topic_id, source))
                for holds, topic in ((Told, decided), (Current, current))
            }
            filled_upto = min(each.filled.position for each in self._fillings.values())
            self._position = standings.take_over(connection, filled_upto)
        self._sender = Sender(connection, cluster, self._limits.delivery_seconds_max)

    def run_once(self) -> int:
        """Tell what one batch brings, and wait for the acknowledgements; return its events.

        Raises RelayInterruptedError where something was not acknowledged; FencedError where
        another publisher has taken over; UnknownEventError for what a newer version has recorded;
        KafkaError; psycopg's errors. Then nothing of the batch counts as told.
        """
        stored = read_after(
            self._connection, self._position, self._limits.batch_events_max, self._relayed()
        )
        if not stored:
            return 0
        with uncollected():
            upto = stored[-1].position
            tellings = self._tellings(stored, upto)
            self._send_all(tellings)
            self._move(upto, tellings)
        return len(stored)

    # --- what a batch brings ---------------------------------------------------------------------

    def _relayed(self) -> int:
        """Return up to where the log stands in its own topic."""
        row = self._connection.execute(_RELAYED, (self._log_topic,), prepare=True).fetchone()
        return int(row[0]) if row else 0

    def _tellings(self, stored: Sequence[StoredEvent], upto: int) -> list[Telling]:
        """Return the public decisions of a batch, with how their customers stand by them."""
        found: list[Event] = []
        for each in stored:
            if each.name in self._public:
                found.append(decode(self._catalogue, each))
            else:
                self._catalogue.kind_of(each.name)  # raises: nobody knows whether it is public
        if not found:
            return []
        causes = self._causes(stored, {each.envelope["causation"] for each in found})
        standing = standings.read(self._connection, {each.data.customer for each in found})
        # A newer publisher would have moved on how they stand: nothing may be told by that.
        check_ours(self._connection, self._fillings[Told].filled, CONSUMER)
        organisation = self._facts.upto(self._connection, upto)
        tellings = []
        for event in found:
            customer, cause = event.data.customer, causes[event.envelope["causation"]]
            before = standing.get(customer)
            stands = after(before, event, cause)
            if stands is not None:
                standing[customer] = stands
            at = organisation.at(event.position)
            tellings.append(Telling(event, cause, before, stands, at))
        return tellings

    def _causes(self, stored: Sequence[StoredEvent], wanted: set[int]) -> dict[int, Event]:
        """Return the requests at these positions: most stand in the batch itself."""
        at_hand = [each for each in stored if each.position in wanted]
        absent = sorted(wanted.difference(each.position for each in at_hand))
        missing = read_at(self._connection, absent) if absent else []
        return {each.position: decode(self._catalogue, each) for each in (*at_hand, *missing)}

    # --- sending -------------------------------------------------------------------------------

    def _send_all(self, tellings: Sequence[Telling]) -> None:
        if self._sender is None:
            raise RuntimeError("The publisher is used before start.")
        generations = read_generations(self._connection)
        sent = [
            (filling.topic.name, self._send(self._sender, filling, message, generations))
            for telling in tellings
            for message, filling in self._messages(telling)
        ]
        self._sender.flush(self._stop)
        failures = [(topic, failure_of(future)) for topic, future in sent]
        self._acknowledged()
        for topic, failure in failures:
            raise_first(topic, (failure,))

    def _messages(self, telling: Telling) -> Iterator[tuple[Told | Current, _Filling]]:
        """Yield what a decision brings to those topics that have not come so far."""
        position = telling.event.position
        decided, current = self._fillings[Told], self._fillings[Current]
        if position > decided.filled.position:
            yield telling.decision(), decided
        if position > current.filled.position and (now := telling.current()) is not None:
            yield now, current

    def _send(
        self, sender: Sender, to: _Filling, message: Told | Current, generations: Generations
    ) -> Any:
        partition = self._partition_of(message.customer.id, to.topic.partitions)
        encoded = encode(message, generations.of(message.position), to.sent)
        return sender.send(to.topic.name, partition, encoded)

    def _move(self, upto: int, tellings: Sequence[Telling]) -> None:
        changed: dict[str, Standing] = {
            each.event.data.customer: each.after
            for each in tellings
            if each.after is not None and each.after is not each.before
        }
        filled = [each.filled for each in self._fillings.values()]
        with self._connection.transaction():
            for each in filled:
                move(self._connection, each, max(upto, each.position), CONSUMER)
            standings.write(self._connection, changed, upto)
        for each in filled:
            each.position = max(upto, each.position)
        self._position = upto


@contextmanager
def publishing(
    connection: Connection[Any],
    cluster: Cluster,
    catalogue: Catalogue,
    limits: PublisherLimits | None = None,
    *,
    acknowledged: Callable[[], None] = lambda: None,
) -> Iterator[Publisher]:
    """Open a publisher that has taken over; raises as ``Publisher.start``."""
    publisher = Publisher(connection, cluster, catalogue, limits, acknowledged=acknowledged)
    try:
        publisher.start()
        yield publisher
    finally:
        publisher.close()


def publish(
    connect: Connect,
    cluster: Cluster,
    catalogue: Catalogue,
    stop: threading.Event,
    wait: Callable[[float], object],
    limits: PublisherLimits | None = None,
    *,
    acknowledged: Callable[[], None] = lambda: None,
) -> None:
    """Publish while this process leads, and stand by while another does, until ``stop`` is set.

    A lost database or cluster is tried again, with pauses that grow. Raises what no retry mends:
    TopicMissingError, TopicPartitionsError, UnknownEventError, and what the database refuses.
    """
    bounds = limits or PublisherLimits()

    def work(connection: Connection[Any]) -> None:
        with publishing(
            connection, cluster, catalogue, bounds, acknowledged=acknowledged
        ) as started:
            _log.info("this process publishes from position %d on", started.position)
            started.run(stop, wait)

    others = (RelayInterruptedError, KafkaUnavailableError, KafkaError, OSError)
    while_leading(CONSUMER, "publishing", connect, work, stop, bounds, others=others)
