"""The read models' speed: catching up, rebuilding, memory, as-of look-ups, from append to row."""

from __future__ import annotations

import multiprocessing
import random
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from api.bench.harness import BenchDatabase, BenchServer, Measure, compare, interleaved
from api.bench.synthetic import SyntheticLog
from consumers.enforcing import enforce
from consumers.feed import StoreFeed
from ledger.envelope import Origin, Ruling, decision_body, request_body
from ledger.events import decisions, organisation, requests
from ledger.events.catalogue import Data, catalogue
from ledger.events.values import Sealed
from ledger.sealing import Vault
from ledger.store import arrays
from ledger.store.appending import Append, NewEvent, append_within
from ledger.store.committer import CommitterThread
from ledger.store.hints import LINGER_SECONDS, Notifier, Stop, Waiter
from projections.intervals import Intervals, owner_at
from projections.rebuild import rebuild
from projections.registry import all_projections
from projections.runner import Runner

EVENTS_PER_SECOND_MIN = 20_000
REBUILD_RATIO_MIN = 1.5
MEMORY_RATIO_MAX = 1.2
LOOK_UP_RATIO_MAX = 1.5
COMMITS_MAX = 12

_APPEND_EVENTS = 5_000
_WARMING_UP = 50
_BYTES = 1 if sys.platform == "darwin" else 1_024
_MASTER_KEY = b"only for measurements".ljust(32, b".")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    events: int = 1_000_000
    more_events: int = 4_000_000
    customers: int = 100_000
    people: int = 1_000
    look_up_events: int = 1_000_000
    few_look_up_events: int = 10_000
    look_ups: int = 2_000
    rounds: int = 5
    single_claims: int = 500
    claims_per_second: int = 50


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Take all measures of the read models; about eight minutes at the default scale."""
    return [
        *_following(server, scale),
        _look_ups(server, scale, scale.customers, f"spread over {scale.customers:,} customers"),
        _look_ups(server, scale, 1, "all on one customer"),
        _latency(server, scale),
    ]


@contextmanager
def _connected(url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection


# --- catching up and rebuilding ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """What a process of its own took: seconds, and the most memory that it ever had, in bytes."""

    seconds: float
    peak_bytes: int


def _following(server: BenchServer, scale: Scale) -> list[Measure]:
    with server.database() as database:
        with _connected(database.service_url) as connection:
            vault = Vault(lambda: _connected(database.service_url), _MASTER_KEY)
            log = SyntheticLog(connection, vault, scale.customers, scale.people)
            log.found()
            log.grow(scale.events)
            followed, events = _apart(_catch_up, database.service_url), log.position
            rebuilt = _apart(_rebuild, database.service_url)
            log.grow(scale.more_events)
        rebuilt_more = _apart(_rebuild, database.service_url)
    catching_up, rebuilding = events / followed.seconds, events / rebuilt.seconds
    mebibytes = rebuilt_more.peak_bytes / 2**20, rebuilt.peak_bytes / 2**20
    return [
        Measure(
            f"all read models catching up with {events:,} events, one process, against"
            f" {EVENTS_PER_SECOND_MIN:,}/s",
            catching_up,
            EVENTS_PER_SECOND_MIN,
            "events/s",
            catching_up / EVENTS_PER_SECOND_MIN,
            1,
        ),
        Measure(
            f"all of them rebuilt from {events:,} events, beside catching up",
            rebuilding,
            catching_up,
            "events/s",
            rebuilding / catching_up,
            REBUILD_RATIO_MIN,
        ),
        Measure(
            f"peak memory of a rebuild from {scale.more_events:,} events, beside {events:,}, at"
            f" most {MEMORY_RATIO_MAX} times",
            *mebibytes,
            "MiB",
            mebibytes[1] / mebibytes[0],
            1 / MEMORY_RATIO_MAX,
        ),
    ]


def _apart(work: Callable[[str], _Run], url: str) -> _Run:
    """Run ``work`` in a new process, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (url,))


def _timed(work: Callable[[], object]) -> _Run:
    before = time.perf_counter()
    work()
    seconds = time.perf_counter() - before
    return _Run(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES)


def _catch_up(url: str) -> _Run:
    with _connected(url) as connection:
        models = all_projections(Vault(lambda: _connected(url), _MASTER_KEY))
        runner = Runner(connection, models, catalogue())
        runner.start()
        return _timed(runner.catch_up)


def _rebuild(url: str) -> _Run:
    models = all_projections(Vault(lambda: _connected(url), _MASTER_KEY))
    return _timed(lambda: rebuild(lambda: _connected(url), models, catalogue()))


