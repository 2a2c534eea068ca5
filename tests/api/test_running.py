"""Waiting until what was recorded is decided and shown."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from api import running
from api.bootstrap import open_ledger
from consumers import progress
from consumers.enforcer import EnforcerLimits
from consumers.kafka import enforcing as partitions
from consumers.kafka.connecting import Cluster
from consumers.leading import Connect
from ledger.errors import BusyError, OutcomeUnknownError, StoreFullError
from ledger.store.reading import head
from ledger.store.silence import ImpatientConnection
from tests.api.http.office import settings_of
from tests.api.projecting_process import SOON_MISSED
from tests.support.database import DatabaseUrls
from tests.support.ledgers import open_test_ledger
from tests.support.processes import start, wait_until


def test_the_head_is_no_older_than_what_was_decided(
    database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head was read first: decisions made just then counted as shown before they were."""
    with open_test_ledger(database) as ledger:
        ledger.found(["per_1"])
        ledger.register("苏州恒信电子有限公司", claim_for="per_1")
        reached = progress.reached

        def decided_just_now(connection: Connection[Any], consumer: str) -> int:
            ledger.decide()
            return reached(connection, consumer)

        monkeypatch.setattr(progress, "reached", decided_just_now)
        at_head, decided, _ = running.reflected(ledger.connection)
        assert decided > 0
        assert at_head == head(ledger.connection)


@pytest.mark.parametrize(
    "error",
    [
        OutcomeUnknownError("The connection was lost.", way_out="Ask again."),
        StoreFullError("There is no room left.", way_out="Make room."),
        BusyError(retry_after_seconds=1),
        psycopg.errors.IdleInTransactionSessionTimeout("the process was stopped for a while"),
    ],
)
def test_what_passes_ends_no_consumer(error: Exception) -> None:
    """A full disk, or a reply that a restart had lost, ended the clock and with it the process."""
    tried = []
    service = running.Service()

    def work(service: running.Service) -> None:
        tried.append(error)
        if len(tried) == 1:
            raise error
        service.stop.set()

    service.start("clock", work)
    service.threads[0].join()
    assert (len(tried), service.failure) == (2, None)


def test_a_projector_that_was_stopped_is_replaced_and_does_no_harm_when_it_wakes_up(
    database: DatabaseUrls, tmp_path: Path
) -> None:
    """It kept its lead for as long as its process was there, and the read models stood still."""
    first = start(
        *(sys.executable, "-m", "tests.api.projecting_process"),
        *(database.service_url, tmp_path),
    )
    service = running.Service()
    try:
        with (
            open_ledger(settings_of(database, tmp_path), migrating=False) as ledger,
            open_test_ledger(database) as recorder,
        ):

            def shown() -> bool:
                at_head, _, projected = running.reflected(recorder.connection)
                return projected == at_head

            recorder.found(["per_1"])
            wait_until(shown)
            service.start("projector", running.project(ledger, SOON_MISSED))
            first.send_signal(signal.SIGSTOP)
            recorder.register("甲公司")
            wait_until(shown)
            first.send_signal(signal.SIGCONT)
            recorder.register("乙公司")
            wait_until(shown)
            service.end()
    finally:
        service.stop.set()
        first.kill()
        first.wait()
    assert service.failure is None


def test_an_enforcer_of_partitions_gives_up_a_database_that_says_nothing(
    database: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Kafka has given to it nobody else decides while it waits."""
    patience = []

    def enforce(connect: Connect, *_: object, **__: object) -> None:
        with connect() as connection:
            assert isinstance(connection, ImpatientConnection)
            patience.append(connection.silence_seconds_max)

    monkeypatch.setattr(partitions, "enforce_partitions", enforce)
    with open_ledger(settings_of(database, tmp_path), migrating=False) as ledger:
        running.enforce_partitions(ledger, Cluster("localhost:1"))(running.Service())
    assert patience == [EnforcerLimits().silence_seconds_max]
