"""The enforcer's speed: over a backlog, beside a COPY, and from a single claim to its decision.

Everything is durable (fsync on), and one process decides.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, Cursor

from api.bench.harness import BenchDatabase, BenchServer, Measure, compare
from consumers.enforcer import Enforcer
from consumers.enforcing import enforce
from consumers.feed import StoreFeed
from ledger.conditions import Condition
from ledger.deciders import LATEST
from ledger.envelope import Origin, request_body
from ledger.events.catalogue import Catalogue, Data, catalogue
from ledger.events.organisation import (
    DeciderAdopted,
    OrganisationFounded,
    PersonJoined,
    PolicyAdopted,
    TerritoryDefined,
)
from ledger.events.requests import ClaimFiled, RegistrationRequested
from ledger.events.values import Sealed
from ledger.policy import Policy, TerritoryRule
from ledger.store.appending import Append, NewEvent
from ledger.store.committer import CommitterThread
from ledger.store.hints import Notifier, wait_for_news

REQUESTS_PER_SECOND_MIN = 8_000
LOCK_MS_MAX = 20
COMMITS_MAX = 12

_APPEND_EVENTS = 5_000
_WARMING_UP = 20
_COLUMNS = "position, recorded, stream, version, name, body, leaf, causation, ordinal"
_TYPES = ["int8", "timestamptz", "text", "int4", "text", "bytea", "bytea", "int8", "int4"]
_DECISIONS = """
SELECT position, recorded, stream, version, name, body, leaf, causation, ordinal
FROM ledger.events WHERE causation > %s AND causation <= %s ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the defaults are for figures, smaller ones for a look."""

    claims: int = 200_000
    customers: int = 100_000
    reps: int = 1_000
    rounds: int = 5
    single_claims: int = 500
    claims_per_second: int = 50


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Take all measures of the enforcer; about two minutes at the default scale."""
    with server.database() as database:
        events = catalogue()
        record(database, events, "organisation", facts_of(scale))
        record(database, events, "customer", registrations(scale))
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            enforcer = Enforcer(connection, StoreFeed(), events)
            enforcer.start()
            enforcer.catch_up()
        return [*_backlog(database, events, scale), _latency(database, events, scale)]


# --- what is decided ---------------------------------------------------------------------------


