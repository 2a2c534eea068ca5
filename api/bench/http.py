"""The speed of HTTP: claims with their decisions, reads, the log by pages and its subscribers.

What serves is a process, and what decides and projects is another one, as in production; the load
comes from wrk. Everything is durable (fsync on). Of a load the figures beside it are p50 and p99.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import Connection

from api.bench.harness import BenchDatabase, BenchServer, Measure, compare, interleaved
from api.bench.load import Load, LoadFailedError, Requests, Subscribers, percentile, wrk
from api.bench.stack import GRANT, TABLE
from api.bench.store import pgbench_rate
from api.bench.synthetic import SyntheticLog
from api.bootstrap import Ledger, open_ledger
from api.http import tokens
from api.running import settle
from api.settings import Settings
from ledger import organisation_commands as facts
from ledger.commands import RegisterCustomer
from ledger.envelope import Origin
from ledger.events.catalogue import catalogue
from ledger.policy import Policy
from ledger.recording import Asked
from ledger.sealing import Vault
from ledger.store import arrays
from ledger.store.reading import replay
from projections.registry import all_projections
from projections.runner import Runner

CONNECTIONS = 32
BATCH_CLAIMS, BATCH_CONNECTIONS, BATCH_SECONDS_MIN = 1_000, 4, 10.0
PAGE_EVENTS = 1_000
ARRIVES_WITHIN_SECONDS = 1.0
_WAIT = {"Prefer": "wait=30", "Content-Type": "application/json"}
_MASTER_KEY = bytes(32)
_NEXT = re.compile(rb'"next":(\d+)}$')
_CLAIMANTS = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the defaults are for figures, smaller ones for a look."""

    seconds: float = 5.0
    rounds: int = 5
    customers: int = 20_000
    events: int = 1_000_000
    paged_events: int = 100_000
    subscribers: int = 1_000
    decisions: int = 500
    decisions_per_second: int = 50


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Take all measures of HTTP; about ten minutes at the default scale.

    Raises LoadToolMissingError where there is no wrk.
    """
    return [*_with_decisions(server, scale), *_with_history(server, scale)]


# --- processes ---------------------------------------------------------------------------------


@contextmanager
def _stack(part: str, settings: Settings) -> Iterator[tuple[str, int]]:
    """Run a part of the stack in a process of its own; gives what it said first, and its id."""
    names = ("database_url", "owner_database_url", "master_key")
    secrets = {name: getattr(settings, name).get_secret_value() for name in names}
    given = {
        "DATABASE_URL": secrets["database_url"],
        "GUISHU_OWNER_DATABASE_URL": secrets["owner_database_url"],
        "GUISHU_MASTER_KEY": secrets["master_key"],
        "GUISHU_DATA_DIRECTORY": str(settings.data_directory),
        "GUISHU_REQUESTS_PER_SECOND_MAX": str(settings.requests_per_second_max),
    }
    process = subprocess.Popen(  # noqa: S603 - arguments made here
        [sys.executable, "-m", "api.bench.stack", part],
        env={**os.environ, **given},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the pipes were asked for")
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.stdin.close()
            process.wait(60)


@contextmanager
def _opened(database: BenchDatabase) -> Iterator[Ledger]:
    with TemporaryDirectory() as folder:
        # By the names of the environment some fields have no others for mypy.
        given: dict[str, Any] = {
            "database_url": database.service_url,
            "owner_database_url": database.owner_url,
            "master_key": base64.b64encode(_MASTER_KEY).decode(),
            "data_directory": Path(folder),
            "requests_per_second_max": 1_000_000,
        }
        with open_ledger(Settings(**given), migrating=False) as ledger:
            yield ledger


def _token(ledger: Ledger, person: str, role: str) -> dict[str, str]:
    """Return the header of somebody's token."""
    with ledger.pool.connection() as connection:
        token = tokens.make_token(
            connection,
            kind="person",
            principal=person,
            roles=[role],
            made_by="bench",
            expires=datetime.now(UTC) + timedelta(days=1),
        )
    return {"Authorization": f"Bearer {token}"}


# --- claims with their decisions ---------------------------------------------------------------


