"""The enforcer on the real database: every request decided once, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from consumers.progress import FencedError
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger import commands
from ledger.deciders import deciders
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events import decisions
from ledger.organisation import OrganisationAt
from ledger.policy import Policy
from ledger.settled import Settled
from ledger.verification import verify_log
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

PEOPLE = [f"per_{number}" for number in range(50)]


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        opened.found(PEOPLE, Policy(daily_claim_limit=None))
        yield opened


def decided_once(ledger: TestLedger) -> None:
    """Every request has one decision, and deciding again brings the same."""
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good, list(report.lines())
    assert report.undecided == []
    assert compare_guards(ledger.connection, ledger.catalogue) == []


def grants(ledger: TestLedger) -> Counter[str]:
    return Counter(
        event.data.customer
        for event in ledger.log()
        if isinstance(event.data, decisions.OwnershipGranted)
    )


def test_fifty_people_claim_at_the_same_instant_and_one_gets_it(ledger: TestLedger) -> None:
    customer = ledger.register("苏州恒信电子有限公司")
    barrier = threading.Barrier(len(PEOPLE))

    def claim(person: str) -> None:
        with open_test_ledger(ledger.urls) as mine:
            barrier.wait(30)
            mine.claim(customer, person)

    threads = [threading.Thread(target=claim, args=(person,)) for person in PEOPLE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.decide()
    assert grants(ledger) == {customer: 1}
    first = next(event for event in ledger.log() if event.name == "ClaimFiled.v1")
    owner = next(event for event in ledger.log() if event.name == "OwnershipGranted.v1")
    assert owner.data.owner == first.data.claimant
    decided_once(ledger)


def test_a_claim_that_comes_with_a_duplicate_is_decided_on_the_existing_customer(
    ledger: TestLedger,
) -> None:
    number = (commands.NumberIn(system="uscc", value="91350100M000100Y43"),)
    existing = ledger.register("福州鼎盛物流有限公司", identifiers=number)
    double = ledger.ask(
        commands.RegisterCustomer(name="鼎盛物流", identifiers=number, claim_for="per_1"), "per_1"
    )
    ledger.decide()
    refused, granted = ledger.decisions(double)
    assert isinstance(refused.data, decisions.RegistrationRefused)
    assert refused.data.existing == existing
    assert isinstance(granted.data, decisions.OwnershipGranted)
    assert (granted.data.customer, granted.stream) == (existing, f"ownership-{existing}")
    decided_once(ledger)


def test_of_two_enforcers_only_the_newer_can_write(ledger: TestLedger) -> None:
    customer = ledger.register("苏州恒信电子有限公司")
    ledger.claim(customer, "per_1")
    with ledger.enforcer() as older, ledger.enforcer() as newer:
        with pytest.raises(FencedError):
            older.run_once()
        newer.catch_up()
    assert grants(ledger) == {customer: 1}
    decided_once(ledger)


def test_two_enforcers_at_once_never_grant_twice(ledger: TestLedger) -> None:
    customers = [ledger.register(f"客户{number}") for number in range(40)]
    for person in PEOPLE[:6]:
        for customer in customers:
            ledger.claim(customer, person)

    def enforce() -> None:
        with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
            for _ in range(200):
                enforcer = Enforcer(connection, StoreFeed(), ledger.catalogue)
                enforcer.start()
                try:
                    enforcer.catch_up()
                    return
                except FencedError:
                    continue

    threads = [threading.Thread(target=enforce) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.decide()
    assert grants(ledger) == dict.fromkeys(customers, 1)
    decided_once(ledger)


_ENFORCE = """
import sys, psycopg
from consumers.enforcer import Enforcer, EnforcerLimits
from consumers.feed import StoreFeed
from ledger.events.catalogue import catalogue
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    limits = EnforcerLimits(batch_requests_max=7)
    enforcer = Enforcer(connection, StoreFeed(), catalogue(), limits)
    enforcer.start()
    while True:
        enforcer.run_once()
        print(enforcer.position, flush=True)
"""


def test_killing_it_at_any_moment_loses_and_repeats_nothing(ledger: TestLedger) -> None:
    customers = [ledger.register(f"客户{number}") for number in range(60)]
    for person in PEOPLE[:5]:
        for customer in customers:
            ledger.claim(customer, person)
    for batches in range(1, 12):
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-c", _ENFORCE, ledger.urls.service_url],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(batches):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    ledger.decide()
    assert grants(ledger) == dict.fromkeys(customers, 1)
    decided_once(ledger)


def test_one_that_was_paused_in_the_middle_cannot_write_when_it_wakes_up(
    ledger: TestLedger,
) -> None:
    customers = [ledger.register(f"客户{number}") for number in range(30)]
    for customer in customers:
        ledger.claim(customer, "per_1")
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", _ENFORCE, ledger.urls.service_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    # A paused transaction keeps the progress row; the server ends it after its idle time-out.
    with psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction'"
        )
    ledger.decide()
    os.kill(process.pid, signal.SIGCONT)
    _, words = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "FencedError" in words or "OperationalError" in words
    assert grants(ledger) == dict.fromkeys(customers, 1)
    decided_once(ledger)


def test_a_request_that_cannot_be_decided_is_parked_and_the_others_go_on(
    ledger: TestLedger,
) -> None:
    bad = ledger.register("坏客户")
    good = ledger.register("好客户")
    ledger.decide()
    parked = ledger.claim(bad, "per_1")
    behind = ledger.claim(bad, "per_2")
    ledger.claim(good, "per_3")
    right = deciders()[1]

    def defective(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        if request.position == parked.positions[0]:
            raise ZeroDivisionError("a defect")
        return right(settled, request, organisation)

    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        enforcer = Enforcer(
            connection, StoreFeed(), ledger.catalogue, versions={1: defective, 2: right}
        )
        enforcer.start()
        enforcer.catch_up()
    assert grants(ledger) == {good: 1}
    report = verify_log(ledger.connection, ledger.catalogue)
    assert report.good
    assert report.parked == {parked.positions[0]: "ZeroDivisionError"}
    assert report.undecided == [parked.positions[0], behind.positions[0]]

    ledger.ask(commands.UnparkRequest(customer=bad, request=parked.positions[0], decider=1))
    ledger.decide()
    (granted,) = ledger.decisions(parked)
    (refused,) = ledger.decisions(behind)
    assert granted.data.owner == "per_1"
    assert refused.data.reason == "owned_by_another"
    decided_once(ledger)


def test_the_guards_are_made_again_from_the_log(ledger: TestLedger) -> None:
    customer = ledger.register("苏州恒信电子有限公司")
    ledger.claim(customer, "per_1")
    ledger.decide()
    with psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser:
        superuser.execute("UPDATE ledger.guards SET state = NULL, version = 0")
    assert compare_guards(ledger.connection, ledger.catalogue)
    rebuild_guards(ledger.connection, ledger.catalogue)
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.ask(commands.ReleaseCustomer(customer=customer), "per_1")
    ledger.decide()
    decided_once(ledger)


def test_a_lost_backend_is_told_and_the_next_enforcer_goes_on(ledger: TestLedger) -> None:
    customer = ledger.register("苏州恒信电子有限公司")
    ledger.claim(customer, "per_1")
    with (
        psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser,
        psycopg.connect(ledger.urls.service_url, autocommit=True) as connection,
    ):
        enforcer = Enforcer(connection, StoreFeed(), ledger.catalogue)
        enforcer.start()
        superuser.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            enforcer.catch_up()
    ledger.decide()
    assert grants(ledger) == {customer: 1}
    decided_once(ledger)
