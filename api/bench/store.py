"""The store's speed: appends beside pgbench and the library's recorder, and reading beside SELECT.

Everything is durable (fsync on), and every sample has a fresh database.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresFactory
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from api.bench.harness import BenchDatabase, BenchServer, Measure, compare, interleaved
from ledger import ids
from ledger.envelope import Origin, Ruling, decision_body, request_body
from ledger.events.catalogue import catalogue
from ledger.events.decisions import OwnershipGranted
from ledger.events.requests import ClaimFiled
from ledger.store.appending import Append, NewEvent, RequestKey
from ledger.store.committer import Committer, CommitterThread
from ledger.store.embedded import OWNER_ROLE, binaries_folder
from ledger.store.reading import replay

T = TypeVar("T")

BODY_BYTES = 300
BATCH_EVENTS = 1_000
CUSTOMERS = 100_000

# The library's recorder takes a fraction of a second for what is measured; or it hangs.
HANGS_AFTER_SECONDS = 60

_PLAIN_SELECT = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the defaults are for figures, smaller ones for a look."""

    seconds: float = 3.0
    rounds: int = 5
    old_snapshot_rounds: int = 3
    old_snapshot_appends: int = 500_000
    bulk_events: int = 50_000
    read_events: int = 200_000


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Take all measures of the store; some minutes at the default scale."""
    return [
        *single_appends(server, scale),
        bulk_appends(server, scale),
        append_beside_old_snapshot(server, scale),
        reading(server, scale),
    ]


def single_appends(server: BenchServer, scale: Scale) -> list[Measure]:
    """One event an append, each a request of its own, for 32 and 128 callers of one process."""
    row_bytes = _row_bytes(server)
    taken = interleaved(
        {
            "pgbench": lambda: pgbench_rate(server, scale.seconds, row_bytes),
            "32": lambda: _append_rate(server, 32, scale.seconds),
            "128": lambda: _append_rate(server, 128, scale.seconds),
            "library": lambda: _library_rate(server, 32, scale.seconds),
        },
        scale.rounds,
    )
    ours, theirs = "single appends, {} callers", "beside pgbench, one insert a commit, 32 clients"
    return [
        compare(
            ours.format(32) + ", beside the library's recorder, 32 threads",
            taken["32"],
            taken["library"],
            unit="events/s",
            at_least=20,
        ),
        compare(
            f"{ours.format(32)}, {theirs}",
            taken["32"],
            taken["pgbench"],
            unit="events/s",
            at_least=1.2,
        ),
        compare(
            f"{ours.format(128)}, {theirs}",
            taken["128"],
            taken["pgbench"],
            unit="events/s",
            at_least=1.5,
        ),
    ]


def bulk_appends(server: BenchServer, scale: Scale) -> Measure:
    """A thousand events an append, from one caller, beside the library's recorder with as many.

    Not more, because the library's recorder then nearly always hangs: it waits for the answer to a
    message of which psycopg has not sent the end (``Pipeline.sync`` flushes once, not until done).
    """
    taken = interleaved(
        {
            "ours": lambda: _bulk_rate(server, scale.bulk_events),
            "library": lambda: _library_bulk_rate(server, scale.bulk_events),
        },
        scale.rounds,
    )
    return compare(
        f"bulk appends of {BATCH_EVENTS:,} events, beside the library's recorder",
        taken["ours"],
        taken["library"],
        unit="events/s",
        at_least=4,
    )


def append_beside_old_snapshot(server: BenchServer, scale: Scale) -> Measure:
    """Single appends of 32 callers after many others, while a session has an old snapshot."""
    taken = interleaved(
        {
            "fresh": lambda: _append_rate(server, 32, scale.seconds),
            "old": lambda: _rate_beside_old_snapshot(server, scale),
        },
        scale.old_snapshot_rounds,
    )
    return compare(
        f"single appends, 32 callers, beside an old snapshot after {scale.old_snapshot_appends:,} "
        "appends, against fresh",
        taken["old"],
        taken["fresh"],
        unit="events/s",
        at_least=0.8,
    )


def reading(server: BenchServer, scale: Scale) -> Measure:
    """The log as decoded events, beside a plain SELECT of the same rows by the same driver."""
    with (
        server.database() as database,
        psycopg.connect(database.service_url, autocommit=True) as connection,
    ):
        _fill_with_decisions(database, scale.read_events)
        taken = interleaved(
            {
                "replay": lambda: scale.read_events / _seconds(lambda: _replay(connection)),
                "select": lambda: scale.read_events / _seconds(lambda: _select(connection)),
            },
            scale.rounds,
        )
    return compare(
        "reading the log as decoded events, beside a plain SELECT",
        taken["replay"],
        taken["select"],
        unit="events/s",
        at_least=0.5,
    )


# --- ours --------------------------------------------------------------------------------------


def _single_appends(count: int) -> list[Append]:
    """Return requests of one event each, on customers at random."""
    chance = random.Random(count)  # noqa: S311 - which customers does not matter
    customers = [f"customer-{ids.new_id(ids.CUSTOMER)}" for _ in range(CUSTOMERS)]
    body = b'{"data":"' + b"x" * (BODY_BYTES - 11) + b'"}'
    return [
        Append(
            (NewEvent(chance.choice(customers), "ClaimFiled.v1", body),),
            RequestKey("api", ids.new_id(ids.REQUEST), chance.randbytes(32)),
        )
        for _ in range(count)
    ]


def _append_rate(server: BenchServer, callers: int, seconds: float) -> float:
    with server.database() as database:
        return _events_per_second(database, callers, seconds)


def _rate_beside_old_snapshot(server: BenchServer, scale: Scale) -> float:
    with (
        server.database() as database,
        psycopg.connect(database.superuser_url) as snapshot,
    ):
        snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        snapshot.execute("SELECT count(*) FROM ledger.events")
        _append_all(database, scale.old_snapshot_appends)
        return _events_per_second(database, 32, scale.seconds)


def _events_per_second(database: BenchDatabase, callers: int, seconds: float) -> float:
    # More than any machine takes, so that nothing has to be made while the clock runs.
    left = iter(_single_appends(1_000 + int(seconds * 100_000)))
    with _undisturbed(), asyncio.Runner() as runner:
        return runner.run(_call_for(database, left, callers, seconds))


async def _call_for(
    database: BenchDatabase, left: Iterator[Append], callers: int, seconds: float
) -> float:
    async with Committer(database.service_url) as committer:

        async def caller() -> int:
            done = 0
            while time.perf_counter() < end:
                await committer.append(next(left))
                done += 1
            return done

        await committer.append(next(left))
        begin = time.perf_counter()
        end = begin + seconds
        done = await asyncio.gather(*(caller() for _ in range(callers)))
        return sum(done) / (time.perf_counter() - begin)


def _append_all(database: BenchDatabase, count: int) -> None:
    async def work() -> None:
        async with Committer(database.service_url) as committer:

            async def caller() -> None:
                for append in left:
                    await committer.append(append)

            await asyncio.gather(*(caller() for _ in range(128)))

    for _ in range(0, count, 50_000):
        left = iter(_single_appends(min(count, 50_000)))
        with asyncio.Runner() as runner:
            runner.run(work())


def _bulk_rate(server: BenchServer, events: int) -> float:
    singles = _single_appends(max(events, BATCH_EVENTS))
    batches = [Append(tuple(single.events[0] for single in batch)) for batch in _batches(singles)]
    with server.database() as database, CommitterThread(database.service_url) as committer:
        committer.append(singles[0])
        return len(singles) / _seconds(lambda: [committer.append(each) for each in batches])


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + BATCH_EVENTS] for start in range(0, len(items), BATCH_EVENTS)]


# --- pgbench -----------------------------------------------------------------------------------


def _row_bytes(server: BenchServer) -> int:
    """Return how long a row of the log is that ``_single_appends`` makes."""
    with server.database() as database, CommitterThread(database.service_url) as committer:
        committer.append_many(_single_appends(100))
        with psycopg.connect(database.service_url) as connection:
            row = connection.execute("SELECT avg(pg_column_size(e.*)) FROM ledger.events e")
            return int((row.fetchone() or (0,))[0])


def pgbench_rate(server: BenchServer, seconds: float, row_bytes: int | None = None) -> float:
    """Let pgbench insert rows as long as ours, one a commit, 32 clients; returns rows a second."""
    row_bytes = _row_bytes(server) if row_bytes is None else row_bytes
    with server.database(migrated=False) as database, TemporaryDirectory() as folder:
        with psycopg.connect(database.owner_url, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE pgbench_rows"
                " (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, row bytea NOT NULL)"
            )
            size = connection.execute("SELECT pg_column_size(ROW(1::bigint, ''::bytea))")
            filling = row_bytes - int((size.fetchone() or (0,))[0])
        script = Path(folder) / "insert.sql"
        script.write_text(f"INSERT INTO pgbench_rows (row) VALUES ('\\x{'ab' * filling}');\n")  # noqa: S608 - no input
        where = conninfo_to_dict(database.owner_url)
        target = ["-h", where["host"], "-p", where["port"], "-U", OWNER_ROLE, database.name]
        load = ["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", str(max(1, round(seconds)))]
        program = binaries_folder() / "pgbench"
        ran = subprocess.run(  # noqa: S603 - a program of the wheel, arguments made here
            [str(program), *load, "-f", str(script), *map(str, target)],
            check=True,
            capture_output=True,
            text=True,
        )
    (rate,) = [line.split()[2] for line in ran.stdout.splitlines() if line.startswith("tps")]
    return float(rate)


# --- the library -------------------------------------------------------------------------------


@contextmanager
def _library_recorder(server: BenchServer, threads: int) -> Iterator[Any]:
    with server.database(migrated=False) as database:
        where = conninfo_to_dict(database.owner_url)
        factory = PostgresFactory(
            {
                "POSTGRES_DBNAME": database.name,
                "POSTGRES_HOST": str(where["host"]),
                "POSTGRES_PORT": str(where["port"]),
                "POSTGRES_USER": OWNER_ROLE,
                "POSTGRES_PASSWORD": "",
                "POSTGRES_POOL_SIZE": str(threads),
            }
        )
        with factory:
            yield factory.application_recorder()
        factory.close()


def _library_events(count: int) -> list[StoredEvent]:
    body = b"x" * BODY_BYTES
    return [StoredEvent(uuid4(), 1, "ClaimFiled.v1", body) for _ in range(count)]


def _library_rate(server: BenchServer, threads: int, seconds: float) -> float:
    with (
        _library_recorder(server, threads) as recorder,
        ThreadPoolExecutor(threads) as pool,
    ):
        begin = time.perf_counter()

        def caller(_: int) -> int:
            done = 0
            while time.perf_counter() < begin + seconds:
                recorder.insert_events(_library_events(1))
                done += 1
            return done

        return sum(pool.map(caller, range(threads))) / (time.perf_counter() - begin)


def _library_bulk_rate(server: BenchServer, events: int) -> float:
    """Return the library's rate; a sample in which it hung does not count."""
    batches = _batches(_library_events(max(events, BATCH_EVENTS)))
    for _ in range(5):
        with _library_recorder(server, 1) as recorder:
            recorder.insert_events(_library_events(1))
            hung = threading.Event()
            watch = threading.Timer(HANGS_AFTER_SECONDS, _end_sessions, (server, hung))
            watch.start()
            seconds = _seconds(partial(_insert_all, recorder, batches))
            watch.cancel()
            if not hung.is_set():
                return sum(map(len, batches)) / seconds
    raise RuntimeError("The library's recorder hung five times.")


