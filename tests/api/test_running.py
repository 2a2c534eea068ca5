"""Waiting until what was recorded is decided and shown."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection

from api import running
from consumers import progress
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
