"""Bring a database's schema up to date, by numbered SQL files that are applied once, in order.

The files stand in the top-level package ``migrations`` as ``NNNN_name.sql``. They run with an
empty ``search_path``, so that every name in them says its schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

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

POSTGRES_VERSION_MIN = 15
CONNECT_SECONDS_MAX = 10

# How long to wait for another process that migrates the same database.
BUSY_SECONDS_MAX = 300

# A change of a live table waits for its readers, and new readers queue behind the change.
# Giving up and trying again later is better than a standstill.
TABLE_LOCK_SECONDS_MAX = 30

# Any fixed number does: it is the name of this lock among the database's advisory locks.
_ADVISORY_LOCK = 0x6775_6973_6875_0001

_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS public.guishu_migrations (
    number     integer PRIMARY KEY CHECK (number > 0),
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
# The catalog can be read without any right on schema public, other than to_regclass.
_TABLE_EXISTS = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname = 'guishu_migrations'
)
"""
_APPLIED = "SELECT number, name, sha256, applied_at FROM public.guishu_migrations ORDER BY number"
_RECORD = """
INSERT INTO public.guishu_migrations (number, name, sha256) VALUES (%s, %s, %s)
RETURNING number, name, sha256, applied_at
"""


@dataclass(frozen=True)
class Migration:
    """A migration file: its number, name, text, and the SHA-256 of its text in hexadecimal."""

    number: int
    name: str
    text: str
    sha256: str


@dataclass(frozen=True)
class AppliedMigration:
    """A migration that a database has: what was applied, and when (UTC)."""

    number: int
    name: str
    sha256: str
    applied_at: datetime


@dataclass(frozen=True)
class MigrationStatus:
    """How a database's schema stands to this program's; it is up to date if none is pending."""

    applied: list[AppliedMigration]
    pending: list[Migration]


def shipped_migrations(folder: Traversable | None = None) -> list[Migration]:
    """Return the migrations of ``folder`` (default: those of this program), in order.

    Raises:
        MigrationFilesError: a ``.sql`` file is not named ``NNNN_name.sql``, or the numbers are
            not 1, 2, 3 and so on.
    """
    found = [
        _read(file) for file in (folder or files("migrations")).iterdir() if _is_sql(file.name)
    ]
    found.sort(key=lambda migration: migration.number)
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationFilesError(
                f"migration {expected:04} is missing or double among the shipped files "
                f"(next to {migration.number:04}_{migration.name}.sql)",
                way_out="Number the files 0001, 0002 and so on, or install the program anew.",
            )
    return found


def migrate(owner_url: str, *, folder: Traversable | None = None) -> list[AppliedMigration]:
    """Apply what is pending, each file in its own transaction, and return what was applied now.

    Safe to call from several processes at once: the others wait, and then find nothing to do.
    ``owner_url`` must lead to the server itself: a pooler that shares sessions between
    transactions would break the session's lock.

    Raises:
        DatabaseUnreachableError, PostgresTooOldError, DatabaseEncodingError: unusable server.
        MigrationFilesError: the shipped files are not numbered in order.
        MigrationEditedError, MigrationOrderError, DatabaseNewerError: the database was migrated
            with other files; nothing is applied.
        MigrationBusyError: another process has migrated for more than five minutes.
        MigrationFailedError: a file was refused; those before it stay applied.
    """
    shipped = shipped_migrations(folder)
    with _connection(owner_url) as connection, _alone(connection):
        _prepare_table(connection)
        pending = _compare(shipped, _applied(connection)).pending
        return [_apply(connection, migration) for migration in pending]


def status(url: str, *, folder: Traversable | None = None) -> MigrationStatus:
    """Tell what is applied and what is pending, and change nothing; the service's role will do.

    Raises:
        The errors of ``migrate`` about the server and about differing files, and
        SchemaUnreadableError if the role has no right to read.
    """
    shipped = shipped_migrations(folder)
    with _connection(url) as connection:
        exists = connection.execute(_TABLE_EXISTS).fetchone() == (True,)
        return _compare(shipped, _applied(connection) if exists else [])


def pending(url: str, *, folder: Traversable | None = None) -> list[Migration]:
    """Return the migrations that the database lacks; raises what ``status`` raises."""
    return status(url, folder=folder).pending


def _is_sql(file_name: str) -> bool:
    return file_name.endswith(".sql")


