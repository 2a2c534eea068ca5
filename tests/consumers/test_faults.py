"""Whatever happens to an enforcer, nothing is lost and nothing is decided twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from consumers import progress
from consumers.enforcer import EnforcerLimits
from consumers.progress import FencedError
from ledger import commands
from ledger import organisation_commands as facts
from ledger.errors import LedgerError
from ledger.policy import Policy
from ledger.recording import Asked
from ledger.store.embedded import embedded_server
from ledger.store.migrations import migrate
from tests.consumers.conftest import PEOPLE
from tests.consumers.support import (
    APPEND_LOCK,
    GUARD_LOCK,
    PROCESS,
    PROGRESS_LOCK,
    catch_up,
    check,
    count,
    customer_guard,
    enforcing,
    enforcing_process,
    grants,
    holding,
    running,
    wait_until_blocked,
)
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger
from tests.support.processes import wait_until
from tests.support.proxy import proxy

pytestmark = pytest.mark.usefixtures("durable")


class Wanted:
    """Customers that each of several people claim, registered and decided before."""

    def __init__(self, ledger: TestLedger, customers: int = 40, people: int = 3) -> None:
        self.customers = [ledger.register(f"客户{number}") for number in range(customers)]
        ledger.decide()
        asked = [
            Asked(commands.FileClaim(customer=customer, claimant=person), ledger.origin(person))
            for person in PEOPLE[:people]
            for customer in self.customers
        ]
        ledger.recording.record_many(asked)

    def check(self, ledger: TestLedger) -> None:
        """Everybody's claim is decided, and each customer was granted once."""
        ledger.decide()
        assert grants(ledger) == dict.fromkeys(self.customers, 1)
        check(ledger)


class TestTwoAtOnce:
    def test_only_the_newer_can_write(self, ledger: TestLedger) -> None:
        wanted = Wanted(ledger)
        with enforcing(ledger) as older, enforcing(ledger) as newer:
            with pytest.raises(FencedError):
                older.run_once()
            assert newer.run_once() > 0
            with pytest.raises(FencedError):
                older.run_once()
        wanted.check(ledger)

    def test_an_older_one_that_has_nothing_to_decide_is_fenced_too(
        self, ledger: TestLedger
    ) -> None:
        ledger.decide()
        with enforcing(ledger) as older, enforcing(ledger):
            ledger.recording.record_fact(facts.AdoptPolicy(policy=Policy()), ledger.origin())
            with pytest.raises(FencedError):
                older.run_once()

    def test_several_that_take_over_from_each_other_never_grant_twice(
        self, ledger: TestLedger
    ) -> None:
        wanted = Wanted(ledger)
        limits = EnforcerLimits(batch_requests_max=3)
        fenced = threading.Event()

        def enforce() -> None:
            while True:
                try:
                    catch_up(ledger, limits=limits)
                    return
                except FencedError:
                    fenced.set()

        threads = [threading.Thread(target=enforce) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fenced.is_set()
        wanted.check(ledger)


class TestStopped:
    """A process is stopped, another one takes over, and the first wakes up (SIGSTOP, SIGCONT)."""

    def test_between_two_batches_it_finds_that_it_was_replaced(self, ledger: TestLedger) -> None:
        wanted = Wanted(ledger)
        with enforcing_process(ledger.urls, batch=10) as process:
            process.ask("start")
            process.ask("once")
            process.signal(signal.SIGSTOP)
            ledger.decide()
            process.signal(signal.SIGCONT)
            late = ledger.claim(wanted.customers[0], "per_9")
            assert process.ask("once") == "FencedError"
            assert ledger.decisions(late) == []
        wanted.check(ledger)

    def test_in_the_middle_of_a_batch_the_server_ends_its_transaction(
        self, ledger: TestLedger
    ) -> None:
        """It holds the progress row and all guards of the batch when it is stopped."""
        wanted = Wanted(ledger)
        with enforcing_process(ledger.urls, idle_ms=1_000) as process:
            process.ask("start")
            with holding(ledger.urls, GUARD_LOCK, customer_guard(wanted.customers[7])):
                process.tell("once")
                wait_until_blocked(ledger.urls)
                process.signal(signal.SIGSTOP)
            # Waits for the progress row, until the idle transaction is ended.
            ledger.decide()
            assert grants(ledger) == dict.fromkeys(wanted.customers, 1)
            process.signal(signal.SIGCONT)
            assert process.hear() in {"IdleInTransactionSessionTimeout", "OperationalError"}
        wanted.check(ledger)


def blocked_at_the_progress(wanted: Wanted) -> tuple[str, ...]:
    return (PROGRESS_LOCK,)


def blocked_at_the_guards(wanted: Wanted) -> tuple[str, ...]:
    return (GUARD_LOCK, customer_guard(wanted.customers[20]))


def blocked_at_the_append(wanted: Wanted) -> tuple[str, ...]:
    return (APPEND_LOCK,)


class TestKilled:
    """kill -9, and the next enforcer goes on from what was committed."""

    @pytest.mark.parametrize(
        "point", [blocked_at_the_progress, blocked_at_the_guards, blocked_at_the_append]
    )
    def test_at_a_known_point(self, ledger: TestLedger, point: object) -> None:
        wanted = Wanted(ledger)
        assert callable(point)
        with enforcing_process(ledger.urls, batch=50) as process:
            process.ask("start")
            process.ask("once")
            with holding(ledger.urls, *point(wanted)):
                process.tell("once")
                wait_until_blocked(ledger.urls)
                process.kill()
            # What the server has in its hands it finishes, or rolls back, by itself.
            alive = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s"
            )
            wait_until(lambda: count(ledger.urls, alive, PROCESS) == 0)
        wanted.check(ledger)

    def test_at_any_moment(self, ledger: TestLedger) -> None:
        chance = random.Random(0)  # noqa: S311 - a test that can be repeated, no secret
        wanted = Wanted(ledger, customers=60)
        for _ in range(5):
            with enforcing_process(ledger.urls, batch=3) as process:
                process.ask("start")
                process.tell("catch_up")
                time.sleep(chance.random() / 20)
        wanted.check(ledger)