def _with_decisions(server: BenchServer, scale: Scale) -> list[Measure]:
    with server.database() as database, _opened(database) as ledger:
        _make_rows(database)
        customers = _organisation(ledger, scale.customers)
        headers = {**_WAIT, **_token(ledger, "per_0", "rep")}
        auditor = _token(ledger, "per_auditor", "auditor")
        settle(ledger)
        with _stack("follow", ledger.settings), _stack("serve", ledger.settings) as (address, pid):
            claims = [
                ("/v1/claims", json.dumps({"customer": each, "claimant": f"per_{n % _CLAIMANTS}"}))
                for n, each in enumerate(customers)
            ]
            # Both processes have begun, and whoever enforces leads, when this is answered.
            path, body = claims[0]
            _ask(address, "POST", path, headers, body)
            wrk(address, claims, headers, connections=CONNECTIONS, seconds=2)
            return [
                *_single_claims(server, scale, address, claims, headers),
                _batches(scale, address, claims, headers),
                _followed(scale, address, pid, claims, headers, auditor),
            ]


def _make_rows(database: BenchDatabase) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(GRANT)
        connection.execute(
            "INSERT INTO public.bench_rows SELECT 'key_' || n, repeat('v', 200)"
            " FROM generate_series(1, 10000) AS n"
        )


def _organisation(ledger: Ledger, customers: int) -> list[str]:
    """Found an organisation in which nobody's claims are limited; return its customers."""
    stated: list[facts.FactCommand] = [
        facts.FoundOrganisation(name="bench", time_zone="Asia/Shanghai"),
        facts.DefineTerritory(territory="ter_1", name="north"),
        facts.AddPerson(person="per_auditor", name="auditor", roles=("auditor",)),
        *(
            facts.AddPerson(person=f"per_{n}", name=f"rep {n}", territory="ter_1")
            for n in range(_CLAIMANTS)
        ),
        facts.AdoptPolicy(policy=Policy(daily_claim_limit=None, holding_limit=None)),
    ]
    ledger.recording.record_facts(stated, Origin("bench", "founded", "bench"))
    found: list[str] = []
    for start in range(0, customers, 500):
        asked = [
            Asked(RegisterCustomer(name=f"customer {n}"), Origin("bench", f"r{n}", "per_0"))
            for n in range(start, min(start + 500, customers))
        ]
        for recorded in ledger.recording.record_many(asked):
            if isinstance(recorded, Exception):
                raise recorded
            found.append(recorded.customer)
    return found


def _single_claims(
    server: BenchServer,
    scale: Scale,
    address: str,
    claims: Requests,
    headers: dict[str, str],
) -> list[Measure]:
    many: list[Load] = []
    alone: list[Load] = []
    inserts: list[Load] = []

    def load(into: list[Load], requests: Requests, connections: int) -> Load:
        into.append(wrk(address, requests, headers, connections=connections, seconds=scale.seconds))
        return into[-1]

    insert = [("/bench/rows", json.dumps({"value": "v" * 200}))]
    taken = interleaved(
        {
            "pgbench": lambda: pgbench_rate(server, scale.seconds),
            "32": lambda: load(many, claims, CONNECTIONS).per_second,
            "inserts": lambda: load([], insert, CONNECTIONS).per_second,
            "1": lambda: load(alone, claims, 1).p50,
            "insert": lambda: load(inserts, insert, 1).p50,
        },
        scale.rounds,
    )
    return [
        compare(
            f"single claims with their decision, {CONNECTIONS} connections, beside pgbench, one"
            f" insert a commit, 32 clients{_beside(many)}",
            taken["32"],
            taken["pgbench"],
            unit="claims/s",
            at_least=1 / 15,
        ),
        compare(
            f"the same beside one insert and commit through the same stack, {CONNECTIONS}"
            " connections",
            taken["32"],
            taken["inserts"],
            unit="claims/s",
            # What the web framework leaves; nobody asked for a bound.
            at_least=0,
        ),
        compare(
            f"a claim with its decision, 1 connection, p50, beside one insert and commit through"
            f" the same stack, at most 5 times{_beside(alone)}",
            taken["1"],
            taken["insert"],
            unit="ms",
            at_least=1 / 5,
            less_is_better=True,
        ),
    ]


