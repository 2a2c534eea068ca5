"""Generations: one a server and timeline, opened before anything is written there."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from ledger.errors import AnotherTimelineError
from ledger.store.committer import CommitterThread
from ledger.store.embedded import embedded_server
from ledger.store.generations import Generation, Generations, open_generation, read_generations
from ledger.store.migrations import migrate
from tests.ledger.store.support import asked, event
from tests.support.database import DatabaseUrls
from tests.support.processes import wait_until


def append(url: str, request: str) -> None:
    with CommitterThread(url) as committer:
        committer.append(asked(request, event(request)))


def test_the_first_start_opens_one_and_the_next_find_it(database: DatabaseUrls) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        assert read_generations(connection).newest == 0
        first = open_generation(connection)
        assert (first.number, first.first_position, first.timeline) == (1, 1, 1)
        assert int(first.system) > 0
        append(database.service_url, "r-1")
        assert open_generation(connection) == first
        assert read_generations(connection).newest == 1


def test_another_server_opens_another_one_behind_what_is_there(database: DatabaseUrls) -> None:
    """A dump that was restored elsewhere, and a ledger that is older than generations."""
    append(database.service_url, "r-1")
    append(database.service_url, "r-2")
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        superuser.execute("INSERT INTO ledger.generations VALUES (1, 1, 'another', 1)")
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        opened = open_generation(connection)
        assert (opened.number, opened.first_position) == (2, 3)
        generations = read_generations(connection)
    assert [generations.of(position) for position in (1, 2, 3, 4)] == [1, 1, 2, 2]


def test_a_promoted_server_is_on_another_timeline_at_once(servers_folder: Path) -> None:
    """The control file tells the new timeline only with the next checkpoint.

    Until a start has seen that nothing is lost, and opened a generation, nothing is appended.
    """
    with embedded_server(servers_folder) as server:
        migrate(server.owner_url)
        with psycopg.connect(server.service_url, autocommit=True) as connection:
            before = open_generation(connection)
        append(server.service_url, "r-1")
        # As after the end of a recovery: the server comes up on a timeline of its own.
        (server.data_directory / "recovery.signal").touch()
        settings = "restore_command = 'false'\nrecovery_target_timeline = 'current'\n"
        with (server.data_directory / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(settings)
        server.restart()

        def is_writable() -> bool:
            with psycopg.connect(server.service_url) as connection:
                return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)

        wait_until(is_writable)
        with pytest.raises(AnotherTimelineError, match="failed over"):
            append(server.service_url, "r-2")
        with psycopg.connect(server.service_url, autocommit=True) as connection:
            after = open_generation(connection)
        append(server.service_url, "r-2")
    assert (after.number, after.first_position) == (2, 2)
    assert (after.system, after.timeline) == (before.system, before.timeline + 1)


def test_the_service_opens_them_and_changes_none(database: DatabaseUrls) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        open_generation(connection)
        for statement in (
            b"UPDATE ledger.generations SET first_position = 5",
            b"DELETE FROM ledger.generations",
        ):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)


def test_a_position_belongs_to_the_last_generation_that_began_at_or_before_it() -> None:
    opened = [Generation(1, 1, "a", 1), Generation(2, 5, "b", 1), Generation(3, 5, "b", 2)]
    generations = Generations(opened)
    assert [generations.of(each) for each in (0, 1, 4, 5, 9)] == [0, 1, 1, 3, 3]
    assert generations.newest == 3
    assert Generations(()).of(1) == 0
