"""The feed of one partition, from Kafka; what is missing there comes from the store.

That Kafka delivers nothing twice and nothing wrongly is taken for granted nowhere: what counts is
the position that the consumer has reached, which is committed with its effects in the database.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from consumers.feed import Batch, StoreFeed
from consumers.kafka import dead_letters
from consumers.kafka.chain import key_of, partition_of
from consumers.kafka.gathering import gather
from consumers.kafka.records import Linked, Mark
from ledger.store.generations import Generations, read_generations
from ledger.store.reading import head

_log = logging.getLogger(__name__)


class Known:
    """What the store was seen to hold: its end and its generations; for the feeds of one process.

    It is looked at again when somebody tells of more. While one connection lasts, a log only grows.
    """

    def __init__(self) -> None:
        self.head = -1
        self.generations = Generations(())

    def look(self, connection: Connection[Any]) -> None:
        """See what the store holds now."""
        self.head = head(connection)
        self.generations = read_generations(connection)

    def has(self, position: int, generation: int = 0) -> bool:
        """Say whether a position and a generation are among what was seen."""
        return position <= self.head and generation <= self.generations.newest


class KafkaFeed:
    """The requests of one partition, out of what a consumer of the topic hands over."""

    def __init__(self, partition: int, partitions: int, known: Known) -> None:
        self._partition = partition
        self._known = known
        self._store = StoreFeed(
            lambda stream: partition_of(key_of(stream), partitions) == partition
        )
        self._delivered: deque[Linked | Mark] = deque()
        # Where each of them stands in Kafka, and where the next one behind all that was brought.
        self._offsets: deque[int] = deque()
        self._brought_next = self._done_next = -1
        # The highest position and generation of all that was ever delivered.
        self._told = (0, 0)
        self._unreadable: dead_letters.Unreadable = deque()
        # How far we have come with what was delivered, whatever became of it.
        self._brought = 0

    @property
    def waiting(self) -> int:
        """How many records were delivered and not looked at yet."""
        return len(self._delivered)

    @property
    def done_with(self) -> int:
        """The offset behind all that the consumer is done with; -1 before it has told so."""
        return self._done_next

    def deliver(self, records: Iterable[Any]) -> None:
        """Take records of kafka-python, in the order of the partition."""
        for offset, told in dead_letters.readable(records, self._unreadable):
            self._delivered.append(told)
            self._offsets.append(offset)
            position = told.upto if isinstance(told, Mark) else told.event.position
            self._told = max(self._told[0], position), max(self._told[1], told.generation)

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        """Return the requests of the partition behind ``after``, at most ``limit``.

        Returns at once, also with nothing: then Kafka has delivered nothing more. What cannot be
        read is put aside. Raises GenerationContradictsError.
        """
        dead_letters.keep_all(connection, self._unreadable)
        if after < self._brought:
            # The consumer did not keep what we brought, which Kafka will not deliver again.
            return self._again(connection, after, limit)
        self._done_next = self._brought_next
        self._look(connection, after)
        if self._known.head < after:
            return Batch((), self._known.head)
        gathered = gather(
            self._delivered,
            after,
            limit,
            head=self._known.head,
            generations=self._known.generations,
        )
        if gathered.missing_upto is not None and gathered.reached == after:
            _log.info("partition %d lacks what follows on position %d", self._partition, after)
            return self._store.read_upto(connection, after, limit, gathered.missing_upto)
        while len(self._offsets) > len(self._delivered):
            self._brought_next = self._offsets.popleft() + 1
        self._brought = gathered.reached
        return Batch(gathered.events, gathered.reached)

    def _look(self, connection: Connection[Any], after: int) -> None:
        """See what the store holds, where what was delivered or reached is not known of yet.

        Behind the delivery: the store has at least what the relay has read from it.
        """
        position, generation = self._told
        if not self._known.has(max(position, after), generation):
            self._known.look(connection)

    def _again(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        ends_at = head(connection)
        if ends_at <= after:
            return Batch((), ends_at)
        return self._store.read_upto(connection, after, limit, min(ends_at, self._brought))
