"""The enforcer: follows the requests, decides each once, and alone appends decisions.

A batch is one transaction: (1) the progress row is moved, which locks it and checks its epoch;
(2) all guards that the batch may touch are locked in key order; (3) only then settled state is
read; (4) the batch is decided in memory; (5) guards and parked requests are written; (6) append and
COMMIT go in one message, so that the append lock is never kept across a round trip.

A hand-over is a batch of its own, and several transactions, a part of it each. Only the last moves
the progress row on; the giver's guard says how far the parts have come.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import Connection, errors
from psycopg.pq import TransactionStatus

from consumers import guessing, handing_over, parking, progress
from consumers.batch import Asked, Decided, DefectError, words_of
from consumers.facts import Facts
from consumers.feed import Feed
from consumers.grouping import with_groups
from ledger.collecting import uncollected
from ledger.deciders import Decider, DeciderMissingError, deciders
from ledger.deciding import ENFORCER, named_by, stream_of
from ledger.envelope import StoredEvent, decode
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue, UnknownEventError
from ledger.events.requests import RequestUnparked
from ledger.settled import Key, Settled
from ledger.store import arrays, guards
from ledger.store.appending import Append, append_and_commit
from ledger.store.reading import read_at

CONSUMER = ENFORCER
_RETRYABLE = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
)
# Each round locks what the one before found missing; a chain of group parents is the longest.
_ROUNDS_MAX = 50
_TRIES_OF_A_BATCH = 2
_TRIES_OF_A_REQUEST = 10

_log = logging.getLogger(__name__)

# All that this connection looks up it looks up by a whole key: a plan that was made while the
# tables were small must not scan them when they have grown.
_SETTINGS = """
SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('TimeZone', 'UTC', false), set_config('jit', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false), set_config('enable_bitmapscan', 'off', false)
"""


class GuardsStaleError(LedgerError):
    """What the enforcer keeps beside the log contradicts it; nothing of the batch was kept."""

    code = "guards_stale"

    def __init__(self, sentence: str) -> None:
        super().__init__(
            f"The enforcer's guards contradict the log: {sentence}",
            way_out="Run guishu verify, and then make the guards again from the log with"
            " guishu rebuild --guards.",
        )


class _GuardsMissingError(Exception):
    """Guards are to be made before any is locked."""


class _DecidedElsewhereError(Exception):
    """The enforcer of another part has dealt with what was parked, or is about to."""


@dataclass(frozen=True, slots=True)
class EnforcerLimits:
    """Bounds of the enforcer."""

    batch_requests_max: int = 300
    lock_timeout_ms: int = 5_000
    statement_timeout_ms: int = 60_000
    # A server that has not even said "timed out" this long after it should have is lost.
    silence_seconds_max: float = 65.0
    poll_seconds: float = 0.2


class Enforcer:
    """Decides what the feed brings, on a connection of its own (autocommit; nobody else's).

    ``consumer`` names its progress, and ``part`` the part of the customers that the feed brings.
    Enforcers of one process that work in turn share their ``facts``.
    ``committed`` is called after each batch that brought decisions; it must return at once.
    """

    def __init__(
        self,
        connection: Connection[Any],
        feed: Feed,
        catalogue: Catalogue,
        limits: EnforcerLimits | None = None,
        versions: Mapping[int, Decider] | None = None,
        *,
        consumer: str = CONSUMER,
        part: progress.Part = progress.WHOLE,
        facts: Facts | None = None,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._feed = feed
        self._catalogue = catalogue
        self._limits = limits or EnforcerLimits()
        self._versions = deciders() if versions is None else versions
        self._consumer = consumer
        self._part = part
        self._committed = committed
        self._facts = facts or Facts(catalogue, self._versions)
        self._progress: progress.Progress | None = None
        self._makes_guards = True
        self._stop = threading.Event()
        arrays.register(connection)

    @property
    def position(self) -> int:
        """The position up to which every request has its decision, or is parked."""
        return self._progress.position if self._progress else 0

    def start(self, stop: threading.Event | None = None) -> None:
        """Take over from whoever enforced before; both may live, only the newer can write.

        Once ``stop`` is set, a hand-over is left between two of its parts, for the next start.

        Raises ProgressDividedError, and as ``run_once``: an unparking that was interrupted is
        brought to its end.
        """
        if stop is not None:
            self._stop = stop
        limits = self._limits
        timeouts = (str(limits.lock_timeout_ms), str(limits.statement_timeout_ms))
        self._connection.execute(_SETTINGS, timeouts)
        self._progress = progress.take_over(self._connection, self._consumer, self._part)
        for customer in parking.ready_customers(self._connection):
            self._decide_parked(customer, None)

    def run_once(self) -> int:
        """Decide one batch, and return how many positions it moved on; 0 when all is decided.

        Raises FencedError when another process has taken over; GuardsStaleError;
        DeciderMissingError or UnknownEventError when this version of guishu is too old for the next
        request; and psycopg's errors when the database fails or locks are held for too long. Then
        nothing of the batch was kept, and ``start`` begins anew from what was.
        """
        before = self._own_progress().position
        batch = self._feed.read(self._connection, before, self._limits.batch_requests_max)
        if batch.reached < before:
            raise GuardsStaleError(f"position {before} was reached, and the log ends in front.")
        if batch.reached == before:
            return 0
        if batch.requests:
            with uncollected():
                self._facts.follow(self._connection, batch.reached)
                self._decide_next(*self._next_of(batch.requests, batch.reached))
        else:
            progress.skip(self._connection, self._own_progress(), batch.reached)
        return self.position - before

    def catch_up(self) -> None:
        """Decide until nothing is left."""
        while self.run_once():
            pass

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Decide until ``stop`` is set; ``wait(seconds)`` may return early when there is news.

        It may be set between two parts of a hand-over, which then goes on at the next start.
        """
        self._stop = stop
        while not stop.is_set():
            if not self.run_once():
                wait(self._limits.poll_seconds)

    def _own_progress(self) -> progress.Progress:
        if self._progress is None:
            raise RuntimeError("The enforcer is used before start.")
        return self._progress

    # --- what is decided next ------------------------------------------------------------------

    def _next_of(self, stored: Sequence[StoredEvent], reached: int) -> tuple[list[Asked], int]:
        """Return the requests to decide in one transaction, and how far that goes.

        An unparking comes alone, and so does a hand-over. In front of what is too new for this
        version of guishu the batch ends; raises DeciderMissingError or UnknownEventError where that
        is the very first.
        """
        asked: list[Asked] = []
        for each in stored:
            try:
                request = self._read(each)
                version = self._facts.organisation.at(each.position).decider
                if version not in self._versions:
                    raise DeciderMissingError(version)
            except (DeciderMissingError, UnknownEventError):
                if not asked:
                    raise
                return asked, each.position - 1
            if asked and (_comes_alone(request) or _comes_alone(asked[0])):
                return asked, each.position - 1
            asked.append(request)
        return asked, reached

    def _read(self, stored: StoredEvent, row: parking.Row | None = None) -> Asked:
        """Return a request as read, or why it cannot be; raises UnknownEventError."""
        named = named_by(stored.stream)
        try:
            event = decode(self._catalogue, stored)
            if self._catalogue.kind_of(stored.name) != "request":
                raise ValueError(f"{stored.name} is no request")
            if stored.stream != stream_of("request", event.data):
                raise ValueError("the request is about another customer than its stream")
        except UnknownEventError:
            raise
        except Exception as error:  # what cannot be read is parked, and the rest goes on
            _log.exception("the request at %d cannot be read", stored.position)
            return Asked(stored.position, named, None, words_of(error), row)
        return Asked(stored.position, named, event, row=row)

    def _decide_next(self, batch: Sequence[Asked], reached: int) -> None:
        first = batch[0]
        if first.event is not None and isinstance(first.event.data, RequestUnparked):
            self._unpark(first.event.data)
        self._decide_halving(batch, reached)

    # --- unparking -----------------------------------------------------------------------------

    def _unpark(self, unparking: RequestUnparked) -> None:
        customer = parking.customer_of(self._connection, unparking.request)
        self._decide_parked(customer or unparking.customer, unparking)

    def _decide_parked(self, customer: str, unparking: RequestUnparked | None) -> None:
        """Decide a customer's parked requests in their order, up to one that nobody set free.

        A transaction for each part, so that any number may have waited.
        """
        limit = self._limits.batch_requests_max
        while rows := parking.rows_of(self._connection, customer, limit):
            by_position = {row.position: row for row in rows}
            stored = read_at(self._connection, list(by_position))
            self._facts.follow(self._connection, stored[-1].position)
            part = [self._read(each, by_position[each.position]) for each in stored]
            if part[0].hands_over:
                part, rows = part[:1], rows[:1]
            if unparking is not None:
                part = [
                    replace(each, version=unparking.decider)
                    if each.position == unparking.request
                    else each
                    for each in part
                ]
            self._decide_patiently(part, self.position, _TRIES_OF_A_REQUEST, customer)
            left = parking.rows_of(self._connection, customer, 1)
            if not left or left[0].position <= rows[-1].position:
                return

    # --- transactions --------------------------------------------------------------------------

    def _decide_halving(self, batch: Sequence[Asked], reached: int) -> None:
        """Decide a batch; where it will not go through, in halves down to one request."""
        if len(batch) == 1:
            self._decide_patiently(batch, reached, _TRIES_OF_A_REQUEST)
            return
        try:
            self._decide_patiently(batch, reached, _TRIES_OF_A_BATCH)
        except _RETRYABLE:
            middle = len(batch) // 2
            self._decide_halving(batch[:middle], batch[middle].position - 1)
            self._decide_halving(batch[middle:], reached)

    def _decide_patiently(
        self, batch: Sequence[Asked], reached: int, tries: int, unparked: str | None = None
    ) -> None:
        left = tries
        while True:
            try:
                if self._decide_for_good(batch, reached, unparked):
                    return
                left = tries  # for the next part
                if self._stop.is_set() and unparked is None:
                    return  # what is being unparked is nowhere else remembered
            except _DecidedElsewhereError:
                return  # and there the rest is decided as well
            except _RETRYABLE as error:
                _log.info("%d requests are not decided yet: %s", len(batch), error.sqlstate)
                left -= 1
                if not left:
                    raise

    def _decide_for_good(self, batch: Sequence[Asked], reached: int, unparked: str | None) -> bool:
        """Decide a batch; return False where it was a part of a hand-over that is not the last."""
        keys = self._guess(batch)
        defects: dict[int, str] = {}
        for _ in range(_ROUNDS_MAX + 2 * len(batch)):
            try:
                decided = self._transact(batch, reached, keys, defects, unparked)
            except DefectError as defect:
                defects[defect.position] = defect.words
                continue
            except _GuardsMissingError:
                continue
            if not decided.missing:
                return decided.is_last
            keys |= decided.missing
        raise AssertionError("a batch touches more and more guards without end")

    def _guess(self, batch: Sequence[Asked]) -> set[Key]:
        first = batch[0].event
        if first is not None and batch[0].hands_over:
            return handing_over.guess(self._connection, first)
        keys: set[Key] = {("customer", asked.customer) for asked in batch}
        requests = [asked.event for asked in batch if asked.event is not None]
        for request in requests:
            keys.update(guessing.keys_named(request, self._facts.organisation.at(request.position)))
        looked_at = [request for request in requests if guessing.needs_a_look(request)]
        if looked_at:
            settled = Settled()
            named: set[Key] = {("customer", request.data.customer) for request in looked_at}
            guards.read(self._connection, named, settled)
            keys |= with_groups(self._connection, guessing.keys_seen(looked_at, settled))
        return keys

    def _transact(
        self,
        batch: Sequence[Asked],
        reached: int,
        keys: set[Key],
        defects: Mapping[int, str],
        unparked: str | None,
    ) -> Decided:
        """Decide the batch under the locks of ``keys``, and write what that has brought.

        Where it turned out to touch more, the transaction was rolled back. ``unparked`` is the
        customer whose parked requests the batch is made of.
        """
        connection, own, first = self._connection, self._own_progress(), batch[0].event
        hands_over = first if batch[0].hands_over else None
        try:
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            progress.move(connection, own, own.position if hands_over else reached)
            settled = Settled()
            self._lock(keys, settled)
            if unparked is not None and not self._is_still_parked(batch):
                raise _DecidedElsewhereError
            decided = Decided()
            if hands_over is not None:
                decided.missing = handing_over.load(connection, hands_over, settled)
            decided.missing |= self._groups_lacking(batch, keys, settled)
            if not decided.missing:
                waiting = parking.waiting_among(connection, settled.customers) - {unparked}
                decided = self._facts.batches.decide(batch, settled, waiting, defects)
            if decided.missing:
                connection.execute("ROLLBACK")
                decided.missing = with_groups(connection, decided.missing)
                return decided
            if hands_over is not None and decided.is_last:
                progress.move(connection, own, reached)
            self._write_and_commit(decided, settled)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, psycopg.Error) and _tells_of_stale_guards(error):
                raise GuardsStaleError(str(error).splitlines()[0]) from error
            raise
        if decided.is_last:
            own.position = reached
        if decided.recorded:
            self._committed()
        return decided

    def _lock(self, keys: set[Key], settled: Settled) -> None:
        """Lock the guards, and load their state; raises _GuardsMissingError.

        To look for rows that are missing takes as long as to lock them all. So it is done only
        where some were missing just now, as in a backlog of registrations.
        """
        made = guards.make(self._connection, keys) if self._makes_guards else 0
        if not guards.lock(self._connection, keys, settled):
            if self._makes_guards:
                raise AssertionError("a guard that was just made is missing")
            self._makes_guards = True
            raise _GuardsMissingError
        self._makes_guards = made > 0

    def _is_still_parked(self, batch: Sequence[Asked]) -> bool:
        """Say, under the lock of the customer, whether parked requests wait as they were read.

        Any part begins with what is ready to be decided, whichever part had it parked.
        """
        rows = parking.rows_at(self._connection, [asked.position for asked in batch])
        return rows == [asked.row for asked in batch]

    def _groups_lacking(self, batch: Sequence[Asked], keys: set[Key], settled: Settled) -> set[Key]:
        """Return guards of groups that the batch may touch and that were not guessed.

        Claims are not looked at before, for most customers are in no group: it would cost all of
        them what it spares some.
        """
        claims = [
            asked.event
            for asked in batch
            if asked.event is not None and not guessing.needs_a_look(asked.event)
        ]
        return set(guessing.keys_of_groups(claims, settled)) - keys

    def _write_and_commit(self, decided: Decided, settled: Settled) -> None:
        parking.write(self._connection, decided.freed, decided.parked)
        with guards.writing(self._connection, settled):
            events = self._facts.batches.events_of(decided)
        if events:
            append_and_commit(self._connection, Append(events))
        else:
            self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._connection.info.transaction_status is not TransactionStatus.IDLE:
            # Where the connection is lost, so is the transaction; the first error tells of it.
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")


def _comes_alone(asked: Asked) -> bool:
    return asked.unparks or asked.hands_over


def _tells_of_stale_guards(error: psycopg.Error) -> bool:
    """Say whether the log has, under our locks, what the guards or the progress do not know of."""
    return error.sqlstate == "GS001" or isinstance(error, errors.UniqueViolation)
