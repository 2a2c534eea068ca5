"""A database whose clock goes ahead of the real one by as much as a test says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import Connection

from tests.support.database import DatabaseUrls

_MAKE = """
CREATE TABLE ledger.test_ahead (ahead interval NOT NULL);
INSERT INTO ledger.test_ahead VALUES ('0');
GRANT SELECT ON ledger.test_ahead TO PUBLIC;
CREATE FUNCTION ledger.test_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock_timestamp() + ahead FROM ledger.test_ahead';
"""
_APPENDING = "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.proname = 'append_events'"


@dataclass(frozen=True)
class DatabaseClock:
    """The clock of one database: recorded times are read from it."""

    urls: DatabaseUrls

    def later(self, **by: float) -> None:
        """Let time pass, as ``timedelta`` counts it."""
        with psycopg.connect(self.urls.superuser_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE ledger.test_ahead SET ahead = ahead + %s", (timedelta(**by),)
            )

    @staticmethod
    def now(connection: Connection[Any]) -> datetime:
        """Return the database's time (UTC)."""
        row = connection.execute("SELECT ledger.test_clock()").fetchone()
        assert row is not None
        now: datetime = row[0]
        return now.astimezone(UTC)


def injected(urls: DatabaseUrls) -> DatabaseClock:
    """Have the append function of a test's database read a clock that the test can set."""
    with psycopg.connect(urls.superuser_url, autocommit=True) as connection:
        connection.execute(_MAKE)
        row = connection.execute(_APPENDING).fetchone()
        assert row is not None
        definition: str = row[0]
        assert definition.count("clock_timestamp()") == 1
        changed = definition.replace("clock_timestamp()", "ledger.test_clock()")
        connection.execute(changed.encode())
    return DatabaseClock(urls)