def facts_of(scale: Scale) -> list[Data]:
    """An organisation with every rule on, at limits that some of the reps meet."""
    rule = TerritoryRule(
        territory="ter_1",
        conditions=(Condition(attribute="region", operator="is", value="north"),),
    )
    limit = max(1, scale.customers // scale.reps + scale.customers // scale.reps // 20)
    policy = Policy(holding_limit=limit, daily_claim_limit=limit, territory_rules=(rule,))
    return [
        OrganisationFounded("bench", "Asia/Shanghai"),
        DeciderAdopted(LATEST),
        TerritoryDefined("ter_1", "north"),
        *(PersonJoined(f"per_{n}", Sealed("key", "text"), "ter_1") for n in range(scale.reps)),
        PolicyAdopted(1, policy.as_rules()),
    ]


def _customer(number: int) -> str:
    return f"cus_{number:08d}"


def registrations(scale: Scale) -> list[Data]:
    named = (_customer(number) for number in range(scale.customers))
    attributes = {"region": "north"}
    return [
        RegistrationRequested(each, "organisation", each, attributes=dict(attributes))
        for each in named
    ]


def claims_of(scale: Scale) -> list[Data]:
    chance = random.Random(1)  # noqa: S311 - which customers does not matter
    return [
        ClaimFiled(
            _customer(chance.randrange(scale.customers)), f"per_{chance.randrange(scale.reps)}"
        )
        for _ in range(scale.claims)
    ]


def new_event(events: Catalogue, data: Any, stream: str) -> NewEvent:
    body = request_body(events, Origin("bench", "bench", "per_0"), 0, data)
    whole = stream if stream == "organisation" else f"{stream}-{data.customer}"
    return NewEvent(whole, events.name_of(data), body)


def record(database: BenchDatabase, events: Catalogue, stream: str, data: Sequence[Data]) -> None:
    with CommitterThread(database.service_url) as committer:
        for start in range(0, len(data), _APPEND_EVENTS):
            part = data[start : start + _APPEND_EVENTS]
            committer.append(Append(tuple(new_event(events, each, stream) for each in part)))


# --- a backlog ---------------------------------------------------------------------------------


class _TimedConnection(Connection[Any]):
    """Times the one message that takes the append lock and commits, until its answer is there.

    The lock is held for no longer than that: it is taken when the server has read the message, and
    given back before the answer is sent.
    """

    appends_ms: list[float]

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Cursor[Any]:
        if not str(query).startswith("FETCH ALL FROM guishu_append"):
            return super().execute(query, *arguments, **options)
        before = time.perf_counter()
        cursor = super().execute(query, *arguments, **options)
        self.appends_ms.append((time.perf_counter() - before) * 1e3)
        return cursor


def _backlog(database: BenchDatabase, events: Catalogue, scale: Scale) -> list[Measure]:
    """Decide the claims in parts, and COPY the decisions of each part into a table like the log."""
    record(database, events, "customer", claims_of(scale))
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        # As on a server that has run for a while: there are files of the write-ahead log to use
        # again. To make a new one keeps whoever commits just then waiting for some 50 ms.
        superuser.execute("CHECKPOINT")
    rates: list[float] = []
    written: list[float] = []
    copied: list[float] = []
    with _TimedConnection.connect(database.service_url, autocommit=True) as connection:
        connection.appends_ms = []
        enforcer = Enforcer(connection, StoreFeed(), events)
        enforcer.start()
        for number in range(scale.rounds):
            left = scale.rounds - number
            begin, commits = enforcer.position, len(connection.appends_ms)
            target = begin + (scale.claims - (scale.claims // scale.rounds) * number) // left
            before = time.perf_counter()
            while enforcer.position < target and enforcer.run_once():
                pass
            seconds = time.perf_counter() - before
            decisions = _decisions(database, begin, enforcer.position)
            # A refused claim may bring more than one decision: that it opens a conflict, besides.
            rates.append(sum(1 for row in decisions if row[-1] == 0) / seconds)
            written.append(len(decisions) / seconds)
            commits = len(connection.appends_ms) - commits
            copied.append(_copy_rate(database, decisions, commits))
        appends_ms = sorted(connection.appends_ms)
    p99 = appends_ms[int(len(appends_ms) * 0.99)]
    rate = statistics.median(rates)
    return [
        Measure(
            f"claims decided from a backlog, one process, every rule on, against"
            f" {REQUESTS_PER_SECOND_MIN:,}/s",
            rate,
            REQUESTS_PER_SECOND_MIN,
            "claims/s",
            rate / REQUESTS_PER_SECOND_MIN,
            1,
        ),
        compare(
            "events of these decisions, beside a COPY of as many with as many commits",
            written,
            copied,
            unit="events/s",
            at_least=0,
        ),
        Measure(
            f"append lock held at p99 (the message that takes it, with its answer), against"
            f" {LOCK_MS_MAX} ms at most",
            p99,
            LOCK_MS_MAX,
            "ms",
            LOCK_MS_MAX / p99,
            1,
        ),
    ]


def _decisions(database: BenchDatabase, after: int, upto: int) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        return connection.execute(_DECISIONS, (after, upto), binary=True).fetchall()


def _copy_rate(database: BenchDatabase, rows: Sequence[tuple[Any, ...]], commits: int) -> float:
    """Return how fast these rows come in by COPY into a table with the same keys and checks."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS copied (LIKE ledger.events INCLUDING ALL)")
        size = -(-len(rows) // commits)
        before = time.perf_counter()
        for start in range(0, len(rows), size):
            statement = f"COPY copied ({_COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
            with connection.cursor().copy(statement) as copy:
                copy.set_types(_TYPES)
                for row in rows[start : start + size]:
                    copy.write_row(row)
        return len(rows) / (time.perf_counter() - before)


# --- a single claim ----------------------------------------------------------------------------


class _Decided:
    """When the enforcer has committed something, told by itself."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._something = threading.Event()
        self._at = 0.0

    def committed(self) -> None:
        self._at = time.perf_counter()
        self._something.set()
        self._notifier.hint()

    def wait(self) -> float:
        """Return when it was, by the clock of ``time.perf_counter``."""
        if not self._something.wait(30):
            raise TimeoutError("a claim was not decided within 30 seconds")
        self._something.clear()
        return self._at


def _latency(database: BenchDatabase, events: Catalogue, scale: Scale) -> Measure:
    """From before a claim's append until its decision is committed, and the same of one insert."""
    decided_ms: list[float] = []
    commits_ms: list[float] = []
    with (
        Notifier(database.service_url) as notifier,
        _following(database, events, decided := _Decided(notifier)),
        CommitterThread(database.service_url, committed=notifier.hint) as committer,
        psycopg.connect(database.superuser_url, autocommit=True) as inserting,
    ):
        inserting.execute("CREATE TABLE inserted (body bytea)")
        for number in range(scale.single_claims + _WARMING_UP):
            claim = ClaimFiled(_customer(number % scale.customers), "per_0")
            append = Append((new_event(events, claim, "customer"),))
            begin = time.perf_counter()
            committer.append(append)
            decided_ms.append((decided.wait() - begin) * 1e3)
            before = time.perf_counter()
            inserting.execute(
                "INSERT INTO inserted VALUES (%s)", (append.events[0].body,), prepare=True
            )
            commits_ms.append((time.perf_counter() - before) * 1e3)
            pause = begin + 1 / scale.claims_per_second - time.perf_counter()
            time.sleep(max(0.0, pause))
    ours, theirs = decided_ms[_WARMING_UP:], commits_ms[_WARMING_UP:]
    return compare(
        f"from a claim's append to its decision at {scale.claims_per_second} claims/s, p50, beside"
        f" one insert and commit, at most {COMMITS_MAX} times",
        ours,
        theirs,
        unit="ms",
        at_least=1 / COMMITS_MAX,
        less_is_better=True,
    )


@contextmanager
def _following(database: BenchDatabase, events: Catalogue, decided: _Decided) -> Iterator[None]:
    """Let an enforcer follow, woken by hints, in a thread of this process, as ``guishu run``."""
    stop, ready = threading.Event(), threading.Event()

    def work() -> None:
        with psycopg.connect(database.service_url, autocommit=True) as hints:

            def wait(seconds: float) -> None:
                ready.set()
                wait_for_news(hints, seconds, stop)

            enforce(
                lambda: psycopg.connect(database.service_url, autocommit=True),
                StoreFeed(),
                events,
                stop,
                wait,
                committed=decided.committed,
            )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        if not ready.wait(30):
            raise TimeoutError("the enforcer did not start within 30 seconds")
        yield
    finally:
        stop.set()
        thread.join()
