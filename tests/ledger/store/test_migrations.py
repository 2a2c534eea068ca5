"""Migrations: each once, in order, by one process at a time, and never by other files."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ledger.errors import LedgerError
from ledger.store import migrations
from ledger.store.embedded import embedded_server
from ledger.store.errors import (
    DatabaseEncodingError,
    DatabaseNewerError,
    DatabaseUnreachableError,
    MigrationBusyError,
    MigrationEditedError,
    MigrationFailedError,
    MigrationFilesError,
    MigrationOrderError,
    PostgresTooOldError,
    SchemaUnreadableError,
)
from ledger.store.migrations import migrate, pending, shipped_migrations, status
from tests.support.database import DatabaseServer, DatabaseUrls
from tests.support.processes import start, wait_until

FIRST = "CREATE TABLE public.first (id integer);\nINSERT INTO public.first VALUES (1);\n"
SECOND = "CREATE TABLE public.second (id integer);\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two migrations of its own."""
    path = tmp_path / "sql"
    path.mkdir()
    (path / "0001_first.sql").write_text(FIRST)
    (path / "0002_second.sql").write_text(SECOND)
    return path


def _tables(urls: DatabaseUrls) -> set[str]:
    query = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
    with psycopg.connect(urls.superuser_url) as connection:
        return {row[0] for row in connection.execute(query).fetchall()}


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_the_shipped_migrations_are_applied_once_in_order(unmigrated: DatabaseUrls) -> None:
    shipped = shipped_migrations()
    assert [migration.number for migration in shipped] == list(range(1, len(shipped) + 1))
    assert pending(unmigrated.owner_url) == shipped
    applied = migrate(unmigrated.owner_url)
    assert [(done.number, done.name, done.sha256) for done in applied] == [
        (migration.number, migration.name, migration.sha256) for migration in shipped
    ]
    assert all(done.applied_at.utcoffset() == timedelta(0) for done in applied)
    assert migrate(unmigrated.owner_url) == []
    assert status(unmigrated.owner_url).applied == applied


def test_every_shipped_file_starts_with_its_reason() -> None:
    for migration in shipped_migrations():
        assert migration.text.startswith("-- "), migration.name


def test_the_service_can_tell_whether_it_is_up_to_date(
    database: DatabaseUrls, folder: Path
) -> None:
    assert pending(database.service_url) == []
    shipped = shipped_migrations()
    for migration in shipped:
        (folder / f"{migration.number:04}_{migration.name}.sql").write_text(migration.text)
    (folder / "0001_first.sql").unlink()
    (folder / "0002_second.sql").unlink()
    (folder / f"{len(shipped) + 1:04}_next.sql").write_text("SELECT 1;")
    assert [each.name for each in pending(database.service_url, folder=folder)] == ["next"]


def test_many_at_once_apply_each_migration_once(unmigrated: DatabaseUrls) -> None:
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: migrate(unmigrated.owner_url), range(6)))
    applied = [done.number for result in results for done in result]
    assert applied == [migration.number for migration in shipped_migrations()]


def test_a_file_that_fails_is_undone_and_those_before_it_stay(
    unmigrated: DatabaseUrls, folder: Path
) -> None:
    (folder / "0002_second.sql").write_text(SECOND + "SELECT 1 / 0;\n")
    (folder / "0003_third.sql").write_text("CREATE TABLE public.third (id integer);")
    with pytest.raises(MigrationFailedError, match=r"0002_second\.sql.*division by zero"):
        migrate(unmigrated.owner_url, folder=folder)
    assert _tables(unmigrated) == {"guishu_migrations", "first"}
    (folder / "0002_second.sql").write_text(SECOND)
    assert [done.number for done in migrate(unmigrated.owner_url, folder=folder)] == [2, 3]


def test_a_file_that_commits_by_itself_is_refused(unmigrated: DatabaseUrls, folder: Path) -> None:
    (folder / "0002_second.sql").write_text(SECOND + "COMMIT;\n")
    with pytest.raises(MigrationFailedError, match="ends its own transaction"):
        migrate(unmigrated.owner_url, folder=folder)
    assert [done.number for done in status(unmigrated.owner_url, folder=folder).pending] == [2]


def test_names_without_a_schema_are_refused(unmigrated: DatabaseUrls, folder: Path) -> None:
    (folder / "0002_second.sql").write_text("CREATE TABLE second (id integer);")
    with pytest.raises(MigrationFailedError, match="no schema"):
        migrate(unmigrated.owner_url, folder=folder)


