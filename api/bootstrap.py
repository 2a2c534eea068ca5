"""The composition root: from settings to the parts of a process, wired in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from api.database import Database, open_database
from api.settings import Settings
from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from ledger.events.catalogue import Catalogue, catalogue
from ledger.recording import Recording
from ledger.sealing import Vault
from ledger.store import arrays
from ledger.store.committer import CommitterThread
from ledger.store.generations import is_in_force, open_generation
from ledger.store.hints import Notifier
from ledger.store.migrations import migrate, pending
from ledger.store.silence import connect_impatient
from projections.base import Projection
from projections.registry import all_projections

# The pool doubles its pause at each try, and begins anew with the next who asks after this. With
# its own five minutes the database could be back for two before anybody notices.
_RECONNECT_SECONDS_MAX = 3.0


@dataclass(frozen=True)
class Ledger:
    """An open ledger: what a command, the API or a consumer works with."""

    settings: Settings
    database: Database
    pool: ConnectionPool[Connection[Any]] = field(repr=False)
    committer: CommitterThread = field(repr=False)
    notifier: Notifier = field(repr=False)
    vault: Vault = field(repr=False)
    catalogue: Catalogue = field(repr=False)
    recording: Recording = field(repr=False)
    projections: tuple[Projection, ...] = field(repr=False)

    @contextmanager
    def dedicated(
        self, name: str, silence_seconds_max: float | None = None
    ) -> Iterator[Connection[Any]]:
        """Open a connection outside the pool, for a consumer that keeps it (autocommit).

        After so long without a word from the server it ends itself; by default never.
        """
        with connect_impatient(
            self.database.service_url,
            silence_seconds_max,
            autocommit=True,
            application_name=f"guishu-{name}",
        ) as connection:
            arrays.register(connection)
            yield connection

    @contextmanager
    def enforcer(self) -> Iterator[Enforcer]:
        """Open an enforcer that has taken over; end with the block."""
        with self.dedicated("enforcer") as connection:
            enforcer = Enforcer(connection, StoreFeed(), self.catalogue)
            enforcer.start()
            yield enforcer


def _configure(connection: Connection[Any]) -> None:
    connection.autocommit = True
    arrays.register(connection)


def _open_generation(connection: Connection[Any], settings: Settings) -> None:
    """Open a generation where this server has not written before, behind all that Kafka knows of.

    While Kafka does not answer, only a server that has passed this goes on recording.
    """
    if is_in_force(connection):
        return
    if settings.kafka_bootstrap is None:
        open_generation(connection)
        return
    # They take a while to import, and are seldom needed.
    from api.kafka import cluster_of
    from consumers.kafka.tail import open_behind_tail

    open_behind_tail(connection, cluster_of(settings))


@contextmanager
def connected(settings: Settings) -> Iterator[Connection[Any]]:
    """Connect to the database as the service (autocommit) without opening a generation.

    The embedded server is migrated. Raises what ``open_database`` and ``migrate`` raise.
    """
    with open_database(settings) as database:
        if database.embedded:
            migrate(database.owner_url)
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            arrays.register(connection)
            yield connection


@contextmanager
def open_ledger(settings: Settings, *, migrating: bool = True) -> Iterator[Ledger]:
    """Open everything that the settings name, and close it in the opposite order.

    With the embedded server pending migrations are applied; with DATABASE_URL only where
    ``migrating`` says so. Raises what ``open_database`` and ``migrate`` raise; where this server
    has not written before, and Kafka has to be asked, also what ``open_behind_tail`` does.
    """
    with open_database(settings) as database:
        if database.embedded or (migrating and pending(database.owner_url)):
            migrate(database.owner_url)
        with (
            ConnectionPool(
                database.service_url,
                min_size=settings.pool_connections_min,
                max_size=settings.pool_connections_max,
                timeout=settings.pool_wait_seconds_max,
                reconnect_timeout=_RECONNECT_SECONDS_MAX,
                configure=_configure,
                name="guishu",
            ) as pool,
            Notifier(database.service_url) as notifier,
            CommitterThread(database.service_url, committed=notifier.hint) as committer,
        ):
            with pool.connection() as connection:
                _open_generation(connection, settings)
            vault = Vault(pool.connection, database.master_key)
            vault.check_master_key()
            events = catalogue()
            recording = Recording(committer, pool.connection, vault, events)
            models = all_projections(vault)
            yield Ledger(
                settings,
                database,
                pool,
                committer,
                notifier,
                vault,
                events,
                recording,
                models,
            )
