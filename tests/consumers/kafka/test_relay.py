"""The relay against a real Kafka and a real PostgreSQL: it repeats, and never skips."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import psycopg
import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import (
    RelayInterruptedError,
    TailLostError,
    TopicMissingError,
    TopicPartitionsError,
)
from consumers.kafka.local import LocalKafka
from consumers.kafka.records import Linked, Mark
from consumers.kafka.relay import Relay, RelayLimits, relay, relaying
from consumers.kafka.topics import LOG, apply_topics
from consumers.progress import FencedError
from tests.consumers.kafka.support import (
    PARTITIONS,
    QUICK,
    RELAY,
    append,
    check_topic,
    events_of,
    running,
    topic,
    with_topics,
)
from tests.consumers.support import count
from tests.support.database import DatabaseUrls
from tests.support.processes import start, wait_until

_LEADERS = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
AND l.classid::bigint = hashtext('guishu relay')::bigint & 4294967295 AND a.application_name = %s
"""


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A cluster with the topics."""
    return with_topics(cluster)


@contextmanager
def one(urls: DatabaseUrls, cluster: Cluster, limits: RelayLimits = QUICK) -> Iterator[Relay]:
    """A relay that has taken over, on a connection of its own."""
    with (
        psycopg.connect(urls.service_url, autocommit=True) as connection,
        relaying(connection, cluster, limits) as started,
    ):
        yield started


def catch_up(urls: DatabaseUrls, cluster: Cluster) -> None:
    with one(urls, cluster) as started:
        started.catch_up()


def reached(urls: DatabaseUrls, cluster: Cluster) -> int:
    """Return the checkpoint."""
    name = LOG.name(cluster.topic_prefix)
    return count(urls, "SELECT coalesce(max(position), 0) FROM ledger.relay WHERE topic = %s", name)


def leads(urls: DatabaseUrls, name: str) -> bool:
    """Say whether the relay whose connections have this application name leads."""
    return count(urls, _LEADERS, name) == 1


@contextmanager
def process(
    urls: DatabaseUrls, cluster: Cluster, how: str = "live", proxy_url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A relay in a process of its own."""
    given = (urls.service_url, cluster.bootstrap, cluster.topic_prefix, how, proxy_url)
    started = start(sys.executable, "-m", "tests.consumers.kafka.relaying_process", *given)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


