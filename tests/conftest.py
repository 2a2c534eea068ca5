"""What all tests share: one PostgreSQL a session, and a database of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from consumers.kafka.local import LocalKafka, local_kafka
from ledger.store.embedded import embedded_server
from tests.support.database import DatabaseServer, DatabaseUrls, Templates
from tests.support.folders import data_folder

# What fails is shown as it was found: to look for the smallest that fails takes many minutes where
# each example has a database. ``pytest --hypothesis-profile=default`` looks for it.
settings.register_profile("as_found", phases=[each for each in Phase if each is not Phase.shrink])
settings.load_profile("as_found")


@pytest.fixture
def servers_folder() -> Iterator[Path]:
    """An empty folder for the data of embedded servers that a test starts itself.

    For root, pytest closes the folder above all its ``tmp_path`` again at the start of each
    session, so that the user of a server that another session has there cannot reach its data.
    """
    with data_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """The server of this session: embedded, or the one that DATABASE_URL names as superuser."""
    external = os.environ.get("DATABASE_URL")
    if external:
        server = DatabaseServer(external, embedded=None)
        server.make_external_roles()
        yield server
        return
    # Not in tmp_path, for the reason that servers_folder gives.
    with (
        data_folder() as folder,
        embedded_server(folder) as embedded,
    ):
        server = DatabaseServer(embedded.superuser_url, embedded)
        server.wait_for_the_disk(on=False)
        # The data may be in memory.
        server.set("max_wal_size", "256MB")
        yield server


@pytest.fixture
def durable(postgres: DatabaseServer) -> Iterator[None]:
    """The server of this session waits for the disk at each commit, as in production.

    For modules about faults and what outlives them; other tests need not wait.
    """
    if postgres.embedded is None:
        yield
        return
    postgres.wait_for_the_disk(on=True)
    yield
    postgres.wait_for_the_disk(on=False)


@pytest.fixture(scope="session")
def migrated_template(postgres: DatabaseServer) -> Iterator[str]:
    """The name of a database with all migrations applied, to copy from; nobody connects to it."""
    with postgres.migrated_template() as name:
        yield name


@pytest.fixture(scope="session")
def templates(postgres: DatabaseServer, migrated_template: str) -> Iterator[Templates]:
    """What several tests of this session begin with."""
    with Templates(postgres, migrated_template) as opened:
        yield opened


@pytest.fixture
def database(postgres: DatabaseServer, migrated_template: str) -> Iterator[DatabaseUrls]:
    """A fresh database with all migrations applied."""
    with postgres.database(migrated_template) as urls:
        yield urls


@pytest.fixture
def unmigrated(postgres: DatabaseServer) -> Iterator[DatabaseUrls]:
    """A fresh database without anything in it."""
    with postgres.database() as urls:
        yield urls


@pytest.fixture
def more_databases(
    postgres: DatabaseServer, migrated_template: str
) -> Iterator[Callable[[], DatabaseUrls]]:
    """Call it for one more fresh, migrated database in the same test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(postgres.database(migrated_template))


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """The Apache Kafka of this session: one real broker, started when the first test asks for it.

    A test has topics of its own names. It may kill the broker, if it starts it again.
    """
    with (
        data_folder() as folder,
        local_kafka(folder, grace_seconds=0) as started,
    ):
        yield started
