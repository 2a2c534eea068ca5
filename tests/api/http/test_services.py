"""What reads answer while there is nothing to read from yet."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import Response
from psycopg import Connection

from api.bootstrap import open_ledger
from api.http import finding, reflection
from api.http.directory import Directory
from api.http.services import Reads, open_services
from api.running import settle
from api.settings import Settings
from projections.runner import positions
from tests.api.http.office import Office, make_office
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY


def test_nothing_is_waited_for_where_nothing_is_asked(office: Office) -> None:
    """A batch of which nothing was recorded kept its caller until the time was over."""
    waits = office.services.decisions.of([], 3_600)
    assert asyncio.run(asyncio.wait_for(waits, 60)) == []


def test_whoever_waits_for_a_position_keeps_no_connection_from_others(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight reads of a position far ahead held every connection of the pool for five seconds."""
    monkeypatch.setattr(reflection, "REFLECT_SECONDS_MAX", 3.0)
    pool, many = office.services.ledger.pool, 2 * office.services.ledger.pool.max_size
    far = f"/v1/customers?min_position={2**40}"
    looks = threading.Semaphore(0)
    wait = time.sleep

    def waiting(seconds: float) -> None:
        looks.release()
        wait(seconds)

    monkeypatch.setattr("api.http.reflection.time.sleep", waiting)
    with ThreadPoolExecutor(many) as threads:
        asked = [threads.submit(office.get, "per_a", far) for _ in range(many)]
        for _ in range(many):
            looks.acquire()
        with pool.connection(timeout=1.0):
            assert not any(each.done() for each in asked)
        answers = [each.result() for each in asked]
    assert {each.json()["code"] for each in answers} == {"not_reflected"}


def test_a_read_is_by_the_position_that_its_own_connection_finds(
    office: Office,
    more_databases: Callable[[], DatabaseUrls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The position was looked up by one connection, and what is answered by another.

    Where the database crashed between, the second found the read models as they were before what
    they had not written to the disk yet: less than the answer said, and than was asked for.
    """
    services, before = office.services, more_databases()
    connect, handed_out = services.ledger.pool.connection, []

    @contextmanager
    def crashing() -> Iterator[Connection[Any]]:
        handed_out.append(time.monotonic())
        if len(handed_out) == 1:
            with connect() as connection:
                yield connection
            return
        with psycopg.connect(before.service_url, autocommit=True) as connection:
            yield connection

    position = settle(services.ledger, timeout_seconds=60)
    monkeypatch.setattr(services.ledger.pool, "connection", crashing)
    monkeypatch.setattr(services.reflection, "_connect", crashing)
    reads = Reads(Response(), position)
    with services.reading(reads) as connection:
        assert min(positions(connection).values(), default=0) >= reads.reached >= position


def test_the_organisation_is_read_again_beside_those_who_ask(office: Office) -> None:
    """Once a second all who asked waited until the organisation had been read again."""
    connect, reading = office.services.ledger.pool.connection, threading.Event()
    threads: list[str] = []

    @contextmanager
    def noted() -> Iterator[Connection[Any]]:
        threads.append(threading.current_thread().name)
        with connect() as connection:
            yield connection
        if len(threads) > 1:
            reading.set()

    catalogue = office.services.ledger.catalogue
    with Directory(noted, catalogue, fresh_seconds=3_600.0) as directory:
        directory.organisation()
        assert directory._read_at is not None
        directory._read_at -= 2_000.0  # over half of its time
        assert directory.organisation().person("per_a") is not None
        assert reading.wait(30)
    here, *beside = threads
    assert here == threading.current_thread().name
    assert [each.startswith("guishu-directory") for each in beside] == [True]


def test_without_read_models_a_read_is_told_to_come_back(
    database: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projector makes the tables at its first start: until then reads were a defect (500)."""
    monkeypatch.setattr(reflection, "REFLECT_SECONDS_MAX", 0.01)
    monkeypatch.setattr(finding, "SOON_SECONDS_MAX", 0.01)
    settings = Settings(
        database_url=database.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        owner_database_url=database.owner_url,  # type: ignore[arg-type]
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=tmp_path,
    )
    with open_ledger(settings, migrating=False) as ledger, open_services(ledger) as served:
        office = make_office(served, datetime.now(UTC) + timedelta(hours=1))
        for answer in (
            office.get("per_a", "/v1/transfers/trf_1"),
            office.get("per_a", "/v1/customers"),
            office.post("per_a", "/v1/approvals/trf_1/approve", {}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_reflected")
            assert int(answer.headers["Retry-After"]) >= 1
