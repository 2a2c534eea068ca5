"""A process dies between two effects: who comes behind it loses nothing, and does nothing twice.

Of the rebuild of read models ``tests/projections/test_rebuild.py`` shows it, and of an append whose
answer never came the soak (``tests/soak``).
"""

from __future__ import annotations

import signal
import sys

import pytest

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.kafka.connecting import Cluster
from tests.consumers.conftest import PEOPLE
from tests.consumers.kafka.support import (
    PARTITIONS,
    check_topic,
    enforcing_thread,
    running,
    wait_until_decided,
    wait_until_relayed,
    with_topics,
)
from tests.consumers.support import check, grants
from tests.support.ledgers import TestLedger
from tests.support.processes import start

OF_ENFORCERS = [
    "decisions, before their commit",
    "decisions, behind their commit",
    "a rebalance, before a partition is taken over",
    "a rebalance, with some partitions taken over",
]
OF_THE_RELAY = "the relay, behind Kafka's acknowledgement and before the checkpoint"
OF_REBUILDS = [
    "a rebuild of the guards, with the old ones gone",
    "a rebuild of the guards, before its commit",
]


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    """A cluster with the topics."""
    return with_topics(cluster)


def reach(point: str, ledger: TestLedger, cluster: Cluster) -> None:
    """Let a process work until it dies at a point."""
    given = (ledger.urls.service_url, cluster.bootstrap, cluster.topic_prefix, point)
    process = start(sys.executable, "-m", "tests.consumers.kafka.failing_process", *given)
    assert process.wait(60) == -signal.SIGKILL


def claimed(ledger: TestLedger) -> list[str]:
    """Record customers that two people each claim."""
    customers = [ledger.register(f"客户{number}") for number in range(12)]
    for person in PEOPLE[:2]:
        for customer in customers:
            ledger.claim(customer, person)
    return customers


@pytest.mark.parametrize("point", OF_ENFORCERS)
def test_an_enforcer(point: str, ledger: TestLedger, filled: Cluster) -> None:
    customers = claimed(ledger)
    with running(ledger.urls, filled):
        reach(point, ledger, filled)
        assert sum(grants(ledger).values()) < len(customers)
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)


def test_the_relay(ledger: TestLedger, filled: Cluster) -> None:
    customers = claimed(ledger)
    reach(OF_THE_RELAY, ledger, filled)
    with running(ledger.urls, filled):
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
        wait_until_relayed(ledger.urls, filled)
    check_topic(filled, ledger.urls)
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)


@pytest.mark.parametrize("point", OF_REBUILDS)
def test_a_rebuild_of_the_guards(point: str, ledger: TestLedger, filled: Cluster) -> None:
    customers = claimed(ledger)
    with running(ledger.urls, filled):
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
        reach(point, ledger, filled)
        check(ledger)
        for customer in customers:
            ledger.claim(customer, "per_3")
        with enforcing_thread(ledger, filled):
            wait_until_decided(ledger)
    assert progress.parts(ledger.connection, CONSUMER) == PARTITIONS
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)
