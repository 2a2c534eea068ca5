"""What every feed does, wherever it has the log from: one suite for the store's and for Kafka's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import psycopg
import pytest
from kafka import TopicPartition

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.feed import Batch, Feed, StoreFeed, is_request
from consumers.kafka.chain import key_of, partition_of
from consumers.kafka.connecting import Cluster
from consumers.kafka.local import LocalKafka
from consumers.kafka.relay import relaying
from consumers.kafka.topics import LOG
from consumers.progress import Part
from ledger.envelope import StoredEvent
from tests.consumers.kafka.support import (
    PARTITIONS,
    QUICK,
    DeliveredFeed,
    cluster_for_a_test,
    log,
    with_topics,
)
from tests.consumers.support import check, enforcing, grants
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger
from tests.support.processes import wait_until


def belongs(stream: str, partition: int) -> bool:
    return partition_of(key_of(stream), PARTITIONS) == partition


@dataclass
class Source:
    """Feeds of each partition of one log, and what brings them up to date."""

    urls: DatabaseUrls
    cluster: Cluster | None
    stack: ExitStack = field(default_factory=ExitStack)

    def feed(self, partition: int) -> Feed:
        """Return a new feed of one partition."""
        if self.cluster is None:
            return StoreFeed(lambda stream: belongs(stream, partition))
        return self.stack.enter_context(DeliveredFeed(self.cluster, partition))

    def relay(self) -> None:
        """Bring what is in the log to where the feeds read it."""
        if self.cluster is not None:
            with (
                psycopg.connect(self.urls.service_url, autocommit=True) as connection,
                relaying(connection, self.cluster, QUICK) as relay,
            ):
                relay.catch_up()

    def requests(self, partition: int) -> list[StoredEvent]:
        """Return what a feed of the partition is to bring."""
        return [
            each for each in log(self.urls) if is_request(each) and belongs(each.stream, partition)
        ]

    def read(self, feed: Feed, after: int = 0, limit: int = 3) -> list[Batch]:
        """Read until the feed has come to the end of the log; the batches that had something."""
        batches: list[Batch] = []
        head = len(log(self.urls))
        with psycopg.connect(self.urls.service_url, autocommit=True) as connection:

            def is_at_the_end() -> bool:
                reached = batches[-1].reached if batches else after
                if reached == head:
                    return True
                batch = feed.read(connection, reached, limit)
                if batch.reached != reached:
                    batches.append(batch)
                return False

            wait_until(is_at_the_end)
            last = feed.read(connection, head, limit)
            assert (list(last.requests), last.reached) == ([], head)
        return batches


@pytest.fixture(params=["store", "kafka"])
def source(request: pytest.FixtureRequest, ledger: TestLedger) -> Iterator[Source]:
    cluster = None
    if request.param == "kafka":
        kafka: LocalKafka = request.getfixturevalue("kafka")
        cluster = with_topics(cluster_for_a_test(kafka))
    source = Source(ledger.urls, cluster)
    with source.stack:
        yield source


def work(ledger: TestLedger, customers: int = 10) -> None:
    """Record customers and claims, and decide them: requests, facts and decisions in one log."""
    for number in range(customers):
        ledger.claim(ledger.register(f"客户{number}"), f"per_{number % 5}")
        if number % 3 == 0:
            ledger.decide()
    ledger.decide()


def positions(batches: list[Batch]) -> list[int]:
    return [each.position for batch in batches for each in batch.requests]


class TestEveryFeed:
    def test_it_brings_every_request_of_its_part_once_and_in_order(
        self, ledger: TestLedger, source: Source
    ) -> None:
        work(ledger)
        source.relay()
        brought: list[StoredEvent] = []
        for partition in range(PARTITIONS):
            batches = source.read(source.feed(partition))
            requests = [each for batch in batches for each in batch.requests]
            assert requests == source.requests(partition)
            brought += requests
        assert sorted(brought) == [each for each in log(ledger.urls) if is_request(each)]

    def test_a_batch_has_no_more_than_was_asked_for_and_reaches_what_it_brings(
        self, ledger: TestLedger, source: Source
    ) -> None:
        work(ledger)
        source.relay()
        before = 0
        for batch in source.read(source.feed(0), limit=2):
            assert len(batch.requests) <= 2
            assert all(before < each.position <= batch.reached for each in batch.requests)
            before = batch.reached

    def test_it_begins_wherever_its_consumer_stands(
        self, ledger: TestLedger, source: Source
    ) -> None:
        work(ledger)
        source.relay()
        # Ids are made up each time: any one partition may have got nothing.
        fullest = max(range(PARTITIONS), key=lambda number: len(source.requests(number)))
        expected = [each.position for each in source.requests(fullest)]
        for after in (1, expected[0], expected[0] - 1, expected[-1]):
            batches = source.read(source.feed(fullest), after)
            assert positions(batches) == [each for each in expected if each > after]

    def test_it_goes_on_when_there_is_more(self, ledger: TestLedger, source: Source) -> None:
        feed = source.feed(2)
        work(ledger, 4)
        source.relay()
        first = source.read(feed)
        work(ledger, 4)
        source.relay()
        second = source.read(feed, first[-1].reached)
        assert positions(first + second) == [each.position for each in source.requests(2)]

    def test_a_batch_that_was_rolled_back_comes_again(
        self, ledger: TestLedger, source: Source
    ) -> None:
        """A consumer whose transaction failed stands where it stood."""
        work(ledger)
        source.relay()
        feed = source.feed(0)
        first = source.read(feed)
        assert positions(source.read(feed)) == positions(first)

    def test_a_log_that_has_lost_its_tail_is_told_by_how_far_it_goes(
        self, ledger: TestLedger, source: Source
    ) -> None:
        work(ledger, 1)
        source.relay()
        head = len(log(ledger.urls))
        beyond = source.feed(0).read(ledger.connection, head + 5, 10)
        assert (list(beyond.requests), beyond.reached) == ([], head)


class TestKafka:
    """What only Kafka does to those who follow it."""

    @pytest.fixture
    def source(self, ledger: TestLedger, kafka: LocalKafka) -> Iterator[Source]:
        source = Source(ledger.urls, with_topics(cluster_for_a_test(kafka)))
        with source.stack:
            yield source

    def test_what_has_expired_is_read_from_the_store(
        self, ledger: TestLedger, source: Source
    ) -> None:
        work(ledger)
        source.relay()
        expire(source)
        work(ledger, 3)
        source.relay()
        for partition in range(PARTITIONS):
            batches = source.read(source.feed(partition))
            assert positions(batches) == [each.position for each in source.requests(partition)]

    def test_with_nothing_but_marks_left_nothing_is_missed(
        self, ledger: TestLedger, source: Source
    ) -> None:
        """The marks that a relay sends when it begins stand behind all that has expired."""
        work(ledger)
        source.relay()
        expire(source)
        source.relay()
        for partition in range(PARTITIONS):
            batches = source.read(source.feed(partition))
            assert positions(batches) == [each.position for each in source.requests(partition)]

    def test_what_comes_twice_is_brought_once(self, ledger: TestLedger, source: Source) -> None:
        work(ledger)
        source.relay()
        ledger.connection.execute("UPDATE ledger.relay SET position = 0")
        ledger.connection.execute("UPDATE ledger.relay_partitions SET position = 0")
        source.relay()
        for partition in range(PARTITIONS):
            batches = source.read(source.feed(partition))
            assert positions(batches) == [each.position for each in source.requests(partition)]

    def test_enforcers_of_all_partitions_decide_all_of_it(
        self, ledger: TestLedger, source: Source
    ) -> None:
        """One after the other, each with a part of the progress, which was whole before."""
        ledger.decide()
        progress.divide(ledger.connection, CONSUMER, PARTITIONS)
        customers = [ledger.register(f"客户{number}") for number in range(12)]
        for number, customer in enumerate(customers):
            ledger.claim(customer, f"per_{number % 3}")
            ledger.claim(customer, "per_4")
        head = len(log(ledger.urls))
        source.relay()
        for partition in range(PARTITIONS):
            feed = source.feed(partition)
            decide_up_to(ledger, feed, partition, head)
        assert grants(ledger) == dict.fromkeys(customers, 1)
        assert progress.reached(ledger.connection, CONSUMER) == head
        check(ledger)


def decide_up_to(ledger: TestLedger, feed: Feed, partition: int, position: int) -> None:
    """Let an enforcer of one partition decide what the feed brings, up to a position."""
    with enforcing(ledger, feed=feed, part=Part(partition, PARTITIONS)) as enforcer:

        def is_there() -> bool:
            enforcer.run_once()
            return enforcer.position >= position

        wait_until(is_there)


def expire(source: Source) -> None:
    """Take all that is in the topic away from its front, as retention does."""
    assert source.cluster is not None
    name = LOG.name(source.cluster.topic_prefix)
    at = [TopicPartition(name, number) for number in range(PARTITIONS)]
    with source.cluster.admin() as admin:
        admin.delete_records(dict.fromkeys(at, -1))
    with source.cluster.consumer() as consumer:
        wait_until(lambda: consumer.beginning_offsets(at) == consumer.end_offsets(at))
