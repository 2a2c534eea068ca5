"""A statement beside a block: the server works meanwhile, and the connection is free behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection, errors, sql
from psycopg.pq import TransactionStatus

from ledger.store.arrays import int4_array
from ledger.store.beside import running
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until

_LOCK = sql.SQL("SELECT pg_advisory_xact_lock(n) FROM unnest({}) AS n").format(sql.SQL("$1"))
_DIVIDE = sql.SQL("SELECT 1 / n FROM unnest({}) AS n").format(sql.SQL("$1"))
_WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
_THERE = "SELECT FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def connection(database: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(database: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(database.superuser_url, autocommit=True) as other:
        yield other


def test_the_block_goes_on_while_the_server_works(
    connection: Connection[Any], other: Connection[Any]
) -> None:
    """The statement waits for a lock that only the block gives up."""
    pid = connection.info.backend_pid
    other.execute("SELECT pg_advisory_lock(7)")
    connection.execute("BEGIN")
    with running(connection, _LOCK, [int4_array([7])]):
        wait_until(lambda: other.execute(_WAITS, (pid,)).fetchone() == (True,))
        other.execute("SELECT pg_advisory_unlock(7)")
    assert other.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (False,)
    connection.execute("COMMIT")
    assert other.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (True,)


def test_what_the_database_refuses_is_raised_behind_the_block(connection: Connection[Any]) -> None:
    reached = False
    connection.execute("BEGIN")
    with pytest.raises(errors.DivisionByZero), running(connection, _DIVIDE, [int4_array([0])]):
        reached = True
    assert reached
    assert connection.info.transaction_status is TransactionStatus.INERROR
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("divisor", [0, 1])
def test_the_error_of_the_block_counts_and_the_connection_is_free(
    connection: Connection[Any], divisor: int
) -> None:
    with (
        pytest.raises(LookupError, match="of the block"),
        running(connection, _DIVIDE, [int4_array([divisor])]),
    ):
        raise LookupError("of the block")
    assert connection.info.transaction_status is TransactionStatus.IDLE
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_server_still_ends_an_idle_transaction(
    connection: Connection[Any], other: Connection[Any]
) -> None:
    """Behind psycopg's pipeline it did not: the Flush behind the last Sync took its time-out away,
    and an enforcer that was stopped there kept the guards of its batch for ever.
    """
    pid = connection.info.backend_pid
    connection.execute("SET idle_in_transaction_session_timeout = '50ms'")
    connection.execute("BEGIN")
    with running(connection, _LOCK, [int4_array([7])]):
        pass
    wait_until(lambda: other.execute(_THERE, (pid,)).fetchone() is None)
    connection.close()
