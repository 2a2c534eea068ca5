"""Who may do what with the log: the service inserts and selects, and nobody changes an event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege

from ledger.store.appending import Append, Appended
from ledger.store.committer import CommitterThread
from ledger.store.embedded import embedded_server
from ledger.store.migrations import migrate
from tests.ledger.store.support import asked, bodies, event
from tests.support.database import DatabaseServer, DatabaseUrls


@pytest.fixture(params=["the server of the session", "an embedded server as guishu run makes it"])
def urls(
    request: pytest.FixtureRequest,
    postgres: DatabaseServer,
    migrated_template: str,
    servers_folder: Path,
) -> Iterator[DatabaseUrls]:
    if request.param == "the server of the session":
        with postgres.database(migrated_template) as urls:
            yield urls
        return
    with embedded_server(servers_folder) as server:
        migrate(server.owner_url)
        superuser_url = make_conninfo(server.superuser_url, dbname="guishu")
        yield DatabaseUrls("guishu", server.owner_url, server.service_url, superuser_url)


CHANGES = [
    "UPDATE ledger.events SET body = ''",
    "DELETE FROM ledger.events",
    "TRUNCATE ledger.events",
    "INSERT INTO ledger.events SELECT * FROM ledger.events"
    " ON CONFLICT (position) DO UPDATE SET body = ''",
    "MERGE INTO ledger.events e USING ledger.events f ON e.position = f.position"
    " WHEN MATCHED THEN DELETE",
]
# What would open the way to a change.
TRICKS = [
    "DROP TRIGGER events_stay ON ledger.events",
    "DROP TRIGGER events_are_not_emptied ON ledger.events",
    "ALTER TABLE ledger.events DISABLE TRIGGER events_stay",
    "ALTER TABLE ledger.events DISABLE TRIGGER ALL",
    "ALTER TABLE ledger.events DROP COLUMN leaf",
    "ALTER TABLE ledger.events DROP CONSTRAINT event_is_well_formed",
    "ALTER TABLE ledger.events OWNER TO guishu_app",
    "ALTER TABLE ledger.events RENAME TO old_events",
    "ALTER TABLE ledger.events SET SCHEMA projections",
    "DROP TABLE ledger.events",
    "DROP SCHEMA ledger CASCADE",
    "CREATE RULE no_more AS ON INSERT TO ledger.events DO INSTEAD NOTHING",
    "CREATE TRIGGER mine BEFORE INSERT ON ledger.events"
    " FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()",
    "CREATE TABLE ledger.mine (number integer)",
    "DROP FUNCTION ledger.append_events_or_fail",
    "CREATE OR REPLACE FUNCTION ledger.append_lock_key() RETURNS bigint LANGUAGE sql"
    " IMMUTABLE AS 'SELECT 1'",
    "SELECT * FROM ledger.events FOR UPDATE",
    "SET session_replication_role = 'replica'",
    "ALTER ROLE guishu_app SUPERUSER",
]


def fill(urls: DatabaseUrls) -> None:
    with CommitterThread(urls.service_url) as committer:
        assert committer.append(asked("req", event(body=b"as it was"))) == Appended(1, 1)


def test_the_service_may_insert_and_select_and_nothing_else(urls: DatabaseUrls) -> None:
    fill(urls)
    with psycopg.connect(urls.service_url, autocommit=True) as connection:
        for statement in CHANGES + TRICKS:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement.encode())
        granted = connection.execute(
            "SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',"
            " 'REFERENCES', 'TRIGGER']) AS p"
            " WHERE has_table_privilege('guishu_app', 'ledger.events', p)"
        ).fetchall()
        assert granted == [("SELECT",), ("INSERT",)]
    assert bodies(urls) == [b"as it was"]


@pytest.mark.parametrize("replication_role", ["origin", "replica", "local"])
def test_even_a_superuser_changes_nothing_while_the_triggers_stand(
    urls: DatabaseUrls, replication_role: str
) -> None:
    fill(urls)
    with psycopg.connect(urls.superuser_url, autocommit=True) as connection:
        connection.execute(f"SET session_replication_role = '{replication_role}'".encode())
        for statement in CHANGES:
            with pytest.raises(InsufficientPrivilege, match="append-only"):
                connection.execute(statement.encode())
    assert bodies(urls) == [b"as it was"]


def test_the_owner_changes_nothing_either(urls: DatabaseUrls) -> None:
    fill(urls)
    with psycopg.connect(urls.owner_url, autocommit=True) as connection:
        for statement in CHANGES:
            with pytest.raises(InsufficientPrivilege, match="append-only"):
                connection.execute(statement.encode())
        with pytest.raises(InsufficientPrivilege):
            connection.execute("SET session_replication_role = 'replica'")
    assert bodies(urls) == [b"as it was"]


def test_nobody_else_has_any_right(urls: DatabaseUrls) -> None:
    with psycopg.connect(urls.superuser_url, autocommit=True) as connection:
        rights = connection.execute(
            "SELECT has_schema_privilege('public', 'ledger', 'USAGE'),"
            " (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            "  WHERE n.nspname = 'ledger' AND has_function_privilege('public', p.oid, 'EXECUTE'))"
        ).fetchone()
    assert rights == (False, 0)


def test_the_service_appends_as_much_as_it_likes(urls: DatabaseUrls) -> None:
    with CommitterThread(urls.service_url) as committer:
        results = committer.append_many([Append((event(f"s{number}"),)) for number in range(100)])
    assert results == [Appended(number, 1) for number in range(1, 101)]
