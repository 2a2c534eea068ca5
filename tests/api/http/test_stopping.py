"""Servers as they are run: told to stop in the middle of everything, and two of them at once."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api.bootstrap import Ledger, open_ledger
from api.http import serving
from api.jobs import table
from api.running import running
from tests.api.http.office import CRM, Office, deciding_office, settings_of, stored_requests
from tests.api.http.served import served
from tests.api.http.test_bodies import head_of
from tests.api.http.test_connections import left
from tests.api.http.test_health import dialled
from tests.api.http.test_imports import MAPPING
from tests.api.http.test_readers import asking
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY
from tests.support.processes import start, wait_until

_GUISHU = (sys.executable, "-c", "from api.cli.main import run; run()")
NDJSON = "application/x-ndjson"


@dataclass
class Server:
    """A process that serves."""

    process: subprocess.Popen[bytes]
    output: Path
    address: str = ""

    def said(self) -> str:
        """Return what it has printed."""
        return self.output.read_text(encoding="utf-8")

    def is_up(self) -> bool:
        """Say whether it serves, and remember where."""
        found = re.search(r"serving on (http://\S+)", self.said())
        self.address = found[1] if found else ""
        return found is not None


@contextmanager
def serve(urls: DatabaseUrls, folder: Path, name: str = "one") -> Iterator[Server]:
    """Run ``guishu serve`` beside the block, until somebody ends it."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GUISHU_")},
        "DATABASE_URL": urls.service_url,
        "GUISHU_OWNER_DATABASE_URL": urls.owner_url,
        "GUISHU_MASTER_KEY": base64.b64encode(MASTER_KEY).decode(),
        "GUISHU_DATA_DIRECTORY": str(folder / name),
        "GUISHU_HTTP_PORT": "0",
    }
    output = folder / f"{name}.log"
    with output.open("wb") as file:
        process = start(
            *_GUISHU, "serve", env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=folder
        )
    server = Server(process, output)
    try:
        wait_until(lambda: server.is_up() or process.poll() is not None)
        assert server.address, server.said()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def stop(server: Server) -> None:
    """Tell it to stop; it ends by itself, and has nothing to complain of."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0, server.said()
    assert "Traceback" not in server.said(), server.said()
    assert "stopped: everything that was recorded is kept" in server.said()


def call(office: Office, address: str, who: str, **more: Any) -> httpx.Client:
    """Return a client that calls as somebody."""
    headers = {"Authorization": f"Bearer {office.tokens[who]}", **more}
    return httpx.Client(base_url=address, headers=headers, timeout=60)


def test_what_is_under_way_when_it_is_told_to_stop_is_finished(
    database: DatabaseUrls, tmp_path: Path
) -> None:
    """Claims whose decision was waited for were cut off, without a word, after ten seconds."""
    with deciding_office(database, tmp_path) as office:
        customers = [office.customer(f"客户{number}") for number in range(4)]
    # From here on nobody decides.
    with serve(database, tmp_path) as server, ThreadPoolExecutor(len(customers)) as threads:

        def claim(customer: str) -> httpx.Response:
            headers = {"Prefer": "wait=30", "Idempotency-Key": f"stop-{customer}"}
            with call(office, server.address, "per_a") as client:
                return client.post("/v1/claims", json={"customer": customer}, headers=headers)

        waiting = [threads.submit(claim, each) for each in customers]
        with dialled(server.address) as batch, dialled(server.address) as stream:
            lines = b"".join(b'{"customer": "%s"}\n' % customers[0].encode() for _ in range(1_000))
            batch.sendall(head_of(office, "/v1/claims/batch", NDJSON, None, "per_b"))
            batch.sendall(b"%x\r\n%s\r\n" % (len(lines), lines))
            stream.sendall(asking(office, CRM, "/v1/events/stream?after=0"))
            assert b" 200 " in stream.recv(100)
            wait_until(lambda: claims(database) == len(customers) + 1_000)
            server.process.send_signal(signal.SIGTERM)
            answers = [each.result(60) for each in waiting]
            assert left(stream).endswith(b"0\r\n\r\n")
            last = b'{"customer": "%s"}\n' % customers[1].encode()
            batch.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
            batch_answer = http.client.HTTPResponse(batch)
            batch_answer.begin()
            told = [json.loads(each) for each in batch_answer.read().splitlines()]
        stop(server)
    recorded = stored_requests(database)
    for customer, answer in zip(customers, answers, strict=True):
        assert answer.status_code == 202, answer.text
        assert recorded[f"stop-{customer}"] == answer.json()["claim"]
    assert len(told) == 1_001
    assert {each["claim"] for each in told} <= set(recorded.values())


@contextmanager
def consuming(urls: DatabaseUrls, folder: Path) -> Iterator[Ledger]:
    """Decide and project beside the block; jobs are done by others."""
    settings = settings_of(urls, folder)
    with open_ledger(settings, migrating=False) as ledger, running(ledger):
        yield ledger


def state_of(ledger: Ledger, job: str) -> str:
    """Return the state of a job."""
    with ledger.pool.connection() as connection:
        found = table.find(connection, job)
    assert found is not None
    return found.state


def test_a_job_goes_on_at_the_next_start(database: DatabaseUrls, tmp_path: Path) -> None:
    rows = "客户名称,负责人\n" + "".join(f"行{number},王芳\n" for number in range(3_000))
    parts = [
        ("mapping", ("mapping.toml", MAPPING.encode(), "application/toml")),
        ("file", ("customers.csv", rows.encode(), "text/csv")),
    ]
    with deciding_office(database, tmp_path) as office:
        pass
    before = len(stored_requests(database))
    with consuming(database, tmp_path) as ledger:
        with serve(database, tmp_path) as server:
            with call(office, server.address, "per_admin") as client:
                asked = client.post("/v1/imports", files=parts)
                assert asked.status_code == 202, asked.text
                path = asked.headers["Location"]
                job = asked.json()["job"]
                wait_until(lambda: len(stored_requests(database)) > before + 100)
            stop(server)
        assert state_of(ledger, job) == "waiting"
        with (
            serve(database, tmp_path, "two") as server,
            call(office, server.address, "per_admin") as client,
        ):
            wait_until(lambda: client.get(path).json()["state"] in table.OVER)
            done = client.get(path).json()
            stop(server)
    assert (done["state"], done["result"]["report"]["customers"]) == ("done", 3_000), done


def test_the_same_key_at_two_servers_at_once_is_one_request(
    database: DatabaseUrls, tmp_path: Path
) -> None:
    with deciding_office(database, tmp_path) as office:
        customers = [office.customer(f"客户{number}") for number in range(8)]
    with (
        consuming(database, tmp_path),
        serve(database, tmp_path) as one,
        serve(database, tmp_path, "two") as two,
        call(office, one.address, "per_a") as first,
        call(office, two.address, "per_a") as second,
        ThreadPoolExecutor(2) as threads,
    ):
        for customer in customers:
            both = threading.Barrier(2)

            def claim(client: httpx.Client, customer: str = customer, both: Any = both) -> Any:
                headers = {"Prefer": "wait=30", "Idempotency-Key": f"both-{customer}"}
                both.wait(30)
                return client.post("/v1/claims", json={"customer": customer}, headers=headers)

            answers = list(threads.map(claim, (first, second)))
            assert [each.status_code for each in answers] == [201, 201], answers[0].text
            told = [each.json() for each in answers]
            assert sorted(each.pop("repeated") for each in told) == [False, True]
            assert told[0] == told[1]
            replayed = [each.headers.get("Idempotency-Replayed") for each in answers]
            assert sorted(map(str, replayed)) == ["None", "true"]
    recorded = stored_requests(database)
    assert {f"both-{each}" for each in customers} <= recorded.keys()
    assert claims(database) == len(customers)


def claims(urls: DatabaseUrls) -> int:
    """Return how many claims the log has."""
    with psycopg.connect(urls.service_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM ledger.events WHERE name = 'ClaimFiled.v1'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_who_is_still_not_done_when_the_time_is_over_is_told_so(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose body never came whole was cut off with a bare 500 that said nothing."""
    monkeypatch.setattr(serving, "FINISH_SECONDS", 1)
    with served(office) as address:
        line = dialled(address)
        line.sendall(head_of(office, "/v1/claims", "application/json", 1_000) + b'{"customer"')
        assert httpx.get(f"{address}/livez").status_code == 200
    with line:
        answer = http.client.HTTPResponse(line)
        answer.begin()
        told = json.loads(answer.read())
    assert (answer.status, told["code"]) == (503, "stopping")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_server_that_dies_is_not_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server's thread died its process went on, and served nobody."""

    async def die(self: serving._Server) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(serving._Server, "main_loop", die)
    ended = threading.Event()
    with (
        pytest.raises(RuntimeError, match="a defect"),
        serving.serving(office.app, serving.listen("127.0.0.1", 0), ended.set),
    ):
        assert ended.wait(30)
