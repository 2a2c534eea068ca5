"""Hints that the log has grown: coalesced, never needed, and waited for with an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.store.hints import Notifier, Stop, Waiter, wait_for_news
from tests.ledger.store.support import rows
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until

LONG_SECONDS = 60


@pytest.fixture
def waiting(database: DatabaseUrls) -> Iterator[Connection[Any]]:
    """A connection that listens already."""
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        assert wait_for_news(connection, 0)
        yield connection


def test_the_first_call_says_at_once_that_there_may_be_news(database: DatabaseUrls) -> None:
    """What was appended before it listened has given it no hint."""
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        assert wait_for_news(connection, LONG_SECONDS)


def test_a_hint_ends_the_wait(database: DatabaseUrls, waiting: Connection[Any]) -> None:
    with Notifier(database.service_url) as notifier:
        notifier.hint()
        assert wait_for_news(waiting, LONG_SECONDS)


def test_a_hint_that_comes_while_something_else_runs_is_kept(
    database: DatabaseUrls, waiting: Connection[Any]
) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as other:
        other.execute("NOTIFY guishu_news")
    waiting.execute("SELECT 1")
    assert wait_for_news(waiting, LONG_SECONDS)


def test_without_a_hint_the_wait_ends_in_time(waiting: Connection[Any]) -> None:
    assert not wait_for_news(waiting, 0.01)
    assert not wait_for_news(waiting, 0.01, threading.Event())


def test_stopping_ends_the_wait(waiting: Connection[Any]) -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert not wait_for_news(waiting, LONG_SECONDS, stop)


def test_nobody_waits_inside_a_transaction(waiting: Connection[Any]) -> None:
    with waiting.transaction(), pytest.raises(ValueError, match="transaction"):
        wait_for_news(waiting, LONG_SECONDS)


def test_many_hints_become_few_notifications(
    database: DatabaseUrls, waiting: Connection[Any]
) -> None:
    with Notifier(database.service_url, interval_seconds=LONG_SECONDS) as notifier:
        for _ in range(1_000):
            notifier.hint()
        assert wait_for_news(waiting, LONG_SECONDS)
    # The first hint at once, and one for all others at the end.
    assert wait_for_news(waiting, LONG_SECONDS)
    assert not wait_for_news(waiting, 0.01)


def test_a_notifier_that_loses_its_connection_makes_a_new_one(
    database: DatabaseUrls, waiting: Connection[Any]
) -> None:
    with Notifier(database.service_url) as notifier:
        notifier.hint()
        assert wait_for_news(waiting, LONG_SECONDS)
        ended = rows(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'guishu-notifier' AND datname = %s",
            database.name,
        )
        assert ended == [(True,)]

        def hinted() -> bool:
            notifier.hint()
            return wait_for_news(waiting, 0.05)

        wait_until(hinted)


def test_a_lost_connection_is_the_waiters_to_deal_with(
    database: DatabaseUrls, waiting: Connection[Any]
) -> None:
    rows(database, "SELECT pg_terminate_backend(%s)", waiting.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        wait_for_news(waiting, LONG_SECONDS)


def test_leaving_while_the_database_is_away_does_not_hang(database: DatabaseUrls) -> None:
    nowhere = psycopg.conninfo.make_conninfo(database.service_url, dbname="guishu_not_there")
    with Notifier(nowhere) as notifier:
        notifier.hint()


def test_a_notifier_without_a_hint_opens_no_connection() -> None:
    with Notifier("host=/nowhere/at/all"):
        pass


def test_a_waiter_is_woken_by_a_hint(database: DatabaseUrls) -> None:
    stop = Stop()
    with Waiter(database.service_url, stop) as waiter, Notifier(database.service_url) as notifier:
        # It begins to listen, and comes back at once.
        waiter.wait(LONG_SECONDS)
        notifier.hint()
        waiter.wait(LONG_SECONDS)


def test_a_waiter_whose_connection_is_lost_waits_for_the_time_and_listens_again(
    database: DatabaseUrls,
) -> None:
    stop = Stop()
    with Waiter(database.service_url, stop) as waiter, Notifier(database.service_url) as notifier:
        waiter.wait(LONG_SECONDS)
        ended = rows(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'guishu-waiter' AND datname = %s",
            database.name,
        )
        assert ended == [(True,)]
        waiter.wait(0.01)
        waiter.wait(LONG_SECONDS)
        notifier.hint()
        waiter.wait(LONG_SECONDS)


def test_a_waiter_without_a_database_ends_at_the_stop() -> None:
    stop = Stop()
    threading.Timer(0.05, stop.set).start()
    with Waiter("host=/nowhere/at/all", stop) as waiter:
        waiter.wait(LONG_SECONDS)


def ends(waiter: Waiter) -> bool:
    """Say whether a wait ends that without a hint would take an hour."""
    ended = threading.Event()

    def wait() -> None:
        waiter.wait(3_600)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended.wait(LONG_SECONDS)


def test_a_waiter_near_a_notifier_is_woken_without_the_database(database: DatabaseUrls) -> None:
    """The notifier has no database here, so the hint can only have come directly."""
    notifier = Notifier("host=/nowhere/at/all")
    with notifier, Waiter(database.service_url, Stop(), near=notifier) as waiter:
        assert ends(waiter)
        threading.Timer(0.05, notifier.hint).start()
        assert ends(waiter)
        # One that comes while nobody waits ends the next wait, however many there were.
        notifier.hint()
        notifier.hint()
        assert ends(waiter)


def test_a_stop_ends_a_wait_by_itself(database: DatabaseUrls) -> None:
    """A waiter looked at its stop ten times a second only, and so each command that had recorded
    something, and stopped the consumers behind itself, took that much longer.
    """
    stop = Stop()
    with Waiter(database.service_url, stop) as waiter:
        assert ends(waiter)
        threading.Timer(0.05, stop.set).start()
        assert ends(waiter)
        # Once it is set, nobody waits any more.
        assert ends(waiter)


def test_a_stop_wakes_nobody_who_has_left(database: DatabaseUrls) -> None:
    stop = Stop()
    with Waiter(database.service_url, stop):
        pass
    stop.set()
    assert stop.is_set()


def test_a_waiter_that_has_left_is_woken_no_more(database: DatabaseUrls) -> None:
    with Notifier(database.service_url) as notifier:
        with Waiter(database.service_url, Stop(), near=notifier):
            pass
        notifier.hint()


def test_whoever_lingers_goes_on_waiting_for_the_decision_and_for_no_echo(
    database: DatabaseUrls, waiting: Connection[Any]
) -> None:
    """The notification of a hint that came directly ended the lingering, as if it were another."""
    with (
        Notifier(database.service_url) as notifier,
        Waiter(database.service_url, Stop(), near=notifier, linger_seconds=3_600) as waiter,
    ):
        assert ends(waiter)
        ended = threading.Event()

        def wait() -> None:
            waiter.wait(3_600)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        notifier.hint()
        assert wait_for_news(waiting, LONG_SECONDS)
        # The echo is there; it has all this time to end the wait.
        assert not ended.wait(0.2)
        notifier.hint_decided()
        assert ended.wait(LONG_SECONDS)


def test_a_decision_is_not_lingered_over(database: DatabaseUrls) -> None:
    with (
        Notifier(database.service_url) as notifier,
        Waiter(database.service_url, Stop(), near=notifier, linger_seconds=3_600) as waiter,
    ):
        assert ends(waiter)
        notifier.hint_decided()
        assert ends(waiter)


def test_the_hint_of_another_process_wakes_a_waiter_that_is_near_to_one(
    database: DatabaseUrls,
) -> None:
    with (
        Notifier(database.service_url) as near,
        Notifier(database.service_url) as other,
        Waiter(database.service_url, Stop(), near=near) as waiter,
    ):
        assert ends(waiter)
        other.hint()
        assert ends(waiter)
