"""The enforcer: follows the requests, decides each once, and alone appends decisions.

A batch is one transaction: (1) the progress row is locked and its epoch checked; (2) all guards
that the batch may touch are locked in key order; (3) only then settled state is read; (4) the
batch is decided in memory; (5) guards, progress, append and COMMIT go in one message, so that the
append lock is never kept across a round trip.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection, errors

from consumers import guessing, progress
from consumers.feed import Feed
from ledger.canonical import canonical_bytes
from ledger.deciders import Decider, DeciderMissingError, deciders
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, Ruling, decision_body, decode
from ledger.events import requests
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import RequestParked
from ledger.organisation import Organisation
from ledger.settled import Key, NotLoadedError, Settled
from ledger.store import arrays, guards
from ledger.store.appending import Append, NewEvent, append_within, check_append
from ledger.store.reading import read_at, read_stream

CONSUMER = "enforcer"
_RETRYABLE = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
# Each round locks what the one before found missing; a chain of group parents is the longest.
_ROUNDS_MAX = 50
_RETRIES_MAX = 10

_log = logging.getLogger(__name__)

_PARKED = "SELECT customer FROM ledger.parked_requests GROUP BY customer"
_PARK = "INSERT INTO ledger.parked_requests (position, customer, error) VALUES (%s, %s, %s)"
_WAITING = """
SELECT position FROM ledger.parked_requests WHERE customer = %s ORDER BY position FOR UPDATE
"""
_UNPARK = "DELETE FROM ledger.parked_requests WHERE position = ANY(%b)"


@dataclass(frozen=True, slots=True)
class EnforcerLimits:
    """Bounds of the enforcer."""

    batch_requests_max: int = 500
    lock_timeout_ms: int = 5_000
    poll_seconds: float = 0.2


@dataclass(slots=True)
class _Decided:
    """What deciding a batch in memory has brought, before anything is written."""

    events: list[NewEvent] = field(default_factory=list)
    parked: list[tuple[int, str, str | None]] = field(default_factory=list)
    unparked: list[int] = field(default_factory=list)
    missing: set[Key] = field(default_factory=set)


class Enforcer:
    """Decides what the feed brings, on a connection of its own (autocommit; nobody else's)."""

    def __init__(
        self,
        connection: Connection[Any],
        feed: Feed,
        catalogue: Catalogue,
        limits: EnforcerLimits | None = None,
        versions: Mapping[int, Decider] | None = None,
    ) -> None:
        self._connection = connection
        self._feed = feed
        self._catalogue = catalogue
        self._limits = limits or EnforcerLimits()
        self._deciders = versions or deciders()
        self._organisation = Organisation()
        self._progress: progress.Progress | None = None
        arrays.register(connection)

    @property
    def position(self) -> int:
        """The position up to which every request has its decision, or is parked."""
        return self._progress.position if self._progress else 0

    def start(self) -> None:
        """Take over from whoever enforced before; both may live, only the newer can write."""
        self._connection.execute(
            "SELECT set_config('lock_timeout', %s, false),"
            " set_config('default_transaction_isolation', 'read committed', false)",
            (str(self._limits.lock_timeout_ms),),
        )
        self._progress = progress.take_over(self._connection, CONSUMER)

    def run_once(self) -> int:
        """Decide one batch, and return how many positions it moved on; 0 when all is decided.

        Raises FencedError when another process has taken over, DeciderMissingError when this
        version of guishu is too old, and psycopg's errors when the database fails: then nothing
        of the batch was kept, and ``start`` begins anew from what was.
        """
        if self._progress is None:
            raise RuntimeError("Enforcer.run_once before start")
        before = self._progress.position
        batch = self._feed.read(self._connection, before, self._limits.batch_requests_max)
        if batch.reached == before:
            return 0
        self._follow_organisation(batch.reached)
        requests_ = [decode(self._catalogue, each) for each in batch.requests]
        self._decide_halving(requests_, batch.reached)
        return self._progress.position - before

    def catch_up(self) -> None:
        """Decide until nothing is left."""
        while self.run_once():
            pass

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Decide until ``stop`` is set; ``wait(seconds)`` returns early when there may be news."""
        while not stop.is_set():
            if not self.run_once():
                wait(self._limits.poll_seconds)

    def _follow_organisation(self, upto: int) -> None:
        stored = read_stream(self._connection, "organisation", self._organisation.version, upto)
        self._organisation.apply_all(decode(self._catalogue, each) for each in stored)

    def _decide_halving(self, batch: Sequence[Event], reached: int) -> None:
        """Decide a batch; where it will not go through, in halves down to one request."""
        for attempt in range(_RETRIES_MAX):
            try:
                self._transact(batch, reached)
                return
            except _RETRYABLE as error:
                _log.info("a batch of %d is decided again: %s", len(batch), error.sqlstate)
                if len(batch) > 1 and attempt >= 1:
                    break
        else:
            raise errors.LockNotAvailable("a single request could not be decided: locks are held")
        middle = len(batch) // 2
        self._decide_halving(batch[:middle], batch[middle - 1].position)
        self._decide_halving(batch[middle:], reached)

    def _transact(self, batch: Sequence[Event], reached: int) -> None:
        keys = self._guess(batch)
        for _ in range(_ROUNDS_MAX):
            missing = self._try(batch, reached, keys)
            if not missing:
                return
            keys |= missing
        raise AssertionError("a batch touches more and more guards without end")

    def _guess(self, batch: Sequence[Event]) -> set[Key]:
        keys: set[Key] = set()
        for request in batch:
            keys.update(guessing.keys_named(request, self._organisation.at(request.position)))
        looked_at = [request for request in batch if guessing.needs_a_look(request)]
        if looked_at:
            settled = Settled()
            named: set[Key] = {("customer", request.data.customer) for request in looked_at}
            guards.read(self._connection, named, settled)
            keys.update(guessing.keys_seen(looked_at, settled))
        return keys

    def _try(self, batch: Sequence[Event], reached: int, keys: set[Key]) -> set[Key]:
        """Decide the batch under the locks of ``keys``; return what else it turned out to touch.

        Where that is anything, the transaction was rolled back.
        """
        if self._progress is None:
            raise RuntimeError("Enforcer.run_once before start")
        connection = self._connection
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            progress.lock(connection, self._progress)
            settled = Settled()
            guards.lock(connection, keys, settled)
            decided = self._decide(batch, settled)
            if decided.missing:
                connection.execute("ROLLBACK")
                return decided.missing
            # One message from the first write to the COMMIT, with the append as the last but one.
            with connection.pipeline():
                self._write(decided, settled, reached)
                connection.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                connection.execute("ROLLBACK")
            raise
        self._progress.position = reached
        return set()

    def _write(self, decided: _Decided, settled: Settled, reached: int) -> None:
        connection = self._connection
        if self._progress is None:
            raise RuntimeError("Enforcer.run_once before start")
        guards.write(connection, settled)
        if decided.unparked:
            connection.execute(_UNPARK, (arrays.int8_array(decided.unparked),), binary=True)
        for parked in decided.parked:
            connection.execute(_PARK, parked)
        progress.move(connection, self._progress, reached)
        if decided.events:
            append_within(connection, Append(tuple(decided.events)))

    def _decide(self, batch: Sequence[Event], settled: Settled) -> _Decided:
        decided = _Decided()
        rows = self._connection.execute(_PARKED, prepare=True).fetchall()
        waiting = {customer for (customer,) in rows}
        for request in batch:
            customer: str = request.data.customer
            if isinstance(request.data, requests.RequestUnparked):
                self._unpark(request, settled, decided, waiting)
            elif customer in waiting:
                decided.parked.append((request.position, customer, None))
            elif not self._decide_one(request, settled, decided):
                waiting.add(customer)
        return decided

    def _decide_one(
        self, request: Event, settled: Settled, decided: _Decided, version: int | None = None
    ) -> bool:
        """Decide one request; return False where it could not be, and was parked instead."""
        organisation = self._organisation.at(request.position)
        version = version or organisation.decider
        decide = self._deciders.get(version)
        if decide is None:
            raise DeciderMissingError(version)
        try:
            draft = decide(settled, request, organisation)
            event = decision_event(self._catalogue, request, draft, version, settled)
            settled.apply(request, draft.data, draft.effective, organisation)
        except NotLoadedError as missing:
            # Nothing of this round is kept; the others are still decided, to find all that lacks.
            decided.missing.add(missing.key)
            return True
        except Exception as error:  # a defect of one request must not stop the rest
            if decided.missing:
                return True  # what was decided on half a state may well fail; the next round tells
            _log.exception("the request at %d cannot be decided", request.position)
            self._park(request, f"{type(error).__name__}: {error}"[:500], settled, decided)
            return False
        decided.events.append(event)
        return True

    def _park(self, request: Event, error: str, settled: Settled, decided: _Decided) -> None:
        customer: str = request.data.customer
        parked = RequestParked(customer, request.position, type_of(error))
        version = settled.version(customer) + 1
        settled.versions[customer] = version
        settled.touched.add(("customer", customer))
        decided.events.append(
            NewEvent(
                f"ownership-{customer}",
                self._catalogue.name_of(parked),
                parking_body(self._catalogue, parked),
                version,
            )
        )
        decided.parked.append((request.position, customer, error))

    def _unpark(
        self, request: Event, settled: Settled, decided: _Decided, waiting: set[str]
    ) -> None:
        """Decide what was parked with the version named, then what waited behind it, in order."""
        customer: str = request.data.customer
        rows = self._connection.execute(_WAITING, (customer,)).fetchall()
        stored = read_at(self._connection, [position for (position,) in rows])
        waiting.discard(customer)
        for each in (decode(self._catalogue, one) for one in stored):
            keys = set(guessing.keys_named(each, self._organisation.at(each.position)))
            lacking = {key for key in keys if not _is_loaded(settled, key)}
            decided.missing |= lacking
            if lacking:
                continue
            named = each.position == request.data.request
            if customer in waiting:
                continue
            decided.unparked.append(each.position)
            version = request.data.decider if named else None
            if not self._decide_one(each, settled, decided, version):
                waiting.add(customer)
        self._decide_one(request, settled, decided)


def _is_loaded(settled: Settled, key: Key) -> bool:
    match key:
        case ("customer", customer):
            return customer in settled.customers
        case ("holdings", person):
            return person in settled.holdings
        case ("grants", person, day):
            return (person, day) in settled.grants
        case ("identifier", system, identifier):
            return (system, identifier) in settled.identifiers
        case _:
            return key[1] in settled.acts


def type_of(error: str) -> str:
    """Return the part of a parking error that may stand in the log: no words of the request."""
    return error.split(":", 1)[0]


def parking_body(catalogue: Catalogue, parked: RequestParked) -> bytes:
    """Return the canonical bytes of a parking event's body."""
    return canonical_bytes({"caller": CONSUMER, "data": catalogue.dump(parked)})


def decision_event(
    catalogue: Catalogue, request: Event, draft: Draft, version: int, settled: Settled
) -> NewEvent:
    """Return the event that records a draft as the decision on ``request``.

    Raises EntryTooLargeError.
    """
    ruling = Ruling(
        causation=request.position,
        ordinal=0,
        effective=draft.effective,
        decider=version,
        policy=draft.policy,
        guards=draft.guards,
        import_id=request.import_id,
    )
    customer = draft.data.customer
    event = NewEvent(
        f"ownership-{customer}",
        catalogue.name_of(draft.data),
        decision_body(catalogue, ruling, draft.data),
        settled.version(customer) + 1,
        request.position,
        0,
    )
    check_append(Append((event,)))
    return event
