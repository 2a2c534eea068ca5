"""Databases for tests: each test gets its own, copied from one that was migrated once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ledger.store.embedded import OWNER_ROLE, SERVICE_ROLE, EmbeddedServer
from ledger.store.migrations import migrate
from tests.support.processes import wait_until

EXTERNAL_OWNER_ROLE = "guishu_test_owner"


@dataclass(frozen=True)
class DatabaseUrls:
    """One database, as seen by its owner (no superuser), by the service, and by a superuser."""

    name: str
    owner_url: str
    service_url: str
    superuser_url: str


@dataclass(frozen=True)
class DatabaseServer:
    """The server of a test session: ``embedded``, or one that DATABASE_URL names as superuser."""

    superuser_url: str
    embedded: EmbeddedServer | None

    def urls(self, name: str) -> DatabaseUrls:
        """Return how to connect to database ``name``."""
        superuser_url = make_conninfo(self.superuser_url, dbname=name)
        if self.embedded is not None:
            owner_url = self.embedded.url(OWNER_ROLE, name)
            service_url = self.embedded.url(SERVICE_ROLE, name)
        else:
            owner_url = make_conninfo(superuser_url, options=f"-c role={EXTERNAL_OWNER_ROLE}")
            # The time-out that a login as guishu_app would bring along from the role.
            timeout = "-c idle_in_transaction_session_timeout=10s"
            service_url = make_conninfo(superuser_url, options=f"-c role={SERVICE_ROLE} {timeout}")
        return DatabaseUrls(name, owner_url, service_url, superuser_url)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[DatabaseUrls]:
        """Make a database, a copy of ``template``, and drop it afterwards, whoever still uses it.

        The name is random, so that sessions that share a server do not meet.
        """
        name = f"guishu_test_{secrets.token_hex(6)}"
        owner = OWNER_ROLE if self.embedded is not None else EXTERNAL_OWNER_ROLE
        self._execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template)
            )
        )
        try:
            yield self.urls(name)
        finally:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            self._execute(drop.format(sql.Identifier(name)))

    @contextmanager
    def migrated_template(self) -> Iterator[str]:
        """Make a database with all migrations applied, and return its name."""
        with self.database() as urls:
            migrate(urls.owner_url)
            yield urls.name

    def make_external_roles(self) -> None:
        """Make the roles of the tests on a foreign server; they own nothing and stay there."""
        for role in (EXTERNAL_OWNER_ROLE, SERVICE_ROLE):
            # Another session may be making it at this moment.
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                self._execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        grant = sql.SQL("GRANT {} TO {}")
        with suppress(psycopg.errors.UniqueViolation, psycopg.errors.InternalError_):
            self._execute(
                grant.format(sql.Identifier(SERVICE_ROLE), sql.Identifier(EXTERNAL_OWNER_ROLE))
            )

    def wait_for_the_disk(self, *, on: bool) -> None:
        """Say whether what is committed must have reached the disk, or the operating system only.

        In either case it outlives every process, the server's own too.
        """
        self.set("fsync", "on" if on else "off")

    def set(self, setting: str, value: str) -> None:
        """Set something for all sessions that begin from now on; ``value`` as the server shows it.

        Sessions that are there see it at their next statement or so.
        """
        change = sql.SQL("ALTER SYSTEM SET {} = {}")
        self._execute(change.format(sql.Identifier(setting), sql.Literal(value)))
        self._execute(sql.SQL("SELECT pg_reload_conf()"))
        wait_until(lambda: self._shown(setting) == value)

    def _shown(self, setting: str) -> object:
        """Return a setting as a new session finds it."""
        with psycopg.connect(self.superuser_url, autocommit=True, connect_timeout=10) as connection:
            row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
            return row[0] if row else None

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.superuser_url, autocommit=True, connect_timeout=10) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(statement)


class Templates:
    """Databases that are made ready once, for the tests that begin with a copy of one.

    A context manager, which drops them.
    """

    def __init__(self, server: DatabaseServer, migrated: str) -> None:
        self._server = server
        self._migrated = migrated
        self._ready: dict[object, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def copy(self, what: object, prepare: Callable[[DatabaseUrls], None]) -> Iterator[DatabaseUrls]:
        """Copy the database of ``what``; at the first time ``prepare`` makes a migrated one so.

        Nobody may be connected to it when ``prepare`` returns.
        """
        if what not in self._ready:
            urls = self._stack.enter_context(self._server.database(self._migrated))
            prepare(urls)
            self._ready[what] = urls.name
        with self._server.database(self._ready[what]) as urls:
            yield urls