def _edit(folder: Path) -> None:
    (folder / "0001_first.sql").write_text(FIRST + "-- a harmless remark\n")


def _rename(folder: Path) -> None:
    (folder / "0001_first.sql").rename(folder / "0001_other.sql")


def _remove_last(folder: Path) -> None:
    (folder / "0002_second.sql").unlink()


def _remove_first(folder: Path) -> None:
    (folder / "0001_first.sql").unlink()


def _double(folder: Path) -> None:
    (folder / "0002_again.sql").write_text(SECOND)


def _misname(folder: Path) -> None:
    (folder / "003-third.sql").write_text(SECOND)


def _start_at_zero(folder: Path) -> None:
    (folder / "0000_zero.sql").write_text(SECOND)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_edit, MigrationEditedError),
        (_rename, MigrationEditedError),
        (_remove_last, DatabaseNewerError),
        (_remove_first, MigrationFilesError),
        (_double, MigrationFilesError),
        (_misname, MigrationFilesError),
        (_start_at_zero, MigrationFilesError),
    ],
)
def test_other_files_than_those_applied_are_an_error_and_change_nothing(
    unmigrated: DatabaseUrls,
    folder: Path,
    change: Callable[[Path], None],
    error: type[LedgerError],
) -> None:
    migrate(unmigrated.owner_url, folder=folder)
    change(folder)
    (folder / "0003_third.sql").write_text("CREATE TABLE public.third (id integer);")
    if change is _remove_last:
        (folder / "0003_third.sql").unlink()
    for call in (migrate, status, pending):
        with pytest.raises(error) as raised:
            call(unmigrated.owner_url, folder=folder)
        assert raised.value.way_out
    assert "third" not in _tables(unmigrated)


def test_a_database_that_lacks_an_earlier_migration_is_an_error(
    unmigrated: DatabaseUrls, folder: Path
) -> None:
    migrate(unmigrated.owner_url, folder=folder)
    _execute(unmigrated.owner_url, "DELETE FROM public.guishu_migrations WHERE number = 1")
    with pytest.raises(MigrationOrderError, match="0001"):
        migrate(unmigrated.owner_url, folder=folder)


def test_line_ends_of_another_system_are_no_change(unmigrated: DatabaseUrls, folder: Path) -> None:
    migrate(unmigrated.owner_url, folder=folder)
    (folder / "0001_first.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert migrate(unmigrated.owner_url, folder=folder) == []


def test_an_old_server_is_refused(
    unmigrated: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "POSTGRES_VERSION_MIN", 99)
    with pytest.raises(PostgresTooOldError, match="needs 99"):
        migrate(unmigrated.owner_url)
    assert _tables(unmigrated) == set()


def test_a_database_in_another_encoding_is_refused(
    postgres: DatabaseServer, unmigrated: DatabaseUrls
) -> None:
    name = sql.Identifier(f"{unmigrated.name}_latin")
    with psycopg.connect(postgres.superuser_url, autocommit=True) as connection:
        create = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1'"
        locale = " LOCALE_PROVIDER libc LOCALE 'C'"
        connection.execute(sql.SQL(create + locale).format(name))
        try:
            with pytest.raises(DatabaseEncodingError, match="LATIN1"):
                migrate(make_conninfo(postgres.superuser_url, dbname=f"{unmigrated.name}_latin"))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_a_server_that_is_not_there_is_a_typed_error_without_the_password() -> None:
    with pytest.raises(DatabaseUnreachableError) as raised:
        migrate("postgresql://somebody:hunter2@127.0.0.1:1/nowhere")
    assert "hunter2" not in str(raised.value)


def test_a_role_without_rights_is_told_so(database: DatabaseUrls) -> None:
    url = make_conninfo(database.superuser_url, options="-c role=pg_signal_backend")
    with pytest.raises(SchemaUnreadableError):
        status(url)
    with pytest.raises(LedgerError):
        migrate(url)


def test_the_service_cannot_migrate(unmigrated: DatabaseUrls) -> None:
    with pytest.raises(MigrationFailedError, match="may not create"):
        migrate(unmigrated.service_url)
    assert _tables(unmigrated) == set()


def test_waiting_for_another_process_has_an_end(
    unmigrated: DatabaseUrls, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "BUSY_SECONDS_MAX", 1)
    with psycopg.connect(unmigrated.owner_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [migrations._ADVISORY_LOCK])
        with pytest.raises(MigrationBusyError):
            migrate(unmigrated.owner_url, folder=folder)
    assert _tables(unmigrated) == set()


def test_a_migration_whose_process_was_killed_leaves_nothing_and_is_done_again(
    unmigrated: DatabaseUrls, folder: Path
) -> None:
    (folder / "0002_second.sql").write_text(SECOND + "SELECT pg_sleep(600);\n")
    code = (
        "import sys, pathlib; from ledger.store.migrations import migrate;"
        "migrate(sys.argv[1], folder=pathlib.Path(sys.argv[2]))"
    )
    process = start(sys.executable, "-c", code, unmigrated.owner_url, str(folder))
    try:
        with psycopg.connect(unmigrated.superuser_url, autocommit=True) as watch:
            query = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event = 'PgSleep'"
            )
            wait_until(lambda: watch.execute(query).fetchone() == (1,))
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert _tables(unmigrated) == {"guishu_migrations", "first"}
    finally:
        process.kill()
        process.wait()
    (folder / "0002_second.sql").write_text(SECOND)
    assert [done.number for done in migrate(unmigrated.owner_url, folder=folder)] == [2]


