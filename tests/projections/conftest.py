"""Fixtures of the tests of read models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.projections.models import Models, connected
from tests.support.database import DatabaseUrls


@pytest.fixture
def models(database: DatabaseUrls) -> Iterator[Models]:
    """An empty log, and read models of it."""
    with connected(database.service_url) as connection:
        yield Models(database, connection)
