"""What others write into the log's topic is put aside, and whoever reads it goes on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import Connection

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.kafka import dead_letters
from consumers.kafka.chain import Placed
from consumers.kafka.connecting import Cluster
from consumers.kafka.dead_letters import (
    Place,
    Unreadable,
    drop,
    keep,
    keep_all,
    read_again,
    readable,
)
from consumers.kafka.records import Linked, UnreadableRecordError, encode
from consumers.kafka.relay import Relay, relaying
from consumers.kafka.topics import LOG
from consumers.progress import Part
from tests.consumers.kafka.support import PARTITIONS, QUICK, DeliveredFeed, log, with_topics
from tests.consumers.support import check, enforcing, grants
from tests.support.ledgers import TestLedger
from tests.support.processes import wait_until

Rubbish = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
RUBBISH: list[Rubbish] = [
    (None, b'{"owner": "somebody"}', []),
    (b"cus_1", None, [("link", b""), ("trace-id", b"\x00\xff")]),
    (b"", b"\xfe" * 70_000, [("link", b"1 0"), ("entry", b"1 2 3")]),
    (b"cus_1", b"guishu/1 1 0 2 3", []),
]
"""What a producer sends that knows nothing of how records look here."""


class Sent(NamedTuple):
    """A record as a client delivers it."""

    topic: str = "test.log.v1"
    partition: int = 0
    offset: int = 7
    key: bytes | None = b"cus_1"
    value: bytes | None = b"{}"
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - nobody changes it


PLACE = Place("test.log.v1", 0, 7)


def rows(ledger: TestLedger, columns: str) -> list[tuple[Any, ...]]:
    statement = f"SELECT {columns} FROM ledger.dead_letters ORDER BY partition, record_offset"  # noqa: S608
    return ledger.connection.execute(statement.encode()).fetchall()


def put_aside(ledger: TestLedger, *records: Sent) -> None:
    unreadable: Unreadable = deque()
    assert readable(records, unreadable) == []
    keep_all(ledger.connection, unreadable)
    assert not unreadable


@pytest.fixture
def topics(cluster: Cluster) -> Cluster:
    return with_topics(cluster, PARTITIONS)


@contextmanager
def relayed(ledger: TestLedger, cluster: Cluster) -> Iterator[Relay]:
    with (
        psycopg.connect(ledger.urls.service_url, autocommit=True) as connection,
        relaying(connection, cluster, QUICK) as opened,
    ):
        yield opened


def throw_in(cluster: Cluster, rubbish: Sequence[Rubbish] = ()) -> None:
    """Write rubbish into each partition, as somebody who has mistaken the topic."""
    with cluster.producer() as producer:
        for partition in range(PARTITIONS):
            for key, value, headers in rubbish or RUBBISH:
                producer.send(
                    LOG.name(cluster.topic_prefix),
                    key=key,
                    value=value,
                    headers=headers,
                    partition=partition,
                )
        producer.flush()


@contextmanager
def feed(cluster: Cluster, partition: int) -> Iterator[DeliveredFeed]:
    with DeliveredFeed(cluster, partition) as opened:
        yield opened


def test_the_feed_goes_on_and_the_rubbish_is_put_aside(ledger: TestLedger, topics: Cluster) -> None:
    """One record of somebody else stopped the enforcer of its partition for good."""
    ledger.decide()
    progress.divide(ledger.connection, CONSUMER, PARTITIONS)
    customers = [ledger.register(f"客户{number}") for number in range(6)]
    with relayed(ledger, topics) as relay:
        relay.catch_up()
        throw_in(topics)
        for customer in customers:
            ledger.claim(customer, "per_1")
        head = len(log(ledger.urls))
        relay.catch_up()
    for partition in range(PARTITIONS):
        with (
            feed(topics, partition) as opened,
            enforcing(ledger, feed=opened, part=Part(partition, PARTITIONS)) as enforcer,
        ):

            def all_decided(enforcer: Any = enforcer) -> bool:
                enforcer.run_once()
                return bool(enforcer.position >= head)

            wait_until(all_decided)
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)
    kept = rows(ledger, "partition, octet_length(value), is_whole, code, attempts")
    expected = [
        (21, True, "record_foreign"),
        (None, True, "record_unreadable"),
        (65_536, False, "record_unreadable"),
        (16, True, "record_unreadable"),
    ]
    assert kept == [(partition, *each, 1) for partition in range(PARTITIONS) for each in expected]


def test_a_relay_begins_behind_what_others_wrote(ledger: TestLedger, topics: Cluster) -> None:
    """It asks the topic first whether the log has lost its tail, and ended for good."""
    ledger.register("甲公司")
    with relayed(ledger, topics) as relay:
        relay.catch_up()
    throw_in(topics, RUBBISH[:1])
    ledger.register("乙公司")
    with relayed(ledger, topics) as relay:
        relay.catch_up()
        assert relay.position == len(log(ledger.urls))


def test_what_may_be_of_another_version_stops_a_relay_that_begins(
    ledger: TestLedger, topics: Cluster
) -> None:
    """It may tell of a position that the log has lost."""
    throw_in(topics, RUBBISH[1:])
    with pytest.raises(UnreadableRecordError), relayed(ledger, topics):
        pass


def test_what_the_database_did_not_take_is_kept_later_and_hides_nothing(
    ledger: TestLedger, topics: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was delivered with it would wait for the next event of its partition."""
    with relayed(ledger, topics) as relay:
        throw_in(topics)
        ledger.register("甲公司")
        relay.catch_up()
    head = len(log(ledger.urls))
    failures = [psycopg.OperationalError("gone")]

    def failing(connection: Connection[Any], *record: Any) -> None:
        if failures:
            raise failures.pop()
        keep(connection, *record)

    monkeypatch.setattr(dead_letters, "keep", failing)
    for partition in range(PARTITIONS):
        failures[:] = [psycopg.OperationalError("gone")]
        with feed(topics, partition) as opened:
            reached = [0]

            def is_there(opened: DeliveredFeed = opened, reached: list[int] = reached) -> bool:
                try:
                    reached.append(opened.read(ledger.connection, reached[-1], 10).reached)
                except psycopg.OperationalError:
                    assert not failures
                return reached[-1] == head

            wait_until(is_there)
        assert not failures
    assert len(rows(ledger, "code")) == PARTITIONS * len(RUBBISH)