class TestLostConnections:
    def test_a_reply_that_is_lost_after_the_commit_repeats_nothing(
        self, ledger: TestLedger, tmp_path: Path
    ) -> None:
        wanted = Wanted(ledger)
        with proxy(ledger.urls.service_url, tmp_path) as between:
            urls = DatabaseUrls("", "", between.conninfo, ledger.urls.superuser_url)
            between.lose("reply", b"FETCH ALL")
            with running(urls):
                wait_until(lambda: is_decided(ledger))
            assert between.losses == 1
        wanted.check(ledger)

    def test_a_request_that_is_lost_before_the_commit_loses_nothing(
        self, ledger: TestLedger, tmp_path: Path
    ) -> None:
        wanted = Wanted(ledger)
        with proxy(ledger.urls.service_url, tmp_path) as between:
            urls = DatabaseUrls("", "", between.conninfo, ledger.urls.superuser_url)
            between.lose("request", b"FETCH ALL")
            with running(urls):
                wait_until(lambda: is_decided(ledger))
            assert between.losses == 1
        wanted.check(ledger)

    def test_a_session_that_is_ended_is_told_and_the_next_enforcer_goes_on(
        self, ledger: TestLedger
    ) -> None:
        wanted = Wanted(ledger)
        with (
            enforcing(ledger) as enforcer,
            psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser,
        ):
            superuser.execute(
                "SELECT pg_terminate_backend(%s)", (enforcer._connection.info.backend_pid,)
            )
            with pytest.raises(psycopg.OperationalError):
                enforcer.catch_up()
        wanted.check(ledger)


def is_decided(ledger: TestLedger) -> bool:
    """Say whether the enforcer has come to the end of the log."""
    return progress.reached(ledger.connection, "enforcer") == len(ledger.log())


@contextmanager
def server_of_its_own(folder: Path) -> Iterator[tuple[DatabaseServer, DatabaseUrls]]:
    """Start a server that a test may restart."""
    with embedded_server(folder) as embedded:
        server = DatabaseServer(embedded.superuser_url, embedded)
        with server.database() as urls:
            migrate(urls.owner_url)
            yield server, urls


def test_the_database_may_restart_in_the_middle_of_everything(servers_folder: Path) -> None:
    """A crash of the server, twice, while claims are recorded and decided."""
    with server_of_its_own(servers_folder) as (server, urls):
        with open_test_ledger(urls) as ledger:
            ledger.found(PEOPLE, Policy(daily_claim_limit=None))
        recorded, stop = [0], threading.Event()

        def record() -> None:
            while not stop.is_set():
                try:
                    with open_test_ledger(urls) as mine:
                        while not stop.is_set():
                            customer = mine.register(f"客户{recorded[0]}")
                            mine.claim(customer, "per_1")
                            mine.claim(customer, "per_2")
                            recorded[0] += 1
                except (LedgerError, psycopg.OperationalError):
                    continue

        thread = threading.Thread(target=record)
        with running(urls):
            thread.start()
            assert server.embedded is not None
            for restart in range(1, 3):
                before = recorded[0]
                wait_until(lambda: recorded[0] > before + 10 * restart)  # noqa: B023 - used at once
                server.embedded.restart("immediate")
            before = recorded[0]
            wait_until(lambda: recorded[0] > before + 10)
            stop.set()
            thread.join()
        with open_test_ledger(urls) as ledger:
            ledger.decide()
            assert set(grants(ledger).values()) == {1}
            check(ledger)