@pytest.fixture(params=["owner", "superuser"])
def cluster_without_role(
    request: pytest.FixtureRequest, servers_folder: Path
) -> Iterator[Callable[[str], str]]:
    """Make databases on a cluster that never saw guishu; call it for the owner's URL of one."""
    with embedded_server(servers_folder / "fresh") as server, ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(server.superuser_url, autocommit=True))
        admin.execute("DROP ROLE guishu_app")
        admin.execute("ALTER ROLE guishu_owner CREATEROLE")
        role = "guishu_owner" if request.param == "owner" else "postgres"

        def make(name: str) -> str:
            create = sql.SQL("CREATE DATABASE {} OWNER {}")
            admin.execute(create.format(sql.Identifier(name), sql.Identifier(role)))
            return server.url(role, name)

        yield make


def test_several_databases_of_a_new_cluster_migrate_at_once(
    cluster_without_role: Callable[[str], str],
) -> None:
    """Roles belong to the cluster, and no lock of one database keeps the others from making it."""
    urls = [cluster_without_role(f"race_{number}") for number in range(6)]
    with ThreadPoolExecutor(len(urls)) as pool:
        results = list(pool.map(migrate, urls))
    assert all(len(result) == len(shipped_migrations()) for result in results)
    for url in urls:
        # The one who migrates can also serve: DATABASE_URL is often the owner's.
        with psycopg.connect(url, options="-c role=guishu_app") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("guishu_app",)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE ledger.mine (id integer)")
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = 'guishu_app'"
            ).fetchone()
            assert found == (False, False)


@pytest.mark.parametrize("schema", ["ledger", "keys", "public", "pg_catalog"])
def test_the_service_makes_no_objects_outside_of_the_read_models(
    database: DatabaseUrls, schema: str
) -> None:
    with psycopg.connect(database.service_url) as connection:
        connection.execute("CREATE TABLE projections.mine (id integer)")
        connection.execute("DROP TABLE projections.mine")
        create = sql.SQL("CREATE TABLE {}.mine (id integer)").format(sql.Identifier(schema))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(create)


def test_nobody_else_has_rights_in_the_schemas(database: DatabaseUrls) -> None:
    query = """
    SELECT nspname::text FROM pg_namespace
    WHERE nspname IN ('ledger', 'keys', 'projections', 'public')
      AND (has_schema_privilege('pg_signal_backend', nspname, 'USAGE')
           OR has_schema_privilege('pg_signal_backend', nspname, 'CREATE'))
    """
    with psycopg.connect(database.owner_url) as connection:
        assert connection.execute(query).fetchall() == []


@pytest.mark.parametrize("right", ["INSERT", "UPDATE", "DELETE", "TRUNCATE"])
def test_the_service_cannot_change_what_was_applied(database: DatabaseUrls, right: str) -> None:
    query = "SELECT has_table_privilege('public.guishu_migrations', %s)"
    with psycopg.connect(database.service_url) as connection:
        assert connection.execute(query, [right]).fetchone() == (False,)
