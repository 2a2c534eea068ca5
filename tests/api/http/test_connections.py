"""Connections: those of clients that do not read, and more of them than there may be."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from api.http import serving
from api.running import settle
from ledger import commands
from ledger.envelope import Origin
from ledger.recording import Asked
from tests.api.http.office import CRM, Office
from tests.api.http.served import served
from tests.api.http.test_health import dialled
from tests.api.http.test_readers import answered, asking, subscribers
from tests.support.processes import wait_until


def small_buffers(buffer_bytes: int = 4_096) -> socket.socket:
    """Return a listening socket of whose connections the system buffers little."""
    listening = serving.listen("127.0.0.1", 0)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    return listening


@contextmanager
def not_reading(office: Office, address: str, who: str, path: str) -> Iterator[socket.socket]:
    """Ask for something, and read no more than the beginning."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        line.settimeout(10)
        line.connect((host, int(port)))
        line.sendall(asking(office, who, path))
        assert b" 200 " in line.recv(100)
        yield line


def left(line: socket.socket) -> bytes:
    """Return what still comes until the server has closed the connection."""
    received = b""
    while data := line.recv(65_536):
        received += data
    return received


def customers(office: Office, count: int) -> None:
    """Register customers past the interface, and wait until all is shown."""
    ledger = office.services.ledger
    asked = [
        Asked(
            commands.RegisterCustomer(name=f"客户{number}"),
            Origin("test", f"req_{number}", "per_admin"),
        )
        for number in range(count)
    ]
    ledger.recording.record_many(asked)
    settle(ledger, timeout_seconds=60)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/events/stream?after=0", "/v1/events/stream"),
        ("/v1/ownership", "/v1/ownership"),
        ("/v1/events?limit=1000", "/v1/events"),
    ],
)
def test_who_does_not_read_is_let_go_of(
    office: Office, monkeypatch: pytest.MonkeyPatch, path: str, route: str
) -> None:
    """Whoever stopped reading kept a connection, and what was to be sent, for ever."""
    monkeypatch.setattr(serving, "WRITE_SECONDS_MAX", 0.2, raising=False)
    lost = threading.Event()

    class Watched(serving._Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    monkeypatch.setattr(serving, "_Protocol", Watched)
    customers(office, 2_000)
    before = answered(office, route)
    with (
        serving.serving(office.app, small_buffers()) as address,
        not_reading(office, address, "per_auditor", path) as line,
    ):
        pool = office.services.ledger.pool
        wait_until(lambda: pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"])
        assert lost.wait(10)
        wait_until(lambda: answered(office, route) == before + 1)
        assert not left(line).endswith((b"0\r\n\r\n", b"}"))
        assert subscribers(office) == 0


def test_who_comes_when_there_is_no_room_is_told_when_to_come_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told so in plain text, and not when to come again."""
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 2)
    with served(office) as address, dialled(address) as one, dialled(address) as other:
        for each in (one, other):
            each.sendall(asking(office, CRM, "/v1/events/stream"))
            assert b" 200 " in each.recv(65_536)
        answer = httpx.get(f"{address}/livez")
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        other.close()
        wait_until(lambda: httpx.get(f"{address}/livez").status_code == 200)


def test_there_can_be_as_many_connections_as_it_says(office: Office) -> None:
    """The usual limit of files was a quarter of that; behind it nobody was let in any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1_024, soft), hard))
    try:
        with served(office):
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            assert allowed > min(serving.CONNECTIONS_MAX, hard - 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
