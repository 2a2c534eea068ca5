"""One process is cut off by the network, from Kafka or from PostgreSQL; all others reach both.

What it is cut off by drops packets: connections stay open, and nothing passes. What had been sent
before arrives when the cut is healed, by which time others have done the work.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from consumers.kafka.connecting import Cluster
from tests.consumers.kafka.support import (
    LOOKING_SELDOM,
    PARTITIONS,
    QUICK,
    append,
    check_topic,
    enforcing_thread,
    events_of,
    running,
    topic,
    wait_until_decided,
    with_topics,
)
from tests.consumers.kafka.test_enforcing import group_members, wait_until_owned
from tests.consumers.kafka.test_relay import leads, reached
from tests.consumers.kafka.test_relay import process as relaying_process
from tests.consumers.support import check, count, grants
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger
from tests.support.processes import start, wait_until
from tests.support.proxy import Route, RouteToBrokers, RouteToDatabase

# On a busy machine kafka-python may leave the socket of a client that was closed just now to the
# garbage collector; those of other modules are connected to nobody (see pyproject.toml).
pytestmark = pytest.mark.filterwarnings(
    r"ignore:unclosed <socket.socket fd=\d+, family=2, type=1, proto=6:ResourceWarning"
)

# Long behind what a healthy server takes to say something here, and before anybody is tired of it.
_SILENCE_SECONDS_MAX = 1.5

_EPOCHS = "SELECT sum(epoch) FROM ledger.consumer_progress"


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A cluster with the topics."""
    return with_topics(cluster)


@pytest.fixture
def to_kafka() -> Iterator[RouteToBrokers]:
    with RouteToBrokers() as route:
        yield route


@pytest.fixture
def to_database(database: DatabaseUrls) -> Iterator[RouteToDatabase]:
    with RouteToDatabase(database.service_url) as route:
        yield route


