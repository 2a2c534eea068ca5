"""Filling a topic from the log: how far it has come, and sending until all is acknowledged.

For the relay and the publisher. Each topic has a row in ``ledger.relay``, whose epoch rises with
each that takes over: an older one cannot move it any more.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kafka.errors import KafkaTimeoutError
from psycopg import Connection

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import (
    RelayInterruptedError,
    TopicMissingError,
    TopicPartitionsError,
)
from consumers.kafka.records import Encoded
from consumers.kafka.topics import identity
from consumers.progress import FencedError

_log = logging.getLogger(__name__)

_CLOSE_SECONDS_MAX = 5.0

_MAKE = "INSERT INTO ledger.relay (topic) VALUES (%s) ON CONFLICT DO NOTHING"
_TAKE = """
UPDATE ledger.relay SET epoch = epoch + 1 WHERE topic = %s
RETURNING epoch, position, partitions, topic_id
"""
# The topic was made, or made anew: it has nothing of what the checkpoint speaks of.
_BEGIN = "UPDATE ledger.relay SET position = 0, partitions = %s, topic_id = %s WHERE topic = %s"
_MOVE = "UPDATE ledger.relay SET position = %s WHERE topic = %s AND epoch = %s AND position = %s"
_IS_OURS = "SELECT FROM ledger.relay WHERE topic = %s AND epoch = %s"
# What a crash of the server takes away of the checkpoint is sent again.
_DO_NOT_WAIT_FOR_THE_DISK = "SELECT set_config('synchronous_commit', 'off', false)"
_ALIVE = "SELECT 1"


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as the cluster has it."""

    name: str
    topic_id: UUID
    partitions: int


@dataclass(slots=True)
class Filled:
    """Up to which position a topic is filled, by whom; ``anew`` says that it was not so before."""

    topic: str
    epoch: int
    position: int
    anew: bool = False


def describe(cluster: Cluster, topic: str) -> Described:
    """Return the id and the number of partitions of a topic; raises TopicMissingError."""
    found = identity(cluster, topic)
    if found is None:
        raise TopicMissingError(topic)
    return Described(topic, *found)


def take_over(connection: Connection[Any], topic: Described) -> Filled:
    """Take a new epoch of a topic, in the caller's transaction.

    One that was made anew begins at 0. Raises TopicPartitionsError.
    """
    name = topic.name
    connection.execute(_MAKE, (name,))
    row = connection.execute(_TAKE, (name,)).fetchone()
    if row is None:
        raise AssertionError(f"there is no row of {name}")
    epoch, position, known_partitions, known_id = row
    if known_partitions not in (None, topic.partitions):
        raise TopicPartitionsError(name, topic.partitions, known_partitions)
    if known_id == topic.topic_id:
        return Filled(name, epoch, position)
    if known_id is not None:
        _log.warning("%s was made anew, and is filled from the log", name)
    connection.execute(_BEGIN, (topic.partitions, topic.topic_id, name))
    return Filled(name, epoch, 0, anew=True)


def move(connection: Connection[Any], filled: Filled, position: int, consumer: str) -> None:
    """Move the checkpoint, in the caller's transaction; ``filled`` is left to the caller.

    Raises FencedError where another ``consumer`` has taken over.
    """
    values = (position, filled.topic, filled.epoch, filled.position)
    if connection.execute(_MOVE, values, prepare=True).rowcount != 1:
        raise FencedError(consumer)


def check_ours(connection: Connection[Any], filled: Filled, consumer: str) -> None:
    """Return where nobody has taken over: what was read before was written by nobody else.

    Raises FencedError where another ``consumer`` has.
    """
    values = (filled.topic, filled.epoch)
    if connection.execute(_IS_OURS, values, prepare=True).rowcount != 1:
        raise FencedError(consumer)


class Sender:
    """Sends records, each to be acknowledged by every copy in sync; for one thread.

    ``connection`` is that on which its user leads: the commits there no longer wait for the disk.
    """

    def __init__(
        self, connection: Connection[Any], cluster: Cluster, delivery_seconds_max: float
    ) -> None:
        connection.execute(_DO_NOT_WAIT_FOR_THE_DISK)
        self._connection = connection
        self._flush_seconds_max = 2 * delivery_seconds_max
        self._producer = cluster.producer(
            acks="all",
            enable_idempotence=True,
            # What is sent is flushed when a batch is complete. Until then it gathers in few and
            # large requests: with a short time to linger, half of all went into waking the sender.
            linger_ms=1_000,
            batch_size=256 * 1_024,
            max_block_ms=5_000,
            request_timeout_ms=round(delivery_seconds_max * 500),
            delivery_timeout_ms=round(delivery_seconds_max * 1_000),
        )

    def send(self, topic: str, partition: int, encoded: Encoded) -> Any:
        """Begin to send a record, and return its future."""
        key, value, headers = encoded
        return self._producer.send(
            topic, value=value, key=key, headers=headers, partition=partition
        )

    def flush(self, stop: threading.Event) -> None:
        """Wait until everything sent is acknowledged or will not be; or until the stop.

        Meanwhile the database is asked something from time to time: it would end a session that
        says nothing, and this process would lead no more while Kafka is away.

        When a broker comes back, kafka-python seldom forgets records for ever, and neither sends
        them nor lets them expire. What has no answer then long behind its time counts as lost.
        """
        deadline = time.monotonic() + self._flush_seconds_max
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                self._producer.flush(timeout=1)
            except KafkaTimeoutError:
                self._connection.execute(_ALIVE, prepare=True)
            else:
                return

    def close(self) -> None:
        """Let go of the cluster, without waiting for what it has not acknowledged."""
        # The client's own close waits for that first, and where it waits in vain closes nothing:
        # its thread would go on sending. There is no public way to give the rest up.
        self._producer._sender.force_close()
        try:
            self._producer.close(timeout=_CLOSE_SECONDS_MAX)
        except KafkaTimeoutError:
            _log.warning("a producer has not let go in %.0f seconds", _CLOSE_SECONDS_MAX)


class Filler(ABC):
    """What relay and publisher do alike: batch after batch, with one sender, up to the stop."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._sender: Sender | None = None

    @abstractmethod
    def run_once(self) -> int:
        """Fill in one batch; return how many events of the log it had."""

    def catch_up(self) -> None:
        """Fill in until nothing is left."""
        while self.run_once():
            pass

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Fill in until ``stop`` is set; ``wait(seconds)`` returns early when there may be news."""
        self._stop = stop
        while not stop.is_set():
            if not self.run_once():
                wait(self._poll_seconds)

    def close(self) -> None:
        """Let go of the cluster, without waiting for what it has not acknowledged."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()


def failure_of(future: Any) -> Exception | None:
    """Return why a record is not acknowledged, None if it is."""
    if not future.is_done:
        return TimeoutError("it was not acknowledged in time")
    failure: Exception | None = future.exception if future.failed() else None
    return failure


def raise_first(topic: str, failures: Sequence[Exception | None]) -> None:
    """Raise RelayInterruptedError where something was not acknowledged."""
    for failure in failures:
        if failure is not None:
            raise RelayInterruptedError(topic, failure) from failure
