"""A connection whose server says nothing, behind something that answers for it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ledger.store.silence import connect_impatient
from tests.support.database import DatabaseUrls
from tests.support.proxy import RouteToDatabase


@pytest.fixture
def route(database: DatabaseUrls) -> Iterator[RouteToDatabase]:
    with RouteToDatabase(database.service_url) as opened:
        yield opened


@pytest.mark.parametrize("pipelined", [False, True])
def test_it_ends_itself_in_whatever_it_was(route: RouteToDatabase, *, pipelined: bool) -> None:
    with connect_impatient(route.conninfo, 1.5) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        route.cut()
        with pytest.raises(psycopg.OperationalError, match="has said nothing"):
            ask(connection, pipelined=pipelined)
        assert connection.closed


def ask(connection: psycopg.Connection, *, pipelined: bool) -> None:
    with connection.transaction():
        if pipelined:
            with connection.pipeline():
                connection.execute("SELECT 2").fetchone()
        else:
            connection.execute("SELECT 2")


def test_it_waits_for_what_comes_in_pieces(route: RouteToDatabase) -> None:
    """The server says something again and again, though all of it takes longer than is allowed.

    Between the pieces psycopg says that nothing has come, which it does ten times a second.
    """
    slowly = "SELECT repeat('x', 10000), pg_sleep(0.25) FROM generate_series(1, 12)"
    with connect_impatient(route.conninfo, 2.0) as connection:
        assert len(connection.execute(slowly).fetchall()) == 12
