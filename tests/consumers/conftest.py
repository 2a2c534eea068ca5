"""The ledger that the tests of the consumers begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger.policy import Policy
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

PEOPLE = [f"per_{number}" for number in range(50)]


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """A ledger with fifty reps of one territory, who may claim as much as they like in a day."""
    with open_test_ledger(database) as opened:
        opened.found(PEOPLE, Policy(daily_claim_limit=None))
        yield opened
