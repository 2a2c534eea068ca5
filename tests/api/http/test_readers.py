"""Many who follow the log, and those who stop reading: nobody holds up the others, or anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from psycopg import Connection

from api.http import tail
from ledger.envelope import StoredEvent
from ledger.store.reading import head
from tests.api.http.office import CRM, Office
from tests.api.http.served import served
from tests.api.http.test_events import follow
from tests.api.http.test_health import dialled
from tests.support.processes import wait_until

MANY = 1_000
# Who may follow the log; one caller alone asks for less than MANY at once.
FOLLOWERS = (CRM, "per_auditor", "per_admin")


def asking(office: Office, who: str, path: str) -> bytes:
    """Return the head of a GET."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: guishu\r\nAuthorization: Bearer {office.tokens[who]}\r\n\r\n"
    ).encode()


def subscribers(office: Office, who: str = "per_auditor") -> float:
    """Return how many follow the log, as Prometheus sees it."""
    return sample(office, 'guishu_queue_depth{queue="log_subscribers"}', who)


def sample(office: Office, name: str, who: str = "per_auditor") -> float:
    """Return one figure as Prometheus sees it, 0 where there is none."""
    lines = office.get(who, "/metrics").text.splitlines()
    return sum(float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(f"{name} "))


class Idle:
    """Many connections that follow the log, and read nothing but what comes by itself."""

    def __init__(self, office: Office, address: str) -> None:
        self._office = office
        self._host, port = address.removeprefix("http://").rsplit(":", 1)
        self._port = int(port)
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def follow(self, count: int) -> None:
        """Open so many; each has its answer's head."""
        self._open = await asyncio.gather(*(self._one(number) for number in range(count)))

    async def _one(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        who = FOLLOWERS[number % len(FOLLOWERS)]
        writer.write(asking(self._office, who, "/v1/events/stream"))
        assert b" 200 " in await reader.readuntil(b"retry: 1000\n\n")
        return reader, writer

    async def all_get(self, position: int) -> None:
        """Wait until each has been sent the event at a position."""
        wanted = b"id: %d\nevent: " % position
        await asyncio.gather(*(reader.readuntil(wanted) for reader, _ in self._open))

    async def go(self) -> None:
        """Close all."""
        for _, writer in self._open:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for _, writer in self._open), return_exceptions=True
        )


def test_a_thousand_who_only_listen_get_what_happens_and_hold_up_nobody(office: Office) -> None:
    async def scenario(address: str) -> None:
        idle = Idle(office, address)
        await idle.follow(MANY)
        headers = {"Authorization": f"Bearer {office.tokens['per_admin']}", "Prefer": "wait=20"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as client:
            made = await client.post("/v1/customers", json={"name": "华星"})
            assert made.status_code == 201, made.text
            position = made.json()["request"]
            _, read = await asyncio.gather(
                idle.all_get(position), client.get(f"/v1/events?after={position - 1}")
            )
        assert read.status_code == 200, read.text
        assert office.services.tail.subscribers == MANY
        await idle.go()

    with served(office) as address:
        asyncio.run(scenario(address))
        wait_until(lambda: subscribers(office) == 0)
        assert httpx.get(f"{address}/livez").status_code == 200


def test_who_goes_while_the_stream_is_being_prepared_is_forgotten(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who went while the end of the log was read was handed events for ever."""
    tail, may_read, reads = office.services.tail, threading.Event(), threading.Event()
    before = answered(office, "/v1/events/stream")

    @contextmanager
    def slowly() -> Iterator[Connection[Any]]:
        reads.set()
        assert may_read.wait(30)
        with office.services.ledger.pool.connection() as connection:
            yield connection

    monkeypatch.setattr(tail, "_connect", slowly)
    with served(office) as address:
        with dialled(address) as line:
            line.sendall(asking(office, CRM, "/v1/events/stream?after=0"))
            assert reads.wait(10)
        wait_until(lambda: answered(office, "/v1/events/stream") == before + 1)
        # Nobody else waits for the log with it.
        assert httpx.get(f"{address}/livez").status_code == 200
        may_read.set()
        with dialled(address) as line:
            line.sendall(asking(office, CRM, "/v1/events/stream?after=0"))
            while b"id: 1\n" not in line.recv(65_536):
                continue
        wait_until(lambda: answered(office, "/v1/events/stream") == before + 2)
        assert subscribers(office) == 0


def answered(office: Office, route: str) -> float:
    """Return how many requests of a route are over; the log is not asked."""
    name = "guishu_http_request_seconds_count"
    registry = office.app.state.registry.restricted_registry([name])
    labels = {"method": "GET", "route": route, "status": "200"}
    samples = [each for family in registry.collect() for each in family.samples]
    found = (each.value for each in samples if (each.name, each.labels) == (name, labels))
    return float(sum(found))


def test_a_defect_at_handing_over_leaves_the_pages(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that hands the log over died of it, and all seemed to be served for ever."""

    def broken(event: StoredEvent) -> bytes:
        raise ValueError(f"a defect at {event.position}")

    monkeypatch.setattr(tail, "as_sse", broken)
    with served(office) as address:
        with office.services.ledger.pool.connection() as connection:
            last = head(connection)
        seen = follow(office, address, 5, f"?after={last - 1}")
        positions = [int(next(seen)["id"])]
        for name in ("华星", "蓝海"):
            # Each is a request and its decision, which the tail would hand over.
            wait_until(lambda: office.services.tail.subscribers == 1)
            office.customer(name)
            positions += [int(next(seen)["id"]), int(next(seen)["id"])]
    assert positions == list(range(last, last + 5))
