"""Enforcers that share the partitions of a real Kafka: whatever happens, each request once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.kafka.connecting import Cluster
from consumers.kafka.topics import LOG
from consumers.progress import Part, ProgressDividedError
from consumers.rebuilding import rebuild_guards
from ledger.policy import Policy
from tests.consumers.conftest import PEOPLE
from tests.consumers.kafka.support import (
    PARTITIONS,
    enforcing_thread,
    running,
    wait_until_decided,
    with_topics,
)
from tests.consumers.support import check, count, grants
from tests.consumers.support import running as running_on_the_store
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger
from tests.support.processes import start, wait_until

_OWNED = "SELECT count(*) FROM ledger.consumer_progress WHERE epoch > 0"
_EPOCHS = "SELECT sum(epoch) FROM ledger.consumer_progress"
_MEMBERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle'"


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A cluster with the topics."""
    return with_topics(cluster)


@pytest.fixture
def ledger(database: DatabaseUrls, filled: Cluster) -> Iterator[TestLedger]:
    """A ledger whose log is relayed beside the test."""
    with open_test_ledger(database) as opened:
        opened.found(PEOPLE, Policy(daily_claim_limit=None))
        with running(database, filled):
            yield opened


@contextmanager
def process(
    ledger: TestLedger, cluster: Cluster, name: str, how: str = "live"
) -> Iterator[subprocess.Popen[bytes]]:
    """An enforcer of partitions in a process of its own."""
    given = (ledger.urls.service_url, cluster.bootstrap, cluster.topic_prefix, name, how)
    started = start(sys.executable, "-m", "tests.consumers.kafka.enforcing_process", *given)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_until_owned(ledger: TestLedger) -> None:
    """Return when every partition has an enforcer."""
    wait_until(lambda: count(ledger.urls, _OWNED) == PARTITIONS)


class Rivals:
    """Customers that two people each claim; registered, but not decided yet."""

    def __init__(self, ledger: TestLedger, customers: int = 12) -> None:
        self.ledger = ledger
        self.customers = [ledger.register(f"客户{number}") for number in range(customers)]
        self.claim()

    def claim(self) -> None:
        for person in ("per_1", "per_2"):
            for customer in self.customers:
                self.ledger.claim(customer, person)

    def check(self) -> None:
        wait_until_decided(self.ledger)
        assert grants(self.ledger) == dict.fromkeys(self.customers, 1)
        check(self.ledger)


def test_one_process_decides_every_partition(ledger: TestLedger, filled: Cluster) -> None:
    with enforcing_thread(ledger, filled):
        Rivals(ledger).check()
    assert progress.parts(ledger.connection, CONSUMER) == PARTITIONS


def test_two_processes_share_the_partitions(ledger: TestLedger, filled: Cluster) -> None:
    with ExitStack() as stack:
        for name in ("first", "second"):
            stack.enter_context(process(ledger, filled, name))
        wait_until_owned(ledger)

        def shared_out() -> bool:
            members = group_members(filled)
            return len(members) == 2 and all(members) and sum(members) == PARTITIONS

        wait_until(shared_out)
        Rivals(ledger).check()


def group_members(cluster: Cluster) -> list[int]:
    """Return how many partitions each member of the enforcers' group has."""
    group = f"{cluster.topic_prefix}-{CONSUMER}"
    with cluster.admin() as admin:
        described = admin.describe_groups([group])[group]
    topic = LOG.name(cluster.topic_prefix)
    return [
        sum(
            len(each["partitions"])
            for each in member["member_assignment"]["assigned_partitions"]
            if each["topic"] == topic
        )
        for member in described["members"]
        if member["member_assignment"]  # it is a text without anything while it is made
    ]


def test_a_killed_one_is_replaced(ledger: TestLedger, filled: Cluster) -> None:
    with process(ledger, filled, "first") as first, process(ledger, filled, "second"):
        wait_until_owned(ledger)
        rivals = Rivals(ledger)
        first.kill()
        rivals.check()


def test_a_frozen_one_that_wakes_up_behind_its_replacement_grants_nothing(
    ledger: TestLedger, filled: Cluster
) -> None:
    """It has read its batch, and knows neither that its session is over nor who decided it."""
    with process(ledger, filled, "zombie", "freeze") as zombie:
        wait_until_owned(ledger)
        rivals = Rivals(ledger)
        wait_until(lambda: is_stopped(zombie.pid))
        epochs = count(ledger.urls, _EPOCHS)
        with process(ledger, filled, "other"):
            wait_until(lambda: count(ledger.urls, _EPOCHS) >= epochs + PARTITIONS)
            rivals.check()
            decided = len(ledger.log())
            zombie.send_signal(signal.SIGCONT)
            # It has looked at what became of its partitions when it is a member again.
            wait_until(lambda: len(group_members(filled)) == 2 and all(group_members(filled)))
            assert len(ledger.log()) == decided
        late = Rivals(ledger, 3)
        late.customers += rivals.customers
        late.check()


def is_stopped(pid: int) -> bool:
    """Say whether a process is stopped by a signal."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_guards_made_anew_let_all_begin_anew(ledger: TestLedger, filled: Cluster) -> None:
    with enforcing_thread(ledger, filled):
        rivals = Rivals(ledger)
        wait_until_decided(ledger)
        with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
            rebuild_guards(connection, ledger.catalogue)
        rivals.claim()
        rivals.check()


class TestWithTheStoreAlone:
    """``guishu run`` and commands that wait for a decision follow the store, with or without."""

    def test_it_stands_by_while_partitions_are_decided(
        self, ledger: TestLedger, filled: Cluster
    ) -> None:
        with enforcing_thread(ledger, filled):
            wait_until_owned(ledger)
            with running_on_the_store(ledger.urls, application_name="alone"):
                wait_until(lambda: count(ledger.urls, _MEMBERS, "alone") == 1)
                Rivals(ledger).check()
            assert progress.parts(ledger.connection, CONSUMER) == PARTITIONS

    def test_it_brings_together_what_was_divided_and_is_divided_again(
        self, ledger: TestLedger, filled: Cluster
    ) -> None:
        """It failed for good: the progress was divided for others."""
        rivals = Rivals(ledger)
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
        rivals.claim()
        with running_on_the_store(ledger.urls):
            wait_until(lambda: progress.parts(ledger.connection, CONSUMER) == 1)
            rivals.check()
        rivals.claim()
        with enforcing_thread(ledger, filled):
            rivals.check()
        assert progress.parts(ledger.connection, CONSUMER) == PARTITIONS

    def test_a_topic_of_another_division_is_followed_when_nobody_follows_the_first(
        self, ledger: TestLedger, filled: Cluster
    ) -> None:
        other = with_topics(Cluster(filled.bootstrap, f"{filled.topic_prefix}-other"), 2)
        rivals = Rivals(ledger)
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
            with pytest.raises(ProgressDividedError), enforcing_thread(ledger, other) as ended:
                assert ended.wait(60)
        rivals.claim()
        with running(ledger.urls, other), enforcing_thread(ledger, other):
            rivals.check()
        assert progress.parts(ledger.connection, CONSUMER) == 2


def test_parts_that_differ_cannot_be_made_one(ledger: TestLedger) -> None:
    """A part that is gone would take with it what it had not decided."""
    progress.divide(ledger.connection, CONSUMER, 2)
    progress.skip(ledger.connection, progress.take_over(ledger.connection, CONSUMER, Part(1, 2)), 1)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the same position"):
        progress.unite(ledger.connection, CONSUMER)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ledger.connection.execute("DELETE FROM ledger.consumer_progress")
