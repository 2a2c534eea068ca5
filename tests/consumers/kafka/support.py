"""What the tests of Kafka share: a cluster's topics for one test, and what stands in them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from kafka import TopicPartition
from psycopg import Connection

from consumers.enforcer import EnforcerLimits
from consumers.feed import Batch
from consumers.kafka.connecting import Cluster
from consumers.kafka.enforcing import PartitionsLimits, enforce_partitions
from consumers.kafka.feed import KafkaFeed, Known
from consumers.kafka.local import LocalKafka
from consumers.kafka.membership import MembershipLimits
from consumers.kafka.records import Linked, Mark, decode
from consumers.kafka.relay import RelayLimits, relay
from consumers.kafka.topics import LOG, apply_topics
from ledger.envelope import StoredEvent
from ledger.store.committer import CommitterThread
from ledger.store.generations import open_generation
from ledger.store.reading import read_after
from tests.consumers.support import count
from tests.ledger.store.support import asked, event
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger
from tests.support.processes import wait_until

PARTITIONS = 3
_DECIDED = "SELECT coalesce(min(position), 0) FROM ledger.consumer_progress"
RELAY = "relaying-process"
"""The application name of the connections of the relay in another process."""

QUICK = RelayLimits(
    pause_seconds_min=0.01,
    pause_seconds_max=0.1,
    standby_seconds=0.02,
    batch_events_max=20,
    poll_seconds=0.01,
    mark_seconds=0.0,
    delivery_seconds_max=5.0,
)

# One stands by longer than the other one pauses, and is not let in by an idle session meanwhile.
LOOKING_SELDOM = replace(
    QUICK, standby_seconds=0.5, idle_seconds_max=60.0, delivery_seconds_max=2.0
)

QUICK_ENFORCERS = PartitionsLimits(
    pause_seconds_min=0.01,
    pause_seconds_max=0.1,
    standby_seconds=0.02,
    enforcer=EnforcerLimits(batch_requests_max=20, poll_seconds=0.05),
    member=MembershipLimits(session_seconds_max=1.5, heartbeat_seconds=0.3),
    fenced_seconds=0.2,
    commit_seconds=0.05,
)


def cluster_for_a_test(kafka: LocalKafka) -> Cluster:
    """Return the session's cluster, with names of topics that no other test has."""
    return Cluster(kafka.bootstrap, f"test-{secrets.token_hex(6)}")


def with_topics(cluster: Cluster, partitions: int = PARTITIONS) -> Cluster:
    """Make the topics of a cluster, and return it."""
    apply_topics(cluster, partitions)
    return cluster


def append(urls: DatabaseUrls, count: int, customers: Sequence[str] = "abcdefg") -> int:
    """Append requests about these customers in turn; return the position of the last.

    A generation is opened first, as each start of a process does.
    """
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        open_generation(connection)
    return append_only(urls, count, customers)


def append_only(urls: DatabaseUrls, count: int, customers: Sequence[str] = "abcdefg") -> int:
    """Append as ``append``, to a database on whose server no process has started yet."""
    with CommitterThread(urls.service_url) as committer:
        results = committer.append_many(
            [
                asked(None, event(f"customer-{customers[n % len(customers)]}", b"%d" % n))
                for n in range(count)
            ]
        )
    return max(each.first_position for each in results)  # type: ignore[union-attr]


def log(urls: DatabaseUrls) -> list[StoredEvent]:
    """Return the whole log."""
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        return read_after(connection, 0, 100_000)


def topic(cluster: Cluster, partitions: int = PARTITIONS) -> list[list[Linked | Mark]]:
    """Return all that stands in the log's topic, a list for each partition."""
    found = records_of(cluster, LOG.name(cluster.topic_prefix), partitions)
    return [[decode(each.value, each.headers) for each in records] for records in found]