def _beside(loads: Sequence[Load]) -> str:
    middle = sorted(loads, key=lambda each: each.p50)[len(loads) // 2]
    return f" ({middle.p50:.3g} and {middle.p99:.3g} ms)"


def _batches(scale: Scale, address: str, claims: Requests, headers: dict[str, str]) -> Measure:
    """Claims a second in batches, by a few connections, and by 32 connections one by one."""
    bodies = [str(body) for _, body in claims]
    batches = [
        ("/v1/claims/batch", "\n".join(bodies[start : start + BATCH_CLAIMS]) + "\n")
        for start in range(0, len(bodies), BATCH_CLAIMS)
    ]
    lines = {**headers, "Content-Type": "application/x-ndjson"}
    _see_decided(address, batches[0], lines)

    # Of batches that are under way at the end nothing is counted.
    longer = max(4 * scale.seconds, BATCH_SECONDS_MIN)

    def load(requests: Requests, given: dict[str, str], connections: int, seconds: float) -> float:
        return wrk(address, requests, given, connections=connections, seconds=seconds).per_second

    taken = interleaved(
        {
            "batches": lambda: BATCH_CLAIMS * load(batches, lines, BATCH_CONNECTIONS, longer),
            "single": lambda: load(claims, headers, CONNECTIONS, scale.seconds),
        },
        scale.rounds,
    )
    return compare(
        f"claims in batches of {BATCH_CLAIMS:,} with their decisions, {BATCH_CONNECTIONS}"
        f" connections, beside single ones, {CONNECTIONS} connections",
        taken["batches"],
        taken["single"],
        unit="claims/s",
        at_least=10,
    )


def _see_decided(address: str, batch: tuple[str, str], headers: dict[str, str]) -> None:
    path, body = batch
    answer = _ask(address, "POST", path, headers, body)
    decided = answer.count(b'"status":"granted"') + answer.count(b'"status":"refused"')
    if decided != body.count("\n"):
        raise LoadFailedError(f"Of {BATCH_CLAIMS} claims of a batch {decided} were decided.")


def _ask(
    address: str, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise LoadFailedError(f"{method} {path} was answered with {answer.status}.")
    return content


# --- subscribers -------------------------------------------------------------------------------


def _followed(
    scale: Scale,
    address: str,
    pid: int,
    claims: Requests,
    headers: dict[str, str],
    auditor: dict[str, str],
) -> Measure:
    """From the moment that a decision bears until it has reached each subscriber."""
    before = _resident_bytes(pid)
    seconds, after = asyncio.run(_follow(scale, address, pid, claims, headers, auditor))
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    each = (after - before) / scale.subscribers / 1024
    return Measure(
        f"a decision reaching each of {scale.subscribers:,} subscribers, at"
        f" {scale.decisions_per_second} a second, p99 (p50 {p50:.3g} s), within"
        f" {ARRIVES_WITHIN_SECONDS:g} s; {each:.0f} KiB a subscriber",
        p99,
        ARRIVES_WITHIN_SECONDS,
        "s",
        ARRIVES_WITHIN_SECONDS / p99,
        1,
    )


async def _follow(
    scale: Scale,
    address: str,
    pid: int,
    claims: Requests,
    headers: dict[str, str],
    auditor: dict[str, str],
) -> tuple[list[float], int]:
    """Return how long each decision took to each subscriber, and the server's memory with them."""
    subscribers = Subscribers(address, "/v1/events/stream", auditor)
    try:
        await subscribers.open(scale.subscribers)
        resident = _resident_bytes(pid)
        told = await asyncio.to_thread(_claim_steadily, scale, address, claims, headers)
        last = max(told)
        deadline = time.monotonic() + 60
        while any(last not in seen for seen in subscribers.arrived):
            if time.monotonic() > deadline:
                raise LoadFailedError("Not every subscriber got every decision within a minute.")
            await asyncio.sleep(0.1)
        return [
            seen[position] - at for seen in subscribers.arrived for position, at in told.items()
        ], resident
    finally:
        await subscribers.close()


def _claim_steadily(
    scale: Scale, address: str, claims: Requests, headers: dict[str, str]
) -> dict[int, float]:
    """Claim so many times a second; return when each decision was recorded, by its position."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    told: dict[int, float] = {}
    begin = time.monotonic()
    group = max(1, scale.decisions_per_second // 10)
    for start in range(0, scale.decisions, group):
        lines = [str(body) for _, body in claims[start : start + group]]
        given = {**headers, "Content-Type": "application/x-ndjson"}
        connection.request("POST", "/v1/claims/batch", "\n".join(lines) + "\n", given)
        answers = [json.loads(each) for each in connection.getresponse().read().splitlines()]
        told.update(
            (each["decided_position"], datetime.fromisoformat(each["decided"]).timestamp())
            for each in answers
        )
        pause = begin + (start + group) / scale.decisions_per_second - time.monotonic()
        time.sleep(max(0.0, pause))
    connection.close()
    return told


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kibibytes) * 1024


# --- reads, with a long history ----------------------------------------------------------------


def _with_history(server: BenchServer, scale: Scale) -> list[Measure]:
    with server.database() as database, _opened(database) as ledger:
        _make_rows(database)
        log = _history(database, scale)
        rep = _token(ledger, "per_0", "rep")
        auditor = _token(ledger, _with_role(ledger, "per_auditor", "auditor"), "auditor")
        with _stack("serve", ledger.settings) as (address, _):
            _ask(address, "GET", "/livez", {})
            return [*_look_ups(scale, address, log, rep), _pages(database, scale, address, auditor)]


def _history(database: BenchDatabase, scale: Scale) -> SyntheticLog:
    @contextmanager
    def connected() -> Iterator[Connection[Any]]:
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            arrays.register(connection)
            yield connection

    vault = Vault(connected, _MASTER_KEY)
    with connected() as connection:
        log = SyntheticLog(connection, vault, customers=scale.customers)
        log.found()
        log.grow(scale.events)
        runner = Runner(connection, all_projections(vault), catalogue())
        runner.start()
        runner.catch_up()
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return log


def _with_role(ledger: Ledger, person: str, role: facts.Role) -> str:
    added = facts.AddPerson(person=person, name=person, roles=(role,))
    ledger.recording.record_facts([added], Origin("bench", f"added {person}", "bench"))
    return person


def _look_ups(
    scale: Scale, address: str, log: SyntheticLog, headers: dict[str, str]
) -> list[Measure]:
    customers = log.customer_ids
    now = [(f"/v1/customers/{each}/ownership", None) for each in customers]
    past = quote(log.halfway.isoformat())
    then = [(f"{path}?as_of={past}", None) for path, _ in now]
    rows = [(f"/bench/rows/key_{n}", None) for n in range(1, 10_001)]
    loads: dict[str, list[Load]] = {}

    def load(name: str, requests: Requests, connections: int) -> Load:
        found = wrk(address, requests, headers, connections=connections, seconds=scale.seconds)
        loads.setdefault(name, []).append(found)
        return found

    samples: dict[str, Callable[[], float]] = {
        "whois": lambda: load("whois", now, 8).per_second,
        "row": lambda: load("row", rows, 8).per_second,
        "now": lambda: load("now", now, 1).p50,
        "then": lambda: load("then", then, 1).p50,
    }
    taken = interleaved(samples, scale.rounds)
    return [
        compare(
            f"whose a customer is, 8 connections, beside selecting one row by key through the same"
            f" stack{_beside(loads['whois'])}",
            taken["whois"],
            taken["row"],
            unit="reads/s",
            at_least=0.7,
        ),
        compare(
            f"whose it was half the history ago, at {log.position:,} events, 1 connection, p50,"
            f" beside whose it is, at most 1.5 times{_beside(loads['then'])}",
            taken["then"],
            taken["now"],
            unit="ms",
            at_least=1 / 1.5,
            less_is_better=True,
        ),
    ]


def _pages(database: BenchDatabase, scale: Scale, address: str, headers: dict[str, str]) -> Measure:
    taken = interleaved(
        {
            "pages": lambda: _paged(scale, address, headers),
            "replay": lambda: _replayed(database, scale),
        },
        scale.rounds,
    )
    return compare(
        f"the log over HTTP, pages of {PAGE_EVENTS:,}, beside reading it in process",
        taken["pages"],
        taken["replay"],
        unit="events/s",
        at_least=0.5,
    )


def _paged(scale: Scale, address: str, headers: dict[str, str]) -> float:
    """Read pages one behind the other; return events a second."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    began, after, read = time.perf_counter(), 0, 0
    while read < scale.paged_events:
        connection.request("GET", f"/v1/events?after={after}&limit={PAGE_EVENTS}", headers=headers)
        found = _NEXT.search(connection.getresponse().read())
        if found is None:
            raise LoadFailedError("The log ended too early.")
        after, read = int(found[1]), read + PAGE_EVENTS
    connection.close()
    return read / (time.perf_counter() - began)


def _replayed(database: BenchDatabase, scale: Scale) -> float:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        began = time.perf_counter()
        read = sum(1 for _ in replay(connection, catalogue(), upto=scale.paged_events))
        return read / (time.perf_counter() - began)
