"""Waiting until what was recorded is decided and shown."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection

from api import running
from consumers import progress
from ledger.errors import BusyError, OutcomeUnknownError, StoreFullError
from ledger.store.reading import head
from tests.support.database import DatabaseUrls
from tests.support.ledgers import open_test_ledger


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