def test_what_is_met_again_was_tried_once_more(ledger: TestLedger) -> None:
    put_aside(ledger, Sent())
    put_aside(ledger, Sent(), Sent(offset=8))
    assert rows(ledger, "record_offset, attempts, first_seen < last_seen") == [
        (7, 2, True),
        (8, 1, False),
    ]


def test_another_record_at_the_same_place_begins_anew(ledger: TestLedger) -> None:
    """In a topic that was made anew."""
    put_aside(ledger, Sent())
    put_aside(ledger, Sent())
    put_aside(ledger, Sent(value=b"other"))
    assert rows(ledger, "value, attempts, first_seen = last_seen") == [(b"other", 1, True)]


def test_more_than_so_many_are_not_kept(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "KEPT_MAX", 2)
    with caplog.at_level(logging.WARNING):
        put_aside(ledger, *(Sent(offset=number) for number in range(3)))
    assert rows(ledger, "record_offset") == [(0,), (1,)]
    assert "it is not kept" in caplog.text
    put_aside(ledger, Sent(offset=1))
    assert rows(ledger, "attempts") == [(1,), (2,)]
    drop(ledger.connection, PLACE._replace(offset=0))
    put_aside(ledger, Sent(offset=2))
    assert rows(ledger, "record_offset, dropped IS NULL") == [(0, False), (1, True), (2, True)]


def test_of_what_is_dropped_nobody_hears_again(ledger: TestLedger) -> None:
    put_aside(ledger, Sent(headers=[("a", b"b")]))
    assert drop(ledger.connection, PLACE)
    assert not drop(ledger.connection, PLACE)
    put_aside(ledger, Sent(headers=[("a", b"b")]))
    assert rows(ledger, "key, value, headers, attempts") == [(None, None, b"[]", 1)]
    assert read_again(ledger.connection, PLACE) is None
    put_aside(ledger, Sent())
    assert rows(ledger, "value, dropped") == [(b"{}", None)]


@pytest.mark.parametrize(
    "sent",
    [
        Sent(key=b"k" * 65_537),
        Sent(value=b"v" * 65_537),
        Sent(headers=[("name", b"h" * 100_000), ("link", b"1 0")]),
        Sent(headers=[("\x00" * 30_000, b"")]),
    ],
)
def test_what_is_longer_than_any_of_ours_is_cut_and_never_read(
    ledger: TestLedger, sent: Sent
) -> None:
    put_aside(ledger, sent)
    ((is_whole, size),) = rows(ledger, "is_whole, bytes")
    assert not is_whole
    assert size > 60_000 or sent.headers[0][0] != "name"
    with pytest.raises(UnreadableRecordError, match="only its beginning"):
        read_again(ledger.connection, PLACE)


def test_the_words_of_an_error_are_storable(ledger: TestLedger) -> None:
    put_aside(ledger, Sent(headers=[("link", b"\x00 0")]))
    assert len(rows(ledger, "words")) == 1


def test_what_can_be_read_by_now_is_taken_off(ledger: TestLedger) -> None:
    """As where a version before this one did not know how."""
    event = log(ledger.urls)[0]
    encoded = encode(Placed(event, 0, 0), 1)
    sent = Sent(key=encoded.key, value=encoded.value, headers=[*encoded.headers])
    keep(ledger.connection, sent, UnreadableRecordError("of old", way_out=""))
    put_aside(ledger, Sent(offset=8))
    assert read_again(ledger.connection, PLACE) == Linked(event, 1, 0)
    with pytest.raises(UnreadableRecordError, match="KeyError"):
        read_again(ledger.connection, PLACE._replace(offset=8))
    assert rows(ledger, "record_offset, attempts") == [(8, 2)]
    assert read_again(ledger.connection, PLACE) is None