@contextmanager
def one(
    ledger: TestLedger, cluster: Cluster, conninfo: str = "", proxy_url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """An enforcer in a process that decides all partitions, and waits with requests at hand."""
    given = (conninfo or ledger.urls.service_url, cluster.bootstrap, cluster.topic_prefix)
    with start(
        *(sys.executable, "-m", "tests.consumers.kafka.enforcing_process", *given),
        *("cut-off", "wait", proxy_url, str(_SILENCE_SECONDS_MAX)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as started:
        try:
            wait_until_owned(ledger)
            yield started
        finally:
            started.kill()


def hear_that_it_waits(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"


def go_on(process: subprocess.Popen[bytes]) -> None:
    """Let it go on with the requests that it has at hand."""
    assert process.stdin is not None
    process.stdin.close()


def wait_until_both_decide(cluster: Cluster) -> None:
    """Return when Kafka has given all partitions to two members."""

    def shared_out() -> bool:
        members = group_members(cluster)
        return len(members) == 2 and all(members) and sum(members) == PARTITIONS

    wait_until(shared_out)


class Claims:
    """Customers that are claimed by one person after the other."""

    def __init__(self, ledger: TestLedger) -> None:
        self._ledger = ledger
        self.customers = [ledger.register(f"客户{number}") for number in range(12)]

    def by(self, person: str) -> None:
        for customer in self.customers:
            self._ledger.claim(customer, person)

    def check_one_owner(self) -> None:
        """Every claim is decided, and each customer was granted once."""
        wait_until_decided(self._ledger)
        assert grants(self._ledger) == dict.fromkeys(self.customers, 1)
        check(self._ledger)


class TestEnforcer:
    """It has read requests, and is cut off before it decides them."""

    @pytest.fixture
    def ledger(self, ledger: TestLedger, filled: Cluster) -> Iterator[TestLedger]:
        """A ledger whose log is relayed beside the test."""
        with running(ledger.urls, filled):
            yield ledger

    def test_from_kafka_another_decides_and_it_comes_back_as_one_of_both(
        self, ledger: TestLedger, filled: Cluster, to_kafka: RouteToBrokers
    ) -> None:
        with one(ledger, filled, proxy_url=to_kafka.url) as cut_off:
            claims = Claims(ledger)
            claims.by("per_1")
            hear_that_it_waits(cut_off)
            to_kafka.cut()
            with enforcing_thread(ledger, filled):
                claims.by("per_2")
                wait_until_decided(ledger)
                decided, epochs = len(ledger.log()), count(ledger.urls, _EPOCHS)
                go_on(cut_off)
                # It was refused what it had read, and asks what became of its partitions, for
                # Kafka has not told it that they are its no longer.
                wait_until(lambda: count(ledger.urls, _EPOCHS) > epochs)
                assert len(ledger.log()) == decided
                claims.by("per_3")
                claims.check_one_owner()
                to_kafka.heal()
                wait_until_both_decide(filled)
                claims.by("per_4")
                claims.check_one_owner()

    @pytest.mark.parametrize("cut", [Route.cut, Route.break_off])
    def test_from_postgres_it_gives_up_its_partitions_and_comes_back_as_one_of_both(
        self,
        ledger: TestLedger,
        filled: Cluster,
        to_database: RouteToDatabase,
        cut: Callable[[Route], None],
    ) -> None:
        """Its heartbeats went on, and it kept its partitions for as long as it waited.

        Nor could others get any meanwhile: a group shares out anew when all members have answered.
        """
        with one(ledger, filled, to_database.conninfo) as cut_off:
            claims = Claims(ledger)
            claims.by("per_1")
            hear_that_it_waits(cut_off)
            cut(to_database)
            go_on(cut_off)
            with enforcing_thread(ledger, filled):
                claims.by("per_2")
                claims.check_one_owner()
                # What it had sent into the void arrives now, and comes too late.
                to_database.heal()
                wait_until_both_decide(filled)
                claims.by("per_3")
                claims.check_one_owner()


def goes_on(urls: DatabaseUrls, cluster: Cluster) -> None:
    """Return when what is recorded now is relayed."""
    last = append(urls, 10)
    wait_until(lambda: reached(urls, cluster) == last)


class TestRelay:
    """It leads, and is cut off; another one stands by."""

    def test_from_kafka_it_lets_the_other_one_lead(
        self, database: DatabaseUrls, filled: Cluster, to_kafka: RouteToBrokers
    ) -> None:
        """It tried again at once, and led again before the other one had looked.

        So it went on until by chance the other one looked in one of those moments.
        """
        append(database, 10)
        with relaying_process(database, filled, proxy_url=to_kafka.url):
            wait_until(lambda: reached(database, filled) == 10)
            with running(database, filled, "other", LOOKING_SELDOM):
                to_kafka.cut()
                goes_on(database, filled)
                assert leads(database, "other")
                to_kafka.heal()
                goes_on(database, filled)
            goes_on(database, filled)
        check_topic(filled, database)

    def test_from_postgres_it_moves_no_checkpoint_and_the_other_one_sends_all_again(
        self, database: DatabaseUrls, filled: Cluster, to_database: RouteToDatabase
    ) -> None:
        """It has sent events, and is cut off before it moves the checkpoint."""
        urls = replace(database, service_url=to_database.conninfo)
        limits = replace(QUICK, idle_seconds_max=1.5)
        cuts = [to_database.cut]

        def cut_once() -> None:
            if cuts:
                cuts.pop()()

        last = append(database, 10)
        with running(urls, filled, "cut off", limits, cut_once), ExitStack() as at_the_end:
            at_the_end.callback(to_database.heal)  # or it would not end where the test fails
            wait_until(lambda: not cuts)
            with running(database, filled, "other", limits):
                wait_until(lambda: reached(database, filled) == last)
                assert leads(database, "other")
                assert sum(len(events_of(each)) for each in topic(filled)) > last
                # The move of the checkpoint arrives now, and comes too late.
                to_database.heal()
                goes_on(database, filled)
            goes_on(database, filled)
        check_topic(filled, database)
