"""How fast a backlog is decided, how long the append lock is kept, how soon one is decided."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection, Pipeline

from api.bench.harness import BenchDatabase, BenchServer, Measure
from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from ledger.envelope import Origin, request_body
from ledger.events.catalogue import Catalogue, Data, catalogue
from ledger.events.organisation import (
    OrganisationFounded,
    PersonJoined,
    PolicyAdopted,
    TerritoryDefined,
)
from ledger.events.requests import ClaimFiled, RegistrationRequested
from ledger.events.values import Sealed
from ledger.policy import Condition, Policy, TerritoryRule
from ledger.store.appending import Append, NewEvent
from ledger.store.committer import CommitterThread

_APPEND = 5_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    claims: int = 200_000
    customers: int = 100_000
    reps: int = 1_000
    single_claims: int = 500
    claims_per_second: int = 50


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Measure the enforcer."""
    with server.database() as database:
        return _backlog(database, scale)


class _TimedConnection(Connection[Any]):
    """Times the last message of each transaction: from its first write to the answer of COMMIT."""

    messages_ms: list[float]

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        before = time.perf_counter()
        with super().pipeline() as pipeline:
            yield pipeline
        self.messages_ms.append((time.perf_counter() - before) * 1e3)


def _backlog(database: BenchDatabase, scale: Scale) -> list[Measure]:
    events = catalogue()
    _record(database, events, "organisation", _facts(scale), versions=True)
    customers = [f"cus_{number:08d}" for number in range(scale.customers)]
    registrations = [
        RegistrationRequested(each, "organisation", each, attributes={"region": "north"})
        for each in customers
    ]
    _record(database, events, "customer", registrations)
    with _TimedConnection.connect(database.service_url, autocommit=True) as connection:
        connection.messages_ms = []
        enforcer = Enforcer(connection, StoreFeed(), events)
        enforcer.start()
        enforcer.catch_up()
        chance = random.Random(1)  # noqa: S311 - a benchmark is to be the same each time
        claims = [
            ClaimFiled(chance.choice(customers), f"per_{chance.randrange(scale.reps)}")
            for _ in range(scale.claims)
        ]
        _record(database, events, "customer", claims)
        connection.messages_ms.clear()
        before = time.perf_counter()
        enforcer.catch_up()
        rate = scale.claims / (time.perf_counter() - before)
        messages = sorted(connection.messages_ms)
    p99 = messages[int(len(messages) * 0.99)]
    copied = _copy_rate(database, len(messages))
    latency, commit = _latency(database, events, scale)
    return [
        Measure(
            "claims decided from a backlog, against 8,000/s", rate, 8_000, "1/s", rate / 8_000, 1
        ),
        Measure("claims decided, against a COPY of as many", rate, copied, "1/s", rate / copied, 0),
        # An upper bound: the guards and the progress are written in the same message.
        Measure("append lock at p99, against 20 ms at most", p99, 20, "ms", 20 / p99, 1),
        Measure(
            "a claim until its decision, against one commit, at most 12 times",
            latency,
            commit,
            "ms",
            12 * commit / latency,
            1,
        ),
    ]


def _facts(scale: Scale) -> list[Data]:
    rule = TerritoryRule(
        territory="ter_1",
        conditions=(Condition(attribute="region", operator="is", value="north"),),
    )
    policy = Policy(holding_limit=150, daily_claim_limit=150, territory_rules=(rule,))
    return [
        OrganisationFounded("bench", "Asia/Shanghai"),
        TerritoryDefined("ter_1", "north"),
        *(PersonJoined(f"per_{n}", Sealed("key", "text"), "ter_1") for n in range(scale.reps)),
        PolicyAdopted(1, policy.as_rules()),
    ]


def _record(
    database: BenchDatabase,
    events: Catalogue,
    stream: str,
    data: Sequence[Any],
    *,
    versions: bool = False,
) -> None:
    origin = Origin("bench", "bench", "per_0")
    with CommitterThread(database.service_url) as committer:
        for start in range(0, len(data), _APPEND):
            new = tuple(
                NewEvent(
                    stream if versions else f"{stream}-{each.customer}",
                    events.name_of(each),
                    request_body(events, origin, 0, each),
                    start + number + 1 if versions else None,
                )
                for number, each in enumerate(data[start : start + _APPEND])
            )
            committer.append(Append(new))


def _copy_rate(database: BenchDatabase, commits: int) -> float:
    """Return how fast as many events come in by COPY, with as many commits and the same keys."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE copied (LIKE ledger.events INCLUDING INDEXES)")
        rows = connection.execute(
            "SELECT position, recorded, stream, version, name, body, leaf, causation, ordinal"
            " FROM ledger.events WHERE causation IS NOT NULL ORDER BY position DESC LIMIT 200000",
            binary=True,
        ).fetchall()
        size = max(1, len(rows) // commits)
        before = time.perf_counter()
        for start in range(0, len(rows), size):
            with connection.cursor().copy("COPY copied FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(
                    [
                        "int8",
                        "timestamptz",
                        "text",
                        "int4",
                        "text",
                        "bytea",
                        "bytea",
                        "int8",
                        "int4",
                    ]
                )
                for row in rows[start : start + size]:
                    copy.write_row(row)
        return len(rows) / (time.perf_counter() - before)


def _latency(database: BenchDatabase, events: Catalogue, scale: Scale) -> tuple[float, float]:
    """Return the median milliseconds from a claim's append to its decision, and of one commit.

    The enforcer follows in this process, as ``guishu run`` has it.
    """
    stop = threading.Event()
    decided: list[float] = []
    commits: list[float] = []

    def follow() -> None:
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            enforcer = Enforcer(connection, StoreFeed(), events)
            enforcer.start()
            while not stop.is_set():
                if not enforcer.run_once():
                    stop.wait(0.001)

    thread = threading.Thread(target=follow)
    thread.start()
    origin = Origin("bench", "bench", "per_0")
    pause = 1 / scale.claims_per_second
    with (
        CommitterThread(database.service_url) as committer,
        psycopg.connect(database.superuser_url, autocommit=True) as watching,
    ):
        watching.execute("CREATE TABLE one_commit (at timestamptz)")
        for number in range(scale.single_claims):
            claim = ClaimFiled(f"cus_{number:08d}", "per_0")
            body = request_body(events, origin, 0, claim)
            new = NewEvent(f"customer-{claim.customer}", events.name_of(claim), body)
            before = time.perf_counter()
            position = committer.append(Append((new,))).first_position
            while not watching.execute(
                "SELECT 1 FROM ledger.events WHERE causation = %s", (position,), prepare=True
            ).fetchone():
                pass
            decided.append((time.perf_counter() - before) * 1e3)
            before = time.perf_counter()
            watching.execute("INSERT INTO one_commit VALUES (%s)", (datetime.now(UTC),))
            commits.append((time.perf_counter() - before) * 1e3)
            time.sleep(max(0.0, pause - (time.perf_counter() - before)))
    stop.set()
    thread.join()
    return statistics.median(decided), statistics.median(commits)