def records_of(cluster: Cluster, name: str, partitions: int = PARTITIONS) -> list[list[Any]]:
    """Return all records of a topic, as kafka-python has them, a list for each partition."""
    at = [TopicPartition(name, number) for number in range(partitions)]
    found: list[list[Any]] = [[] for _ in at]
    with cluster.consumer(auto_offset_reset="earliest") as consumer:
        consumer.assign(at)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(at)
        deadline = time.monotonic() + 60
        while any(consumer.position(each) < ends[each] for each in at):
            assert time.monotonic() < deadline
            for where, records in consumer.poll(timeout_ms=100).items():
                found[where.partition] += records
    return found


def events_of(records: Iterable[Linked | Mark]) -> list[Linked]:
    """Return the events among records."""
    return [each for each in records if isinstance(each, Linked)]


def read_as_a_consumer(records: Iterable[Linked | Mark]) -> list[StoredEvent]:
    """Return what a reader takes: what it has seen is dropped, and nothing may be missing."""
    taken: list[StoredEvent] = []
    reached = 0
    for each in records:
        if isinstance(each, Mark):
            assert each.previous <= reached, "something is missing in front"
            reached = max(reached, each.upto)
        elif each.event.position > reached:
            assert each.previous <= reached, "something is missing in front"
            taken.append(each.event)
            reached = each.event.position
    return taken


def check_topic(cluster: Cluster, urls: DatabaseUrls) -> None:
    """The topic has the whole log, byte for byte, with nothing missing in any partition."""
    partitions = topic(cluster)
    taken = [read_as_a_consumer(each) for each in partitions]
    assert sorted(event for each in taken for event in each) == log(urls)
    for records in partitions:
        same: dict[int, Linked] = {}
        for each in events_of(records):
            assert same.setdefault(each.event.position, each) == each


@contextmanager
def running(
    urls: DatabaseUrls,
    cluster: Cluster,
    name: str = "thread",
    limits: RelayLimits = QUICK,
    acknowledged: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Let a thread relay beside the block, as a process does; raises what has ended it."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            relay(
                lambda: psycopg.connect(urls.service_url, autocommit=True, application_name=name),
                *(cluster, stop, stop.wait, limits),
                acknowledged=acknowledged,
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def enforcing_thread(
    ledger: TestLedger, cluster: Cluster, name: str = "thread"
) -> Iterator[threading.Event]:
    """An enforcer of partitions in a thread, and an event for its end; raises what has ended it."""
    stop, ended, failures = threading.Event(), threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            enforce_partitions(
                lambda: psycopg.connect(
                    ledger.urls.service_url, autocommit=True, application_name=name
                ),
                *(cluster, ledger.catalogue, stop, QUICK_ENFORCERS),
            )
        except BaseException as error:
            failures.append(error)
        ended.set()

    started = threading.Thread(target=work)
    started.start()
    try:
        yield ended
    finally:
        stop.set()
        started.join()
    if failures:
        raise failures[0]


def wait_until_decided(ledger: TestLedger) -> None:
    """Return when all that is recorded now has been decided."""
    head = len(ledger.log())
    wait_until(lambda: count(ledger.urls, _DECIDED) >= head)


def wait_until_relayed(urls: DatabaseUrls, cluster: Cluster) -> None:
    """Return when all that is recorded now stands in the log's topic."""
    head = len(log(urls))
    relayed = "SELECT coalesce(max(position), 0) FROM ledger.relay WHERE topic = %s"
    wait_until(lambda: count(urls, relayed, LOG.name(cluster.topic_prefix)) >= head)


class DeliveredFeed:
    """A Kafka feed, and a consumer that hands over to it what its partition has, from its front."""

    def __init__(self, cluster: Cluster, partition: int) -> None:
        self._cluster = cluster
        self._at = TopicPartition(LOG.name(cluster.topic_prefix), partition)
        self._feed = KafkaFeed(partition, PARTITIONS, Known())

    def __enter__(self) -> DeliveredFeed:
        self._consumer = self._cluster.consumer(auto_offset_reset="earliest")
        self._consumer.assign([self._at])
        self._consumer.seek_to_beginning(self._at)
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        for delivered in self._consumer.poll().values():
            self._feed.deliver(delivered)
        return self._feed.read(connection, after, limit)