# --- as-of look-ups ----------------------------------------------------------------------------


def _look_ups(server: BenchServer, scale: Scale, customers: int, words: str) -> Measure:
    """Compare look-ups in a long history with those in a short one, taken in turn."""
    few, many = scale.few_look_up_events, scale.look_up_events
    with (
        server.database() as short,
        server.database() as long,
        _connected(short.service_url) as short_connection,
        _connected(long.service_url) as long_connection,
    ):
        for connection, events in ((short_connection, few), (long_connection, many)):
            _change_hands(connection, customers, events)
            runner = Runner(connection, [Intervals()], catalogue())
            runner.start()
            runner.catch_up()
        taken = interleaved(
            {
                "short": lambda: _p99_ms(short_connection, customers, scale.look_ups),
                "long": lambda: _p99_ms(long_connection, customers, scale.look_ups),
            },
            scale.rounds,
        )
    return compare(
        f"as-of look-up at p99 with {many:,} events, {words}, beside {few:,}, at most"
        f" {LOOK_UP_RATIO_MAX} times",
        taken["long"],
        taken["short"],
        unit="ms",
        at_least=1 / LOOK_UP_RATIO_MAX,
        less_is_better=True,
    )


_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=1)


def _change_hands(connection: Connection[Any], customers: int, events: int) -> None:
    """Admit customers, and then let them change hands with so many events."""
    writer = _Writer(connection)
    for number in range(customers):
        customer = f"cus_{number:08d}"
        cause = writer.request(requests.RegistrationRequested(customer, "organisation", customer))
        writer.decide(cause, decisions.CustomerAdmitted(customer, "organisation", _BEGIN), _BEGIN)
    owned: set[str] = set()
    chance = random.Random(1)  # noqa: S311 - which customers does not matter
    for number in range(events // 2):
        customer = f"cus_{chance.randrange(customers):08d}"
        at = _BEGIN + _STEP * number
        if customer in owned:
            owned.remove(customer)
            cause = writer.request(requests.ReleaseRequested(customer, "no_need"))
            writer.decide(cause, decisions.OwnershipReleased(customer, "per_0", "no_need"), at)
        else:
            owned.add(customer)
            cause = writer.request(requests.ClaimFiled(customer, "per_0"))
            writer.decide(cause, decisions.OwnershipGranted(customer, "per_0"), at)
    writer.flush()


class _Writer:
    """Appends requests with their decisions, in parts."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._position = 0
        self._new: list[NewEvent] = []

    def request(self, data: Any) -> int:
        body = request_body(catalogue(), Origin("bench", "bench", "per_0"), 0, data)
        return self._put(NewEvent(f"customer-{data.customer}", catalogue().name_of(data), body))

    def decide(self, cause: int, data: Any, effective: datetime) -> None:
        body = decision_body(catalogue(), Ruling(cause, 0, effective, 1, 0, {}), data)
        name = catalogue().name_of(data)
        self._put(NewEvent(f"ownership-{data.customer}", name, body, None, cause, 0))
        if len(self._new) >= _APPEND_EVENTS:
            self.flush()

    def _put(self, event: NewEvent) -> int:
        self._new.append(event)
        self._position += 1
        return self._position

    def flush(self) -> None:
        if self._new:
            with self._connection.transaction():
                append_within(self._connection, Append(tuple(self._new))).fetchone()
            self._new = []


def _p99_ms(connection: Connection[Any], customers: int, look_ups: int) -> float:
    """Look up who owned a customer at some moment, every other time as known at some moment."""
    row = connection.execute(
        "SELECT (SELECT recorded FROM ledger.events ORDER BY position LIMIT 1),"
        " (SELECT recorded FROM ledger.events ORDER BY position DESC LIMIT 1),"
        " (SELECT max(from_effective) FROM projections.ownership_intervals)"
    ).fetchone()
    if row is None:
        raise AssertionError("a row of values brought none")
    first, last, until = row
    chance = random.Random(2)  # noqa: S311 - which customers does not matter
    taken = []
    for number in range(look_ups + _WARMING_UP):
        customer = f"cus_{chance.randrange(customers):08d}"
        as_of = _BEGIN + (until - _BEGIN) * chance.random()
        known_at = first + (last - first) * chance.random() if number % 2 else None
        before = time.perf_counter()
        owner_at(connection, customer, as_of, known_at)
        taken.append((time.perf_counter() - before) * 1e3)
    return statistics.quantiles(taken[_WARMING_UP:], n=100)[98]


# --- from a claim to its row -------------------------------------------------------------------


def _latency(server: BenchServer, scale: Scale) -> Measure:
    """From before a claim's append until its decision is in the read models, and one insert."""
    shown_ms: list[float] = []
    commits_ms: list[float] = []
    customers = scale.single_claims + _WARMING_UP
    with server.database() as database:
        with CommitterThread(database.service_url) as committer:
            facts: list[Data] = [
                organisation.OrganisationFounded("bench", "Asia/Shanghai"),
                organisation.PersonJoined("per_0", Sealed("key", "text")),
                organisation.PolicyAdopted(1, {"holding_limit": None, "daily_claim_limit": None}),
            ]
            entered: list[Data] = [
                requests.RegistrationRequested(f"cus_{number}", "organisation", f"cus_{number}")
                for number in range(customers)
            ]
            for data in (*facts, *entered):
                committer.append(_alone(data))
        with (
            Notifier(database.service_url) as notifier,
            _running(database, notifier) as shown,
            CommitterThread(database.service_url, committed=notifier.hint) as committer,
            psycopg.connect(database.superuser_url, autocommit=True) as inserting,
        ):
            inserting.execute("CREATE TABLE inserted (body bytea)")
            shown.wait(len(facts) + 2 * len(entered))
            for number in range(customers):
                claim = _alone(requests.ClaimFiled(f"cus_{number}", "per_0"))
                begin = time.perf_counter()
                position = committer.append(claim).first_position
                # Nobody else writes: the decision stands right behind.
                shown_ms.append((shown.wait(position + 1) - begin) * 1e3)
                before = time.perf_counter()
                inserting.execute(
                    "INSERT INTO inserted VALUES (%s)", (claim.events[0].body,), prepare=True
                )
                commits_ms.append((time.perf_counter() - before) * 1e3)
                time.sleep(max(0.0, begin + 1 / scale.claims_per_second - time.perf_counter()))
    return compare(
        f"from a claim's append to its decision in the read models at {scale.claims_per_second}"
        f" claims/s, p50, beside one insert and commit, at most {COMMITS_MAX} times",
        shown_ms[_WARMING_UP:],
        commits_ms[_WARMING_UP:],
        unit="ms",
        at_least=1 / COMMITS_MAX,
        less_is_better=True,
    )


def _alone(data: Any) -> Append:
    body = request_body(catalogue(), Origin("bench", "bench", "per_0"), 0, data)
    customer = getattr(data, "customer", None)
    stream = "organisation" if customer is None else f"customer-{customer}"
    return Append((NewEvent(stream, catalogue().name_of(data), body),))


class _Shown:
    """Which position the read models have reached, and when that was."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._position, self._at = 0, 0.0

    def reached(self, position: int) -> None:
        with self._changed:
            self._position, self._at = position, time.perf_counter()
            self._changed.notify_all()

    def wait(self, position: int) -> float:
        """Return when the position was reached, by the clock of ``time.perf_counter``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._position >= position, 60):
                raise TimeoutError("a claim was not shown within 60 seconds")
            return self._at


