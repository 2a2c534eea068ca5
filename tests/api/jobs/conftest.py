"""An open ledger on the database of one test, without anybody who serves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.bootstrap import Ledger, open_ledger
from api.settings import Settings
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY


@pytest.fixture
def settings(database: DatabaseUrls, tmp_path: Path) -> Settings:
    """The settings of a process that works on the database of this test."""
    return Settings(
        database_url=database.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        owner_database_url=database.owner_url,  # type: ignore[arg-type]
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=tmp_path,
    )


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """An open ledger; nobody decides, projects or does jobs."""
    with open_ledger(settings, migrating=False) as opened:
        yield opened