def _insert_all(recorder: Any, batches: Sequence[Sequence[StoredEvent]]) -> None:
    for batch in batches:
        recorder.insert_events(batch)


def _end_sessions(server: BenchServer, hung: threading.Event) -> None:
    """End the sessions of whoever hangs; the library makes new ones and tries again."""
    hung.set()
    with psycopg.connect(server.embedded.superuser_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'bench_%'"
        )


# --- reading -----------------------------------------------------------------------------------


def _fill_with_decisions(database: BenchDatabase, events: int) -> None:
    """Fill the log with claims and the grants that follow from them, half of each."""
    known = catalogue()
    now = datetime.now(UTC)
    guards = {"holdings": 7, "ownership": 3}
    with CommitterThread(database.service_url) as committer:
        for start in range(1, events, 2_000):
            half = min(1_000, (events - start + 1) // 2)
            customers = [ids.new_id(ids.CUSTOMER) for _ in range(half)]
            person, territory = ids.new_id(ids.PERSON), ids.new_id(ids.TERRITORY)
            claims = [
                NewEvent(
                    f"customer-{customer}",
                    "ClaimFiled.v1",
                    request_body(
                        known,
                        Origin("api:crm", ids.new_id(ids.REQUEST), person),
                        0,
                        ClaimFiled(customer, person),
                    ),
                )
                for customer in customers
            ]
            grants = [
                NewEvent(
                    f"ownership-{customer}",
                    "OwnershipGranted.v1",
                    decision_body(
                        known,
                        Ruling(start + number, 0, now, 1, 1, guards),
                        OwnershipGranted(customer, person, territory, territory, now),
                    ),
                    causation=start + number,
                    ordinal=0,
                )
                for number, customer in enumerate(customers)
            ]
            committer.append(Append((*claims, *grants)))


def _replay(connection: Connection[Any]) -> None:
    for _ in replay(connection, catalogue()):
        pass


def _select(connection: Connection[Any]) -> None:
    for _ in connection.execute(_PLAIN_SELECT).fetchall():
        pass


def _seconds(work: Callable[[], object]) -> float:
    with _undisturbed():
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from looking at what was made before, again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
