"""What the tests of the consumers share: enforcers to their taste, checks, and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection

from consumers.enforcer import CONSUMER, Enforcer, EnforcerLimits
from consumers.enforcing import EnforcingLimits, enforce
from consumers.feed import Feed, StoreFeed
from consumers.progress import WHOLE, Part
from consumers.rebuilding import compare_guards
from ledger.deciders import Decider, deciders
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.catalogue import catalogue
from ledger.organisation import OrganisationAt
from ledger.settled import Settled
from ledger.verification import verify_log
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger
from tests.support.processes import start, wait_until

PROCESS = "enforcing-process"
"""The application name of the connections of ``EnforcingProcess``."""


@contextmanager
def enforcing(
    ledger: TestLedger,
    *,
    connection_class: type[Connection[Any]] = Connection,
    feed: Feed | None = None,
    limits: EnforcerLimits | None = None,
    versions: Mapping[int, Decider] | None = None,
    consumer: str = CONSUMER,
    part: Part = WHOLE,
) -> Iterator[Enforcer]:
    """Open an enforcer that has taken over, on a connection of its own."""
    with connection_class.connect(ledger.urls.service_url, autocommit=True) as connection:
        enforcer = Enforcer(
            *(connection, feed or StoreFeed(), ledger.catalogue, limits, versions),
            consumer=consumer,
            part=part,
        )
        enforcer.start()
        yield enforcer


QUICK = EnforcingLimits(
    pause_seconds_min=0.01,
    pause_seconds_max=0.1,
    standby_seconds=0.02,
    enforcer=EnforcerLimits(batch_requests_max=20, poll_seconds=0.01),
)


@contextmanager
def running(
    urls: DatabaseUrls,
    limits: EnforcingLimits = QUICK,
    committed: Callable[[], None] = lambda: None,
    application_name: str = "enforcer",
    ended: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Let a thread enforce beside the block, as a process does; raises what has ended it.

    ``ended`` is called when it has come to its end.
    """
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            enforce(
                lambda: psycopg.connect(
                    urls.service_url, autocommit=True, application_name=application_name
                ),
                StoreFeed(),
                catalogue(),
                stop,
                stop.wait,
                limits,
                committed=committed,
            )
        except BaseException as error:
            failures.append(error)
        ended()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def catch_up(ledger: TestLedger, **options: Any) -> None:
    """Decide all that was recorded, by an enforcer as ``enforcing`` makes it."""
    with enforcing(ledger, **options) as enforcer:
        enforcer.catch_up()


def check(ledger: TestLedger, versions: Mapping[int, Decider] | None = None) -> None:
    """Every request has one decision, deciding again brings the same, and so do the guards."""
    report = verify_log(ledger.connection, ledger.catalogue, versions=versions)
    assert report.good, list(report.lines())
    assert report.undecided == []
    assert compare_guards(ledger.connection, ledger.catalogue) == []


def grants(ledger: TestLedger) -> Counter[str]:
    """Return how often each customer was granted to somebody."""
    return Counter(
        event.data.customer
        for event in ledger.log()
        if isinstance(event.data, decisions.OwnershipGranted)
    )


def failing_at(*positions: int) -> Decider:
    """Return the decider in force with a defect: some requests it cannot decide."""
    right = deciders()[1]

    def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
        if request.position in positions:
            raise ZeroDivisionError("the words of a defect")
        return right(settled, request, organisation)

    return decide


@contextmanager
def holding(urls: DatabaseUrls, statement: str, *values: object) -> Iterator[None]:
    """Hold what a statement locks, as another session that is in no hurry."""
    with psycopg.connect(urls.superuser_url) as connection:
        connection.execute(statement.encode(), values)
        yield


APPEND_LOCK = "SELECT pg_advisory_xact_lock(ledger.append_lock_key())"
PROGRESS_LOCK = "SELECT FROM ledger.consumer_progress WHERE consumer = 'enforcer' FOR UPDATE"
GUARD_LOCK = "SELECT FROM ledger.guards WHERE key = %s FOR UPDATE"


def customer_guard(customer: str) -> str:
    """Return the key of a customer's guard row."""
    return f"customer\x1f{customer}"


def count(urls: DatabaseUrls, statement: str, *values: object) -> int:
    """Return the number that a query gives when a superuser asks."""
    with psycopg.connect(urls.superuser_url, autocommit=True) as connection:
        row = connection.execute(statement.encode(), values).fetchone()
        assert row is not None
        return int(row[0])


def wait_until_blocked(urls: DatabaseUrls, name: str = PROCESS) -> None:
    """Return when a session of this application name waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = %s AND wait_event_type = 'Lock'"
    )
    wait_until(lambda: count(urls, waiting, name) > 0)


class EnforcingProcess:
    """A process with an enforcer that does what it is told; kill it at will."""

    def __init__(self, urls: DatabaseUrls, *, batch: int = 500, idle_ms: int = 10_000) -> None:
        arguments = [urls.service_url, str(batch), str(idle_ms)]
        self._process = start(
            sys.executable,
            "-m",
            "tests.consumers.enforcing_process",
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.hear() == "ready"

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, command: str) -> None:
        """Tell it what to do next: start, once, catch_up or enforce."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()

    def hear(self) -> str:
        """Return its next word: the position after a command, or the name of an error."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def ask(self, command: str) -> str:
        """Tell it what to do, and return what comes of it."""
        self.tell(command)
        return self.hear()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as hard as it goes; harmless when it has ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def enforcing_process(urls: DatabaseUrls, **options: int) -> Iterator[EnforcingProcess]:
    """Open a process as ``EnforcingProcess`` says, and kill it afterwards."""
    process = EnforcingProcess(urls, **options)
    try:
        yield process
    finally:
        process.kill()