@contextmanager
def _running(database: BenchDatabase, notifier: Notifier) -> Iterator[_Shown]:
    """Let an enforcer and a projector follow, woken by hints, in threads, as ``guishu run``."""
    stop, shown = Stop(), _Shown()
    threads = [
        threading.Thread(target=work, args=(database.service_url, stop))
        for work in (_enforcing(notifier), _projecting(notifier, shown))
    ]
    for thread in threads:
        thread.start()
    try:
        yield shown
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _enforcing(notifier: Notifier) -> Callable[[str, Stop], None]:
    def work(url: str, stop: Stop) -> None:
        with Waiter(url, stop, near=notifier) as waiter:
            enforce(
                lambda: psycopg.connect(url, autocommit=True),
                StoreFeed(),
                catalogue(),
                stop,
                waiter.wait,
                committed=notifier.hint_decided,
            )

    return work


def _projecting(notifier: Notifier, shown: _Shown) -> Callable[[str, Stop], None]:
    def work(url: str, stop: Stop) -> None:
        with (
            _connected(url) as connection,
            Waiter(url, stop, near=notifier, linger_seconds=LINGER_SECONDS) as waiter,
        ):
            models = all_projections(Vault(lambda: _connected(url), _MASTER_KEY))
            runner = Runner(connection, models, catalogue())
            runner.start()
            while not stop.is_set():
                if runner.run_once():
                    shown.reached(runner.position)
                else:
                    waiter.wait(0.2)

    return work