class TestSending:
    def test_the_topic_has_the_whole_log_and_each_record_names_the_one_before_it(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        last = append(database, 100)
        catch_up(database, filled)
        assert reached(database, filled) == last == 100
        check_topic(filled, database)
        for records in topic(filled):
            previous = 0
            for each in events_of(records):
                assert each.previous == previous
                assert each.generation == 1
                previous = each.event.position

    def test_a_restart_goes_on_and_links_to_what_was_sent_before(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 30)
        catch_up(database, filled)
        append(database, 30)
        catch_up(database, filled)
        check_topic(filled, database)
        assert sum(len(events_of(each)) for each in topic(filled)) == 60

    def test_a_partition_without_anything_new_is_told_up_to_where(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 5, ["a"])
        catch_up(database, filled)
        partitions = topic(filled)
        (where,) = [number for number, each in enumerate(partitions) if events_of(each)]
        for number, records in enumerate(partitions):
            if number == where:
                assert isinstance(records[-1], Linked)
            else:
                assert records == [Mark(5, 1, 0)]
        append(database, 5, ["b"])
        catch_up(database, filled)
        assert topic(filled)[where][-1] == Mark(10, 1, 5)

    def test_all_partitions_are_told_again_though_nothing_is_recorded(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        """All that one held may expire, and then it could not say that nothing is lost."""
        append(database, 5, ["a"])
        limits = replace(QUICK, mark_again_seconds=0.0)
        with (
            psycopg.connect(database.service_url, autocommit=True) as connection,
            relaying(connection, filled, limits) as started,
        ):
            started.catch_up()
            started.run_once()
        for records in topic(filled):
            assert records[-1] in (Mark(5, 1, 0), Mark(5, 1, 5))

    def test_a_topic_that_is_missing_is_no_reason_to_wait(
        self, database: DatabaseUrls, cluster: Cluster
    ) -> None:
        stop = threading.Event()
        with pytest.raises(TopicMissingError, match=LOG.name(cluster.topic_prefix)):
            relay(
                lambda: psycopg.connect(database.service_url, autocommit=True),
                *(cluster, stop, stop.wait, QUICK),
            )


class TestLostTail:
    def test_nothing_is_sent_where_the_topic_knows_more_than_the_store(
        self,
        database: DatabaseUrls,
        filled: Cluster,
        more_databases: Callable[[], DatabaseUrls],
    ) -> None:
        """A backup that was restored; its positions would be given again, to other events."""
        append(database, 30)
        catch_up(database, filled)
        before = topic(filled)
        restored = more_databases()
        append(restored, 20)
        with (
            pytest.raises(TailLostError, match="up to 30, and the log ends at 20"),
            one(restored, filled),
        ):
            raise AssertionError("it must not have started")
        assert topic(filled) == before
        assert count(restored, "SELECT count(*) FROM ledger.relay") == 0

    def test_what_was_repeated_last_does_not_hide_it(
        self,
        database: DatabaseUrls,
        filled: Cluster,
        more_databases: Callable[[], DatabaseUrls],
    ) -> None:
        append(database, 30)
        catch_up(database, filled)
        name = LOG.name(filled.topic_prefix)
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            connection.execute("UPDATE ledger.relay SET position = 0 WHERE topic = %s", [name])
            connection.execute(
                "UPDATE ledger.relay_partitions SET position = 0 WHERE topic = %s", [name]
            )
        with one(database, filled) as again:
            again.run_once()
        restored = more_databases()
        append(restored, 25)
        with pytest.raises(TailLostError), one(restored, filled):
            raise AssertionError("it must not have started")


class TestAnotherTopic:
    def test_one_that_was_lost_is_filled_again_from_the_log(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 30)
        catch_up(database, filled)
        made_anew(filled, PARTITIONS)
        append(database, 5)
        catch_up(database, filled)
        check_topic(filled, database)

    def test_another_number_of_partitions_is_refused(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 5)
        catch_up(database, filled)
        made_anew(filled, PARTITIONS + 1)
        with (
            pytest.raises(TopicPartitionsError, match="has 4 partitions, not 3"),
            one(database, filled),
        ):
            raise AssertionError("it must not have started")


def made_anew(cluster: Cluster, partitions: int) -> None:
    """Lose the topic of the log, and make it again."""
    name = LOG.name(cluster.topic_prefix)
    with cluster.admin() as admin:
        names = [each for each in admin.list_topics() if each.startswith(cluster.topic_prefix)]
        admin.delete_topics(names)
        wait_until(lambda: name not in admin.list_topics())
    apply_topics(cluster, partitions)


class TestTakingOver:
    def test_an_older_relay_cannot_move_the_checkpoint_and_what_it_sends_does_no_harm(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 10)
        with one(database, filled) as older, one(database, filled) as newer:
            newer.catch_up()
            append(database, 10)
            with pytest.raises(FencedError):
                older.run_once()
            assert reached(database, filled) == 10
            newer.catch_up()
        assert reached(database, filled) == 20
        check_topic(filled, database)
        assert sum(len(events_of(each)) for each in topic(filled)) > 20

    def test_what_was_acknowledged_before_a_kill_is_sent_again_and_nothing_is_skipped(
        self, database: DatabaseUrls, filled: Cluster
    ) -> None:
        append(database, 15)
        with process(database, filled, "die") as killed:
            assert killed.wait(60) == -signal.SIGKILL
        assert reached(database, filled) == 0
        assert sum(len(events_of(each)) for each in topic(filled)) == 15
        append(database, 15)
        catch_up(database, filled)
        assert reached(database, filled) == 30
        check_topic(filled, database)
        assert sum(len(events_of(each)) for each in topic(filled)) == 45

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
    def test_another_takes_over_from_one_that_is_killed_or_stopped(
        self, database: DatabaseUrls, filled: Cluster, how: signal.Signals
    ) -> None:
        append(database, 5)
        with process(database, filled) as first:
            wait_until(lambda: reached(database, filled) == 5)
            assert leads(database, RELAY)
            with running(database, filled):
                first.send_signal(how)
                last = append(database, 5)
                wait_until(lambda: reached(database, filled) == last)
                assert leads(database, "thread")
                if how is signal.SIGSTOP:
                    first.send_signal(signal.SIGCONT)
                    last = append(database, 5)
                    wait_until(lambda: reached(database, filled) == last)
        check_topic(filled, database)


class TestBrokerAway:
    def test_events_wait_while_there_is_no_broker_and_come_in_order_when_it_is_back(
        self, database: DatabaseUrls, filled: Cluster, kafka: LocalKafka
    ) -> None:
        append(database, 10)
        with running(database, filled):
            wait_until(lambda: reached(database, filled) == 10)
            kafka.kill(kafka.brokers[0])
            last = append(database, 50)
            kafka.start(kafka.brokers[0])
            wait_until(lambda: reached(database, filled) == last)
        check_topic(filled, database)

    def test_what_the_client_forgets_is_sent_again_by_another_one(
        self, database: DatabaseUrls, filled: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A producer whose broker had come back neither sent its records nor let them expire.

        The relay waited for them for ever.
        """
        append(database, 10)
        forgetful = replace(QUICK, delivery_seconds_max=2.1)
        with one(database, filled, forgetful) as started, monkeypatch.context() as patched:
            patched.setattr(KafkaProducer, "send", lambda *_, **__: SimpleNamespace(is_done=False))
            patched.setattr(KafkaProducer, "flush", forget)
            with pytest.raises(RelayInterruptedError, match="not acknowledged in time"):
                started.run_once()
        assert reached(database, filled) == 0
        catch_up(database, filled)
        check_topic(filled, database)


def forget(producer: KafkaProducer, timeout: float | None = None) -> None:
    raise KafkaTimeoutError
