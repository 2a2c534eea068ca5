"""What an enforcer looks up costs the same however long the log has become."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from consumers import feed, parking
from consumers.feed import StoreFeed
from ledger.store import arrays, guards, reading
from tests.consumers.support import enforcing
from tests.support.ledgers import TestLedger

# Longer than any plan that was made for an empty table would like; without statistics, too.
EVENTS = 30_000

_FILL = """
INSERT INTO ledger.events (position, recorded, stream, version, name, body, leaf)
SELECT top + n, now(), 'customer-' || n, 1, 'ClaimFiled.v1', repeat('x', 200)::bytea, ''
FROM generate_series(1, %s) n, (SELECT max(position) AS top FROM ledger.events) t
"""


@pytest.fixture
def connection(ledger: TestLedger) -> Any:
    """An enforcer's connection, on a log that has grown since it was opened."""
    with enforcing(ledger) as enforcer:
        enforcer.catch_up()
        with psycopg.connect(ledger.urls.superuser_url, autocommit=True) as superuser:
            superuser.execute(_FILL, (EVENTS,))
        connection = enforcer._connection
        connection.execute("SET plan_cache_mode = force_generic_plan")
        yield connection


def plan(connection: Connection[Any], statement: str, *values: object) -> str:
    explain = f"EXPLAIN {statement}".encode()
    rows = connection.execute(explain, values, prepare=True).fetchall()
    return "\n".join(row[0] for row in rows)


def test_the_feed_goes_by_positions_alone(connection: Connection[Any]) -> None:
    """A name such as customer-… invites to look at the index of streams: at each read it was
    scanned for every request that there ever was, 14 ms at 500,000 events.
    """
    found = plan(connection, feed._REQUESTS, EVENTS, EVENTS + 10, 500)
    assert "Index Scan using events_pkey" in found
    assert "events_stream_version_key" not in found


def test_the_feed_is_read_so_on_any_connection(
    connection: Connection[Any], ledger: TestLedger
) -> None:
    plain = ledger.connection
    plain.execute("SET plan_cache_mode = force_generic_plan")
    assert "events_stream_version_key" not in plan(plain, feed._REQUESTS, 1, 10, 500)
    assert len(StoreFeed().read(plain, EVENTS, 5).requests) == 5


@pytest.mark.parametrize("statement", [guards._MAKE, guards._LOCK, guards._READ])
def test_guards_are_found_by_their_keys(connection: Connection[Any], statement: str) -> None:
    found = plan(connection, statement, arrays.text_array(["a", "b"]))
    assert "Seq Scan" not in found
    assert "guards_pkey" in found


@pytest.mark.parametrize("statement", [guards._WRITE_MANY, guards._WRITE_MANY_AND_FLUSH])
def test_many_guards_are_written_by_their_keys(
    connection: Connection[Any], statement: sql.Composed
) -> None:
    if statement is guards._WRITE_MANY_AND_FLUSH and connection.info.server_version < 170_000:
        pytest.skip("this server has no way to be asked for that")
    prepare = sql.SQL("PREPARE write (text[], integer[], bytea[]) AS {}")
    connection.execute(prepare.format(statement))
    found = plan(connection, "EXECUTE write ('{a}', '{1}', '{x}')")
    assert "Seq Scan" not in found
    assert "guards_pkey" in found


def test_few_guards_are_written_by_their_keys(connection: Connection[Any]) -> None:
    values = (arrays.text_array(["a"]), arrays.int4_array([1]), arrays.bytea_array([b"0"]))
    found = plan(connection, guards._WRITE_FEW, *values)
    assert "Seq Scan" not in found
    assert "guards_pkey" in found


def test_those_who_wait_and_new_facts_are_found_by_their_keys(connection: Connection[Any]) -> None:
    waiting = plan(connection, parking._WAITING, arrays.text_array(["a"]))
    assert "Seq Scan on parked_requests" not in waiting
    news = plan(connection, reading._STREAM, "organisation", 3, EVENTS, 5_000)
    assert "Index Scan using events_stream_version_key" in news
