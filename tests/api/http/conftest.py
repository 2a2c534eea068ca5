"""A served ledger: the application on the database of one test, its consumers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from tests.api.http.office import Office, deciding_office
from tests.support.database import DatabaseUrls


@pytest.fixture
def office(database: DatabaseUrls, tmp_path: Path) -> Iterator[Office]:
    """An organisation with people of every role, served; tokens by person."""
    with deciding_office(database, tmp_path) as office:
        yield office


@schemathesis.serializer("application/x-ndjson")
def _lines(context: Any, value: Any) -> bytes:
    """Send lines of JSON as they are; schemathesis knows of no such bodies."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
