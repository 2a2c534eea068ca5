"""Leading and standing by, and a process that outlives what becomes of its database."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import psycopg
import pytest

from consumers import progress
from consumers.enforcer import CONSUMER
from consumers.enforcing import EnforcingLimits, enforce
from consumers.feed import StoreFeed
from ledger import commands
from ledger.events.catalogue import catalogue
from tests.consumers.support import (
    PROCESS,
    QUICK,
    check,
    count,
    enforcing_process,
    grants,
    running,
)
from tests.support.ledgers import TestLedger
from tests.support.processes import wait_until
from tests.support.proxy import proxy

_LEADERS = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
AND l.classid::bigint = hashtext('guishu enforcer')::bigint & 4294967295
AND a.application_name = ANY (%s)
"""
_END = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %s
"""


def is_decided(ledger: TestLedger) -> bool:
    return progress.reached(ledger.connection, CONSUMER) == len(ledger.log())


def decided(ledger: TestLedger, claimant: str = "per_1") -> str:
    """Record a customer and a claim, wait until they are decided, and return the customer."""
    customer = ledger.register("客户")
    ledger.claim(customer, claimant)
    wait_until(lambda: is_decided(ledger))
    return customer


def leaders(ledger: TestLedger, *names: str) -> int:
    return count(ledger.urls, _LEADERS, list(names))


def leads(ledger: TestLedger, name: str) -> bool:
    return leaders(ledger, name) == 1


def test_it_decides_what_comes_and_stops_when_it_is_told(ledger: TestLedger) -> None:
    with running(ledger.urls):
        customers = [decided(ledger) for _ in range(3)]
    assert grants(ledger) == dict.fromkeys(customers, 1)
    # The server ends a session some moments after its client has.
    wait_until(lambda: leaders(ledger, "enforcer") == 0)
    check(ledger)


def test_those_who_wait_for_decisions_get_a_hint_when_there_are_some(ledger: TestLedger) -> None:
    hints: list[int] = []
    with running(ledger.urls, committed=lambda: hints.append(len(ledger.log()))):
        decided(ledger)
        before = len(hints)
        assert before > 0
        fact = commands.RegisterCustomer(name="另一个")
        ledger.ask(fact)
        wait_until(lambda: is_decided(ledger))
    assert len(hints) == before + 1


class TestStandingBy:
    def test_only_one_decides_and_another_takes_over_when_its_session_ends(
        self, ledger: TestLedger
    ) -> None:
        by: list[str] = []
        with (
            running(ledger.urls, committed=lambda: by.append("a"), application_name="a"),
            running(ledger.urls, committed=lambda: by.append("b"), application_name="b"),
        ):
            customers = [decided(ledger) for _ in range(5)]
            (leader,) = set(by)
            assert leads(ledger, leader)
            follower = "b" if leader == "a" else "a"
            assert not leads(ledger, follower)
            # Whoever leads again afterwards, the two never do at once.
            for _ in range(5):
                count(ledger.urls, _END, leader)
                customers.append(decided(ledger))
                assert leaders(ledger, "a", "b") <= 1
        assert grants(ledger) == dict.fromkeys(customers, 1)
        check(ledger)

    def test_a_leader_that_was_stopped_is_replaced_and_stands_by_when_it_wakes_up(
        self, ledger: TestLedger
    ) -> None:
        """A stopped process answers nothing and closes nothing: its lock would never come free.

        On a busy machine it may seem to be stopped while it is not, and lead again only later.
        """
        with enforcing_process(ledger.urls, idle_ms=400) as process:
            assert process.ask("enforce") == "enforcing"
            customers = [decided(ledger)]
            wait_until(lambda: leads(ledger, PROCESS))
            process.signal(signal.SIGSTOP)
            with running(ledger.urls):
                customers.append(decided(ledger))
                assert leads(ledger, "enforcer")
                process.signal(signal.SIGCONT)
                customers.append(decided(ledger))
            # And it leads again when the other one has gone.
            wait_until(lambda: leads(ledger, PROCESS))
            customers.append(decided(ledger))
        assert grants(ledger) == dict.fromkeys(customers, 1)
        check(ledger)

    def test_the_lock_lasts_as_long_as_the_connection(self, ledger: TestLedger) -> None:
        url = ledger.urls.service_url
        with psycopg.connect(url, autocommit=True) as first:
            assert progress.become_leader(first, CONSUMER)
            assert progress.become_leader(first, CONSUMER)
            assert progress.become_leader(first, "projector")
            assert not progress.become_leader(ledger.connection, CONSUMER)
        wait_until(lambda: progress.become_leader(ledger.connection, CONSUMER))


class Pauses(threading.Event):
    """A stop that keeps how long somebody wanted to wait for it, and comes after so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.pauses: list[float | None] = []
        self._times = times

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        if len(self.pauses) == self._times:
            self.set()
        return self.is_set()


class TestTrouble:
    def test_it_goes_on_when_the_database_can_be_reached_again(
        self, ledger: TestLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "consumers")
        with proxy(ledger.urls.service_url, tmp_path) as between:
            urls = type(ledger.urls)("", "", between.conninfo, ledger.urls.superuser_url)
            with running(urls):
                customers = [decided(ledger)]
                for _ in range(3):
                    between.lose("request", b"FETCH ALL")
                    customers.append(decided(ledger))
            assert between.losses == 3
        assert "enforcing goes on when the database does" in caplog.text
        assert grants(ledger) == dict.fromkeys(customers, 1)
        check(ledger)

    def test_pauses_grow_while_there_is_no_database_and_end_with_the_stop(self) -> None:
        """They were timed, and the first one seemed the longest where the machine was busy."""
        stop = Pauses(5)
        enforce(
            lambda: psycopg.connect("host=/nonexistent dbname=none"),
            StoreFeed(),
            catalogue(),
            stop,
            stop.wait,
            EnforcingLimits(pause_seconds_min=10, pause_seconds_max=60),
        )
        assert stop.pauses == [10, 20, 40, 60, 60]

    def test_a_full_or_refusing_database_is_not_hidden(self, ledger: TestLedger) -> None:
        """What no retry mends ends it, with the error of the database."""
        with psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser:
            superuser.execute("REVOKE UPDATE ON ledger.guards FROM guishu_app")
            ended = threading.Event()
            ledger.register("客户")
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege),
                running(ledger.urls, QUICK, ended=ended.set),
            ):
                assert ended.wait(30)
            superuser.execute("GRANT UPDATE ON ledger.guards TO guishu_app")
        ledger.decide()
        check(ledger)