def _read(file: Traversable) -> Migration:
    match = _FILE_NAME.fullmatch(file.name)
    if match is None:
        raise MigrationFilesError(
            f"a migration file is called {file.name!r}",
            way_out="Call it NNNN_name.sql: four digits, small letters, digits and underscores.",
        )
    # A checkout on another system may have turned the line ends; that is no change of content.
    content = file.read_bytes().replace(b"\r\n", b"\n")
    return Migration(
        number=int(match["number"]),
        name=match["name"],
        text=content.decode("utf-8"),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _compare(shipped: list[Migration], applied: list[AppliedMigration]) -> MigrationStatus:
    known = {migration.number: migration for migration in shipped}
    for done in applied:
        migration = known.get(done.number)
        if migration is None:
            raise DatabaseNewerError(
                f"the database has migration {done.number:04}_{done.name}, "
                f"this program knows only {len(shipped)}",
                way_out="Use the version of guishu that migrated the database, or a newer one.",
            )
        if (migration.name, migration.sha256) != (done.name, done.sha256):
            raise MigrationEditedError(
                f"migration {done.number:04}_{migration.name}.sql differs from what was applied "
                f"as {done.number:04}_{done.name} at {done.applied_at.isoformat()}",
                way_out="Restore the file as it was; put the change into a new migration.",
            )
    numbers = {done.number for done in applied}
    missing = [number for number in range(1, len(numbers) + 1) if number not in numbers]
    if missing:
        raise MigrationOrderError(
            f"the database lacks migration {missing[0]:04}, but has a later one",
            way_out="Restore table public.guishu_migrations, or the database, from a backup.",
        )
    return MigrationStatus(applied=applied, pending=shipped[len(applied) :])


@contextmanager
def _connection(url: str) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS_MAX,
            fallback_application_name="guishu migrate",
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnreachableError(
            f"no connection to the database: {str(error).strip()}",
            way_out="Check that the server runs, and the address, user, role and password.",
        ) from error
    with connection:
        _check_server(connection)
        connection.execute("SELECT set_config('search_path', '', false)")
        connection.execute("SET timezone = 'UTC'")
        # If this process is killed, the statement ends and the lock is free; not every system
        # on which PostgreSQL runs can tell.
        with suppress(psycopg.errors.InvalidParameterValue):
            connection.execute("SET client_connection_check_interval = '2s'")
        yield connection


def _check_server(connection: psycopg.Connection) -> None:
    major = connection.info.server_version // 10_000
    if major < POSTGRES_VERSION_MIN:
        raise PostgresTooOldError(
            f"the server is PostgreSQL {major}, guishu needs {POSTGRES_VERSION_MIN} or newer",
            way_out="Upgrade the server, or leave DATABASE_URL empty to use the embedded one.",
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseEncodingError(
            f"the database stores text as {encoding}, guishu needs UTF8",
            way_out="Create the database with ENCODING 'UTF8' TEMPLATE template0.",
        )


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    _set_lock_timeout(connection, BUSY_SECONDS_MAX)
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationBusyError(
            f"another process has been migrating for {BUSY_SECONDS_MAX} seconds",
            way_out="Wait for it, or look into pg_stat_activity for 'guishu migrate'.",
        ) from error
    # The lock ends with the session, also if this process dies.
    _set_lock_timeout(connection, TABLE_LOCK_SECONDS_MAX)
    yield


def _set_lock_timeout(connection: psycopg.Connection, seconds: int) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{seconds}s"])


def _prepare_table(connection: psycopg.Connection) -> None:
    # Asked first, because CREATE TABLE IF NOT EXISTS sends a notice when there is nothing to do.
    if connection.execute(_TABLE_EXISTS).fetchone() == (True,):
        return
    try:
        connection.execute(_CREATE_TABLE)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationFailedError(
            "the role may not create tables in schema public",
            way_out="Migrate as the database's owner: set GUISHU_OWNER_DATABASE_URL.",
        ) from error


def _applied(connection: psycopg.Connection) -> list[AppliedMigration]:
    try:
        with connection.cursor(row_factory=class_row(AppliedMigration)) as cursor:
            return cursor.execute(_APPLIED).fetchall()
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaUnreadableError(
            "the role may not read which migrations were applied",
            way_out="Connect as guishu_app or as the database's owner.",
        ) from error


def _apply(connection: psycopg.Connection, migration: Migration) -> AppliedMigration:
    title = f"{migration.number:04}_{migration.name}.sql"
    try:
        with (
            connection.transaction(),
            connection.cursor(row_factory=class_row(AppliedMigration)) as cursor,
        ):
            # Bytes, because the text is ours and holds no parameters.
            cursor.execute(migration.text.encode())
            if connection.info.transaction_status is not TransactionStatus.INTRANS:
                raise MigrationFailedError(
                    f"migration {title} ends its own transaction",
                    way_out="Take BEGIN, COMMIT and ROLLBACK out of the file.",
                )
            values = [migration.number, migration.name, migration.sha256]
            recorded = cursor.execute(_RECORD, values).fetchone()
            assert recorded is not None, "INSERT ... RETURNING gives its row"  # noqa: S101 - invariant
            return recorded
    except psycopg.Error as error:
        raise MigrationFailedError(
            f"migration {title} was refused: {str(error).strip()}",
            way_out="Nothing of it was applied. Mend the cause and migrate again.",
        ) from error
