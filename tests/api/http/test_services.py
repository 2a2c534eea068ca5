"""What the routes work with."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.bootstrap import open_ledger
from api.http import services
from api.settings import Settings
from tests.api.http.office import make_office
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY


def test_reads_wait_until_the_read_models_are_made(
    database: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a projector that had only begun they found no tables: a defect, for their callers."""
    monkeypatch.setattr(services, "REFLECT_SECONDS_MAX", 0.02)
    settings = Settings(
        database_url=database.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        owner_database_url=database.owner_url,  # type: ignore[arg-type]
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=tmp_path,
    )
    with open_ledger(settings, migrating=False) as ledger, services.open_services(ledger) as parts:
        office = make_office(parts, datetime.now(UTC) + timedelta(hours=1))
        answer = office.get("per_a", "/v1/customers")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_reflected")
        assert answer.headers["Retry-After"] == "1"
