"""The append lock locks everybody: it is taken only when the COMMIT is in the server's hands."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection, Cursor

from ledger.errors import EntryTooLargeError, VersionConflictError
from ledger.store import arrays
from ledger.store.appending import Append, Appended, NewEvent, append_and_commit
from ledger.store.committer import translated
from tests.consumers.support import (
    APPEND_LOCK,
    catch_up,
    check,
    count,
    enforcing_process,
    grants,
    holding,
    wait_until_blocked,
)
from tests.support.ledgers import TestLedger
from tests.support.processes import wait_until

_HELD = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""


def held_up(meanwhile: Callable[[str], None]) -> type[Connection[Any]]:
    """Return connections that are held up before each statement, as a process stopped there."""

    class HeldUp(Connection[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Cursor[Any]:
            meanwhile(query.decode() if isinstance(query, bytes) else str(query))
            return super().execute(query, *arguments, **options)

    return HeldUp


def test_others_append_wherever_an_enforcer_is_stopped(ledger: TestLedger) -> None:
    """psycopg's pipeline sent each statement as soon as it was made: an enforcer that was stopped
    between its append and the COMMIT behind it kept the lock, in a session that looked active and
    that no time-out ended.
    """
    for number in range(5):
        ledger.register(f"客户{number}", claim_for="per_1")
    stopped_before: set[str] = set()

    def meanwhile(statement: str) -> None:
        assert count(ledger.urls, _HELD) == 0
        if statement not in stopped_before:
            ledger.committer.append(Append((NewEvent("customer-x", "ClaimFiled.v1", b"no json"),)))
        stopped_before.add(statement)

    catch_up(ledger, connection_class=held_up(meanwhile))
    assert any("append_events_or_fail" in each for each in stopped_before)
    assert any("COMMIT" in each for each in stopped_before)


def test_one_that_is_stopped_in_its_last_message_is_committed_all_the_same(
    ledger: TestLedger,
) -> None:
    """The server has all of it, and needs the process no more."""
    customers = [ledger.register(f"客户{number}", claim_for="per_1") for number in range(3)]
    with enforcing_process(ledger.urls) as process:
        process.ask("start")
        with holding(ledger.urls, APPEND_LOCK):
            process.tell("once")
            wait_until_blocked(ledger.urls)
            process.signal(signal.SIGSTOP)
        decided = "SELECT count(*) FROM ledger.events WHERE causation IS NOT NULL"
        wait_until(lambda: count(ledger.urls, decided) == 6)
        # What was committed is seen some moments before the lock is given back.
        wait_until(lambda: count(ledger.urls, _HELD) == 0)
        process.signal(signal.SIGCONT)
        assert int(process.hear()) > 0
    ledger.decide()
    assert grants(ledger) == dict.fromkeys(customers, 1)
    check(ledger)


class TestAppendAndCommit:
    """What an enforcer's transaction ends with."""

    @pytest.fixture
    def connection(self, ledger: TestLedger) -> Any:
        with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
            arrays.register(connection)
            yield connection

    def one(self, version: int | None = None, body: bytes = b"{}") -> Append:
        return Append((NewEvent("ownership-x", "Noted.v1", body, version),))

    def test_it_says_where_the_events_stand(
        self, ledger: TestLedger, connection: Connection[Any]
    ) -> None:
        top = len(ledger.log())
        for number in range(1, 9):
            connection.execute("BEGIN")
            assert append_and_commit(connection, self.one(number)) == Appended(top + number, 1)
            assert connection.info.transaction_status.name == "IDLE"

    def test_it_sees_what_was_committed_after_it_was_laid_ready(self, ledger: TestLedger) -> None:
        """A cursor has the snapshot of the moment when it was declared, and the append must not."""
        top = len(ledger.log())

        def meanwhile(statement: str) -> None:
            if "FETCH" in statement:
                ledger.committer.append(self.one())

        with held_up(meanwhile).connect(ledger.urls.service_url, autocommit=True) as connection:
            arrays.register(connection)
            connection.execute("BEGIN")
            assert append_and_commit(connection, self.one()) == Appended(top + 2, 1)
            connection.execute("BEGIN")
            with pytest.raises(psycopg.Error) as caught:
                append_and_commit(connection, self.one(3))
        assert isinstance(translated(caught.value), VersionConflictError)

    def test_a_conflict_fails_the_whole_transaction(
        self, ledger: TestLedger, connection: Connection[Any]
    ) -> None:
        before = len(ledger.log())
        connection.execute("BEGIN")
        connection.execute("INSERT INTO ledger.tracking VALUES ('follower', 1)")
        with pytest.raises(psycopg.Error) as caught:
            append_and_commit(connection, self.one(7))
        assert caught.value.sqlstate == "GS001"
        connection.execute("ROLLBACK")
        assert len(ledger.log()) == before
        assert count(ledger.urls, "SELECT count(*) FROM ledger.tracking") == 0

    def test_what_cannot_fit_is_told_before_anything_is_sent(
        self, connection: Connection[Any]
    ) -> None:
        with pytest.raises(EntryTooLargeError):
            append_and_commit(connection, self.one(1, b"x" * 70_000))
        assert connection.info.transaction_status.name == "IDLE"
