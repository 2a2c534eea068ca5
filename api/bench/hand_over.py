"""A hand-over: how long it takes as a whole, and how long somebody else's append waits meanwhile.

Everything is durable (fsync on). One process decides, and in the same process one caller appends
single requests all the while, each as soon as the one before is recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from api.bench.harness import BenchDatabase, BenchServer, Measure
from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from ledger.deciding import stream_of
from ledger.envelope import Origin, request_body
from ledger.events.catalogue import Data, catalogue
from ledger.events.organisation import (
    OrganisationFounded,
    PersonJoined,
    PolicyAdopted,
    TerritoryDefined,
)
from ledger.events.requests import (
    ClaimFiled,
    FollowUpLogged,
    HandOverRequested,
    RegistrationRequested,
)
from ledger.events.values import Sealed
from ledger.policy import Policy
from ledger.store.appending import Append, NewEvent
from ledger.store.committer import CommitterThread

WAIT_MS_MAX = 250

_APPEND_EVENTS = 5_000
_WARMING_UP = 50
_COLUMNS = "position, recorded, stream, version, name, body, leaf, causation, ordinal"
_TYPES = ["int8", "timestamptz", "text", "int4", "text", "bytea", "bytea", "int8", "int4"]
_DECISIONS = """
SELECT position, recorded, stream, version, name, body, leaf, causation, ordinal
FROM ledger.events WHERE causation = %s ORDER BY position
"""
_ADMIN, _GIVER, _RECEIVER = "per_admin", "per_giver", "per_receiver"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the defaults are for figures, smaller ones for a look."""

    customers: int = 50_000


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Hand everything over at once, and then back with a receiver who is asked to accept each."""
    with server.database() as database, CommitterThread(database.service_url) as committer:
        _record(committer, _facts())
        _record(committer, _owned(scale.customers))
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            enforcer = Enforcer(connection, StoreFeed(), catalogue())
            enforcer.start()
            enforcer.catch_up()
            moved = _hand_over(database, committer, enforcer, _GIVER, _RECEIVER)
            _record(committer, [PolicyAdopted(2, _policy(Policy()).as_rules())])
            enforcer.catch_up()
            asked = _hand_over(database, committer, enforcer, _RECEIVER, _GIVER)
    count = f"{scale.customers:,} customers"
    return [
        *_measures(f"a hand-over of {count}, who move at once", moved),
        *_measures(f"a hand-over of {count}, of each of whom the receiver is asked", asked),
    ]


# --- what is handed over -----------------------------------------------------------------------


def _policy(policy: Policy) -> Policy:
    unlimited = {"holding_limit": None, "daily_claim_limit": None, "protection_days": 0}
    return policy.model_copy(update=unlimited)


def _facts() -> list[Data]:
    people = ((_ADMIN, ("admin",)), (_GIVER, ("rep",)), (_RECEIVER, ("rep",)))
    return [
        OrganisationFounded("bench", "Asia/Shanghai"),
        TerritoryDefined("ter_1", "north"),
        *(PersonJoined(person, Sealed("key", "text"), "ter_1", roles) for person, roles in people),
        TerritoryDefined("ter_1", "north", None, _ADMIN),
        PolicyAdopted(1, _policy(Policy(approval_rules=())).as_rules()),
    ]


def _owned(customers: int) -> list[Data]:
    named = [f"cus_{number:08d}" for number in range(customers)]
    registered = [RegistrationRequested(each, "organisation", each) for each in named]
    return [*registered, *(ClaimFiled(each, _GIVER) for each in named)]


def _new_event(data: Any, actor: str = _ADMIN) -> NewEvent:
    events = catalogue()
    name = events.name_of(data)
    is_fact = events.kind_of(name) == "fact"
    stream = "organisation" if is_fact else stream_of("request", data)
    return NewEvent(stream, name, request_body(events, Origin("bench", "bench", actor), 0, data))


def _record(committer: CommitterThread, data: Sequence[Data]) -> int:
    """Record these, and return the position of the last."""
    last = 0
    for start in range(0, len(data), _APPEND_EVENTS):
        part = tuple(_new_event(each) for each in data[start : start + _APPEND_EVENTS])
        last = committer.append(Append(part)).positions[-1]
    return last


# --- one hand-over -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _HandedOver:
    """How long it took and a COPY of the same events; the waits of appends with it and without."""

    seconds: float
    copy_seconds: float
    waits_ms: Sequence[float]
    alone_ms: Sequence[float]


@dataclass(slots=True)
class _Appending:
    """Appends one follow-up after the other, and takes the time of each."""

    committer: CommitterThread
    stop: threading.Event = field(default_factory=threading.Event)
    warm: threading.Event = field(default_factory=threading.Event)
    waits_ms: list[float] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        number = 0
        try:
            while not self.stop.is_set():
                number += 1
                act = f"fup_{id(self)}_{number}"
                event = _new_event(FollowUpLogged("cus_00000000", act, _ADMIN, "phone"))
                before = time.perf_counter()
                self.committer.append(Append((event,)))
                self.waits_ms.append((time.perf_counter() - before) * 1e3)
                if number == _WARMING_UP:
                    self.warm.set()
        except BaseException as error:
            self.failures.append(error)
            self.warm.set()


@contextmanager
def _appending(committer: CommitterThread) -> Iterator[_Appending]:
    """Let one caller append beside the block; raises what has ended it."""
    appending = _Appending(committer)
    thread = threading.Thread(target=appending.work)
    thread.start()
    try:
        appending.warm.wait()
        appending.waits_ms.clear()
        yield appending
    finally:
        appending.stop.set()
        thread.join()
    if appending.failures:
        raise appending.failures[0]


def _hand_over(
    database: BenchDatabase,
    committer: CommitterThread,
    enforcer: Enforcer,
    giver: str,
    receiver: str,
) -> _HandedOver:
    with psycopg.connect(database.superuser_url, autocommit=True) as superuser:
        # As on a server that has run for a while; see api/bench/enforcer.py.
        superuser.execute("CHECKPOINT")
    enforcer.catch_up()
    name = f"hov_{giver}"
    order = HandOverRequested(giver, name, (receiver,), "all_to_one", "moved_on")
    position = _record(committer, [order])
    with _appending(committer) as appending:
        before = time.perf_counter()
        while enforcer.position < position:
            enforcer.run_once()
        seconds = time.perf_counter() - before
    enforcer.catch_up()
    with _appending(committer) as alone:
        time.sleep(seconds)  # as long as the hand-over took, so that both had as much time to wait
    enforcer.catch_up()
    copy_seconds = _copy_seconds(database, position)
    return _HandedOver(seconds, copy_seconds, appending.waits_ms, alone.waits_ms)


def _copy_seconds(database: BenchDatabase, position: int) -> float:
    """Return how long a COPY of the decisions takes into a table like the log, with one commit."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        rows = connection.execute(_DECISIONS.encode(), (position,), binary=True).fetchall()
        connection.execute("CREATE TABLE IF NOT EXISTS copied (LIKE ledger.events INCLUDING ALL)")
        statement = f"COPY copied ({_COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
        before = time.perf_counter()
        with connection.cursor().copy(statement) as copy:
            copy.set_types(_TYPES)
            for row in rows:
                copy.write_row(row)
        return time.perf_counter() - before


def _measures(name: str, found: _HandedOver) -> list[Measure]:
    longest, alone = max(found.waits_ms), max(found.alone_ms)
    return [
        Measure(
            f"{name}, beside one COPY of the same events",
            found.seconds,
            found.copy_seconds,
            "s",
            found.copy_seconds / found.seconds,
            0,
        ),
        Measure(
            f"the longest that another append waited in it, against {WAIT_MS_MAX} ms at most"
            f" ({len(found.waits_ms):,} appends; {alone:.0f} ms without it)",
            longest,
            WAIT_MS_MAX,
            "ms",
            WAIT_MS_MAX / longest,
            1,
        ),
    ]
