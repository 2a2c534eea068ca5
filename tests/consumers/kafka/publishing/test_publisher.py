"""The publisher against a real Kafka and a real PostgreSQL: it repeats, and never skips."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

import psycopg
import pytest

from consumers.kafka.chain import partition_of
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import TopicMissingError
from consumers.kafka.publishing.publisher import publish
from consumers.kafka.publishing.telling import PUBLIC
from consumers.kafka.topics import CURRENT, LOG, OWNERSHIP, Topic
from consumers.progress import FencedError
from ledger.events.catalogue import UnknownEventError, catalogue
from projections.ownership import list_ownership
from tests.consumers.kafka.publishing.support import (
    LIMITS,
    Record,
    founded,
    go_on,
    make_anew,
    one,
    publish_all,
    record,
    relay_all,
    told,
)
from tests.consumers.kafka.support import PARTITIONS, with_topics
from tests.consumers.support import count
from tests.projections.history import History
from tests.projections.models import Models, connected
from tests.support.database import DatabaseUrls

CUSTOMERS = [f"cus_{number}" for number in range(7)]
PUBLISHED = frozenset(catalogue().name_of_class(each) for each in PUBLIC)


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A cluster with the topics."""
    return with_topics(cluster)


@pytest.fixture
def history(database: DatabaseUrls) -> History:
    """A random history, which is in the log."""
    history = founded()
    go_on(history, CUSTOMERS, seed=2, steps=120)
    record(database, history)
    return history


def ids(records: Iterable[Record]) -> list[str]:
    return [each.headers["ce_id"] for each in records]


def positions(records: Iterable[Record]) -> list[int]:
    return sorted(each.body["position"] for each in records)


def public(history: History) -> list[int]:
    """Return the positions of a history that are to be told."""
    return [each.position for each in history.events if each.name in PUBLISHED]


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """Return what a subscriber holds of each customer: the highest version."""
    found: dict[str, Record] = {}
    for each in records:
        known = found.get(each.key)
        if known is None or each.body["version"] >= known.body["version"]:
            found[each.key] = each
    return found


def check_current(urls: DatabaseUrls, cluster: Cluster, history: History) -> None:
    """What subscribers hold is what the ledger's own read model says."""
    with connected(urls.service_url) as connection:
        Models(urls, connection).project(history)
        owned = {each.customer: each for each in list_ownership(connection)}
    held = latest(told(cluster, CURRENT))
    assert {
        customer: (record.body["owner"] or {"id": None})["id"] for customer, record in held.items()
    } == {customer: each.owner for customer, each in owned.items()}


def check_same_words(records: Iterable[Record]) -> None:
    """What was sent more than once was the same each time."""
    same: dict[str, Record] = {}
    for each in records:
        assert same.setdefault(each.headers["ce_id"], each) == each


