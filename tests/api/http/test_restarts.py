"""The database restarts under a server: what was answered holds, and everything goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg_pool import PoolTimeout

from api.http.directory import Directory
from ledger.errors import StoreUnavailableError
from ledger.store.embedded import EmbeddedServer, embedded_server
from ledger.store.migrations import migrate
from tests.api.http.office import Office, deciding_office, stored_requests
from tests.api.http.served import served
from tests.support.database import DatabaseServer
from tests.support.processes import wait_until

CUSTOMERS = 20
SECONDS_MAX = 30


@pytest.fixture
def own_server(servers_folder: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may restart."""
    with embedded_server(servers_folder) as server:
        migrate(server.owner_url)
        yield server


@dataclass
class Load:
    """Requests of several kinds, one after the other in each of some threads."""

    office: Office
    address: str
    customers: list[str]
    # By request id: the position that was answered.
    acknowledged: dict[str, int] = field(default_factory=dict)
    answers: list[httpx.Response] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    streams: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send beside the block."""
        claiming = (partial(self._claim, number) for number in range(3))
        works: list[Callable[[], None]] = [*claiming, self._read, self._follow]
        threads = [threading.Thread(target=each) for each in works]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self.over.set()
            self.office.services.end_waits()
            for each in threads:
                each.join()

    def _client(self, who: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.office.tokens[who]}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=SECONDS_MAX)

    def _claim(self, thread: int) -> None:
        number = 0
        with self._client("per_a") as client:
            while not self.over.is_set():
                key = f"claim-{thread}-{number}"
                number += 1
                headers = {"Idempotency-Key": key, "Prefer": "wait=5"}
                body = {"customer": self.customers[number % CUSTOMERS]}
                answer = client.post("/v1/claims", json=body, headers=headers)
                self.answers.append(answer)
                if answer.is_success:
                    self.acknowledged[key] = answer.json()["claim"]

    def _read(self) -> None:
        with self._client("per_b") as client:
            while not self.over.is_set():
                for path in (f"/v1/customers/{self.customers[0]}/ownership", "/v1/customers"):
                    self.answers.append(client.get(path))

    def _follow(self) -> None:
        """Follow the log as an EventSource does."""
        with self._client("int_crm") as client:
            while not self.over.is_set():
                last = {"Last-Event-ID": str(self.seen[-1] if self.seen else 0)}
                with client.stream("GET", "/v1/events/stream", headers=last) as answer:
                    if not answer.is_success:
                        answer.read()
                        self.answers.append(answer)
                        self.over.wait(0.1)
                        continue
                    self.streams += 1
                    for line in answer.iter_lines():
                        if line.startswith("id: "):
                            self.seen.append(int(line[4:]))
                        if self.over.is_set():
                            break

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more claims were acknowledged, and so much more was read."""
        enough = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= enough)


def test_a_restart_of_the_database_loses_nothing_that_was_answered(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    urls = DatabaseServer(own_server.superuser_url, own_server).urls("guishu")
    with deciding_office(urls, tmp_path, pool_wait_seconds_max=2) as office, served(office) as at:
        customers = [office.customer(f"客户{number}") for number in range(CUSTOMERS)]
        load = Load(office, at, customers)
        with load.running():
            for mode in ("immediate", "fast"):
                load.wait_for_more(20)
                own_server.restart(mode)
            load.wait_for_more(20)
            # What is recorded from here on reaches whoever follows, without a break.
            last = office.customer("最后")
            recorded = stored_requests(urls)
            wait_until(lambda: bool(load.seen) and load.seen[-1] >= max(recorded.values()))
        check(load, recorded)
        assert office.get("per_a", f"/v1/customers/{last}/ownership").json()["state"] == "free"


def check(load: Load, recorded: dict[str, int]) -> None:
    """Assert what each was answered, what of it is in the log, and what followers saw."""
    found = {each.status_code for each in load.answers}
    assert found <= {200, 201, 202, 503}, [each.text for each in load.answers if each.is_error]
    for each in load.answers:
        if each.is_error:
            assert each.headers["Content-Type"] == "application/problem+json"
            assert int(each.headers["Retry-After"]) >= 1
    # What came behind what was looked at is not in it.
    known = {key: at for key, at in load.acknowledged.items() if at <= max(recorded.values())}
    assert known == {key: recorded.get(key) for key in known}
    # A sign of life repeats the last position.
    seen = list(dict.fromkeys(load.seen))
    assert seen == list(range(1, len(seen) + 1))


class Counted:
    """A lock that counts who has come to it."""

    def __init__(self) -> None:
        self.came = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_those_who_wait_behind_one_another_for_a_lost_database_wait_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in its turn waited for a connection in vain, so the last of forty for minutes."""
    tries, may_fail, failed = [0], threading.Event(), list[Exception]()

    @contextmanager
    def lost() -> Iterator[Any]:
        tries[0] += 1
        if may_fail.wait(30):
            raise PoolTimeout("the database is away")
        yield

    def ask() -> None:
        try:
            directory.organisation()
        except (PoolTimeout, StoreUnavailableError) as error:
            failed.append(error)

    directory, lock = Directory(lost, office.services.ledger.catalogue), Counted()
    monkeypatch.setattr(directory, "_lock", lock)
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for each in threads:
        each.start()
    wait_until(lambda: lock.came == len(threads))
    may_fail.set()
    for each in threads:
        each.join()
    assert (len(failed), tries[0]) == (len(threads), 1)


def test_what_is_at_hand_is_answered_while_somebody_reads_it_anew(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop waited for a thread that read the organisation, and all requests with it."""
    directory = office.services.directory
    monkeypatch.setattr(directory, "_fresh_seconds", 3_600.0)
    known = directory.organisation(now=True).name
    with ThreadPoolExecutor(1) as threads, directory._lock:  # as whoever reads it holds it
        assert threads.submit(directory.organisation).result(10).name == known


def test_a_pool_tries_again_before_those_who_wait_for_it_give_up(office: Office) -> None:
    """It doubled its pause for five minutes, and so noticed minutes late that it could go on."""
    pool = office.services.ledger.pool
    assert pool.reconnect_timeout < pool.timeout
