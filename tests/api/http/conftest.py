"""A served ledger: the application on the database of one test, its consumers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.http.office import Office, deciding_office
from tests.support.database import DatabaseUrls


@pytest.fixture
def office(database: DatabaseUrls, tmp_path: Path) -> Iterator[Office]:
    """An organisation with people of every role, served; tokens by person."""
    with deciding_office(database, tmp_path) as office:
        yield office