class TestTelling:
    def test_every_public_decision_is_told_once_and_in_the_order_of_its_customer(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        publish_all(database, filled)
        records = told(filled, OWNERSHIP)
        assert positions(records) == public(history)
        for customer in CUSTOMERS:
            theirs = [each for each in records if each.key == customer]
            assert [each.body["position"] for each in theirs] == positions(theirs)
            assert {each.partition for each in theirs} == {partition_of(customer, PARTITIONS)}
        assert ids(records[:1]) == [f"1-{records[0].body['position']}"]

    def test_who_owns_what_now_is_what_the_read_model_says(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        publish_all(database, filled)
        check_current(database, filled, history)

    def test_nothing_is_told_that_the_log_s_topic_does_not_have(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        """A database that loses its tail gets it back from there: what was told stays true."""
        with one(database, filled) as started:
            started.catch_up()
            assert told(filled, OWNERSHIP) == []
            relay_all(database, filled)
            started.catch_up()
        assert positions(told(filled, OWNERSHIP)) == public(history)

    def test_an_event_of_a_newer_version_stops_it_for_it_may_be_public(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        history = founded()
        history.raw("ownership-cus_1", "OwnershipSplit.v1", b'{"data":{}}')
        record(database, history)
        relay_all(database, filled)
        with pytest.raises(UnknownEventError), one(database, filled) as started:
            started.catch_up()

    def test_a_topic_that_is_missing_is_no_reason_to_wait(
        self, database: DatabaseUrls, cluster: Cluster
    ) -> None:
        stop = threading.Event()
        with pytest.raises(TopicMissingError, match=OWNERSHIP.name(cluster.topic_prefix)):
            publish(
                lambda: psycopg.connect(database.service_url, autocommit=True),
                *(cluster, catalogue(), stop, stop.wait, LIMITS),
            )


class TestGoingOn:
    def test_a_restart_goes_on_where_the_one_before_stopped(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        publish_all(database, filled)
        go_on(history, ["cus_8", "cus_9"], seed=3, steps=40)
        history.release("cus_1", "no_need")
        record(database, history)
        publish_all(database, filled)
        assert positions(told(filled, OWNERSHIP)) == public(history)
        check_current(database, filled, history)

    def test_what_was_acknowledged_before_an_end_is_told_again_in_the_same_words(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        """How customers stood is as of the checkpoint too, and not of what was sent behind it."""
        relay_all(database, filled)
        batches = iter([True, True, False])

        def die() -> None:
            if not next(batches):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), one(database, filled, die) as started:
            started.catch_up()
        publish_all(database, filled)
        records = told(filled, OWNERSHIP)
        assert len(records) > len(set(ids(records)))
        assert sorted(set(positions(records))) == public(history)
        check_same_words(records)
        check_same_words(told(filled, CURRENT))
        check_current(database, filled, history)

    def test_an_older_publisher_tells_nothing_by_what_a_newer_one_knows(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        """It told old decisions with the owners and ids of later ones, under the same ce_id."""
        relay_all(database, filled)
        with one(database, filled) as older, one(database, filled) as newer:
            newer.catch_up()
            with pytest.raises(FencedError):
                older.run_once()
        assert positions(told(filled, OWNERSHIP)) == public(history)

    def test_what_an_older_one_had_at_hand_does_no_harm(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        def let_another_take_over() -> None:
            publish_all(database, filled)

        relay_all(database, filled)
        with one(database, filled, let_another_take_over) as older, pytest.raises(FencedError):
            older.run_once()
        records = told(filled, OWNERSHIP)
        assert len(records) > len(set(ids(records)))
        check_same_words(records)
        check_current(database, filled, history)
        assert reached(database, filled, OWNERSHIP) == history.position


class TestLostTopic:
    def test_it_is_filled_again_from_the_log_and_the_other_one_is_not(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        publish_all(database, filled)
        before = told(filled, CURRENT)
        make_anew(filled, CURRENT)
        history.release("cus_1", "no_need")
        record(database, history)
        publish_all(database, filled)
        after = told(filled, CURRENT)
        assert {each.headers["topic_id"] for each in before}.isdisjoint(
            each.headers["topic_id"] for each in after
        )
        assert positions(after)[: len(before)] == positions(before)
        assert sorted(map(str, (each.body for each in before))) == sorted(
            str(each.body) for each in after if each.body["position"] < history.position - 1
        )
        assert positions(told(filled, OWNERSHIP)) == public(history)
        check_current(database, filled, history)

    def test_other_topics_are_filled_from_the_beginning_and_the_former_ones_go_on(
        self, database: DatabaseUrls, filled: Cluster, history: History
    ) -> None:
        """How customers stand is kept once, and whoever goes on behind it folds it anew."""
        publish_all(database, filled)
        others = with_topics(replace(filled, topic_prefix=f"{filled.topic_prefix}-2"))
        history.release("cus_1", "no_need")
        record(database, history)
        publish_all(database, others)
        assert positions(told(others, OWNERSHIP)) == public(history)
        publish_all(database, filled)
        assert positions(told(filled, OWNERSHIP)) == public(history)
        check_current(database, filled, history)
        here, there = (
            {each.body["position"]: each.body for each in told(cluster, CURRENT)}
            for cluster in (filled, others)
        )
        assert here == there


def reached(urls: DatabaseUrls, cluster: Cluster, topic: Topic = LOG) -> int:
    """Return the checkpoint of a topic."""
    name = topic.name(cluster.topic_prefix)
    return count(urls, "SELECT coalesce(max(position), 0) FROM ledger.relay WHERE topic = %s", name)
