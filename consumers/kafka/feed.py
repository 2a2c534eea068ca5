"""The feed of one partition, from Kafka; what is missing there comes from the store.

That Kafka delivers nothing twice and nothing wrongly is taken for granted nowhere: what counts is
the position that the consumer has reached, which is committed with its effects in the database.
"""

from __future__ import annotations

import logging
from collections import deque
from types import TracebackType
from typing import Any, Self

from kafka import TopicPartition
from kafka.errors import KafkaError
from psycopg import Connection

from consumers.feed import Batch, StoreFeed, is_request
from consumers.kafka.chain import key_of, partition_of
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError
from consumers.kafka.gathering import gather
from consumers.kafka.records import Linked, Mark, decode
from consumers.kafka.topics import LOG
from ledger.store.generations import read_generations
from ledger.store.reading import head

# Records that are held at most, beside what kafka-python fetches ahead.
_RECORDS_PER_REQUEST = 4

_log = logging.getLogger(__name__)


class KafkaFeed:
    """The requests of one partition; a context manager, for one thread.

    It reads the partition from its beginning, and drops quickly what its consumer has seen.
    """

    def __init__(self, cluster: Cluster, partition: int, partitions: int) -> None:
        self._cluster = cluster
        self._at = TopicPartition(LOG.name(cluster.topic_prefix), partition)
        self._store = StoreFeed(
            lambda stream: partition_of(key_of(stream), partitions) == partition
        )
        self._delivered: deque[Linked | Mark] = deque()
        # How far we have come with what was delivered, whatever became of it.
        self._brought = 0
        self._consumer: Any = None

    def __enter__(self) -> Self:
        try:
            self._consumer = self._cluster.consumer(auto_offset_reset="earliest")
        except (KafkaError, OSError) as error:
            raise KafkaUnavailableError(self._cluster.bootstrap, error) from error
        self._consumer.assign([self._at])
        self._consumer.seek_to_beginning(self._at)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        """Return the requests of the partition behind ``after``, at most ``limit``.

        Returns at once, also with nothing: then Kafka has delivered nothing more. Raises
        GenerationContradictsError, UnreadableRecordError.
        """
        if after < self._brought:
            # The consumer did not keep what we brought, which Kafka will not deliver again.
            return self._again(connection, after, limit)
        if len(self._delivered) < limit:
            self._poll(limit * _RECORDS_PER_REQUEST)
        # Behind the poll: the store knows at least what the relay has read from it.
        ends_at = head(connection)
        if ends_at < after:
            return Batch((), ends_at)
        gathered = gather(
            self._delivered,
            after,
            limit,
            head=ends_at,
            generations=read_generations(connection),
        )
        if gathered.missing_upto is not None and gathered.reached == after:
            _log.info("%s lacks what follows on position %d", self._at.topic, after)
            return self._store.read_upto(connection, after, limit, gathered.missing_upto)
        self._brought = gathered.reached
        return Batch([each for each in gathered.events if is_request(each)], gathered.reached)

    def _again(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        ends_at = head(connection)
        if ends_at <= after:
            return Batch((), ends_at)
        return self._store.read_upto(connection, after, limit, min(ends_at, self._brought))

    def _poll(self, records: int) -> None:
        for delivered in self._consumer.poll(timeout_ms=0, max_records=records).values():
            self._delivered += [decode(each.value, each.headers) for each in delivered]
