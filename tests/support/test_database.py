"""The databases of tests: each its own, gone afterwards, with rights as in production."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from ledger.store.migrations import pending
from tests.support.database import DatabaseServer, DatabaseUrls


def _exists(postgres: DatabaseServer, name: str) -> bool:
    query = "SELECT FROM pg_database WHERE datname = %s"
    with psycopg.connect(postgres.superuser_url) as connection:
        return connection.execute(query, [name]).fetchone() is not None


def test_databases_are_migrated_and_do_not_see_each_other(
    database: DatabaseUrls, more_databases: Callable[[], DatabaseUrls], unmigrated: DatabaseUrls
) -> None:
    other = more_databases()
    assert len({database.name, other.name, unmigrated.name}) == 3
    with psycopg.connect(database.service_url) as connection:
        connection.execute("CREATE TABLE projections.mine (id integer)")
    with (
        psycopg.connect(other.service_url) as connection,
        pytest.raises(psycopg.errors.UndefinedTable),
    ):
        connection.execute("SELECT FROM projections.mine")
    assert pending(other.service_url) == []
    assert pending(unmigrated.owner_url) != []


def test_a_database_is_dropped_even_while_somebody_is_connected(postgres: DatabaseServer) -> None:
    with postgres.database() as urls:
        connection = psycopg.connect(urls.owner_url)
        assert _exists(postgres, urls.name)
    assert not _exists(postgres, urls.name)
    connection.close()


@pytest.fixture
def embedded(postgres: DatabaseServer) -> DatabaseServer:
    if postgres.embedded is None:
        pytest.skip("how somebody else's server writes to its disk is not for the tests to say")
    return postgres


def _waits_for_the_disk(server: DatabaseServer) -> bool:
    with psycopg.connect(server.superuser_url) as connection:
        return connection.execute("SHOW fsync").fetchone() == ("on",)


def test_the_server_of_a_session_leaves_writing_to_the_system(embedded: DatabaseServer) -> None:
    assert not _waits_for_the_disk(embedded)


@pytest.mark.usefixtures("durable")
def test_where_a_test_is_about_faults_it_waits_for_the_disk(embedded: DatabaseServer) -> None:
    assert _waits_for_the_disk(embedded)


def test_each_url_has_the_rights_that_its_name_says(database: DatabaseUrls) -> None:
    query = """
    SELECT r.rolsuper, pg_has_role(current_user, d.datdba, 'USAGE'), current_user = 'guishu_app',
           current_setting('idle_in_transaction_session_timeout')
    FROM pg_roles AS r, pg_database AS d
    WHERE r.rolname = current_user AND d.datname = current_database()
    """
    found = {}
    for name in ("owner_url", "service_url", "superuser_url"):
        with psycopg.connect(getattr(database, name)) as connection:
            found[name] = connection.execute(query).fetchone()
    assert found == {
        "owner_url": (False, True, False, "0"),
        "service_url": (False, False, True, "10s"),
        "superuser_url": (True, True, False, "0"),
    }
