"""Three brokers, of which one is lost, and then a second."""

from __future__ import annotations

from pathlib import Path

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.kafka.local import local_kafka
from ledger.policy import Policy
from tests.consumers.conftest import PEOPLE
from tests.consumers.kafka.support import (
    cluster_for_a_test,
    enforcing_thread,
    running,
    wait_until_decided,
    with_topics,
)
from tests.consumers.support import check, grants
from tests.support.database import DatabaseUrls
from tests.support.ledgers import open_test_ledger


def test_with_one_of_three_lost_it_goes_on_and_with_two_requests_are_still_recorded(
    tmp_path: Path, database: DatabaseUrls
) -> None:
    with local_kafka(tmp_path, brokers=3, in_sync=2, grace_seconds=0) as kafka:
        cluster = with_topics(cluster_for_a_test(kafka))
        with (
            open_test_ledger(database) as ledger,
            running(database, cluster),
            enforcing_thread(ledger, cluster),
        ):
            ledger.found(PEOPLE, Policy(daily_claim_limit=None))
            customers = [ledger.register(f"客户{number}") for number in range(9)]
            wait_until_decided(ledger)

            kafka.kill(kafka.brokers[0])
            for customer in customers[:6]:
                ledger.claim(customer, "per_1")
            wait_until_decided(ledger)

            kafka.kill(kafka.brokers[1])
            recorded = [ledger.claim(each, "per_2") for each in customers]
            assert all(each.positions for each in recorded)
            assert [ledger.decisions(each) for each in recorded] == [[]] * len(recorded)
            assert progress.reached(ledger.connection, CONSUMER) < recorded[0].positions[0]

            kafka.start(kafka.brokers[0])
            wait_until_decided(ledger)
            assert grants(ledger) == dict.fromkeys(customers, 1)
            check(ledger)
