"""A served ledger: the application on the database of one test, its consumers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.bootstrap import open_ledger
from api.http.services import open_services
from api.running import running, settle
from api.settings import Settings
from tests.api.http.office import Office, make_office
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY


@pytest.fixture
def office(database: DatabaseUrls, tmp_path: Path) -> Iterator[Office]:
    """An organisation with people of every role, served; tokens by person."""
    import base64

    settings = Settings(
        database_url=database.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        owner_database_url=database.owner_url,  # type: ignore[arg-type]
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=tmp_path,
    )
    with (
        open_ledger(settings, migrating=False) as ledger,
        running(ledger),
        open_services(ledger) as services,
    ):
        expires = datetime.now(UTC) + timedelta(hours=1)
        office = make_office(services, expires)
        settle(ledger, timeout_seconds=60)
        yield office
