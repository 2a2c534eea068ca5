"""A served ledger: the application on the database of one test, its consumers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from fastapi import FastAPI

from api.http.app import create_app
from api.http.services import Services
from tests.api.http.office import Office, deciding_office
from tests.support.database import DatabaseUrls


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """The application, which serves one office after another: its routes take long to make."""
    return create_app(cast(Services, None))


@pytest.fixture
def office(app: FastAPI, database: DatabaseUrls, tmp_path: Path) -> Iterator[Office]:
    """An organisation with people of every role, served; tokens by person."""
    with deciding_office(database, tmp_path, app) as office:
        yield office


@schemathesis.serializer("application/x-ndjson")
def _lines(context: Any, value: Any) -> bytes:
    """Send lines of JSON as they are; schemathesis knows of no such bodies."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
