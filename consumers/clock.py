"""The clock: turns deadlines that have passed into requests, each once.

It follows the read model of what is due (projections/deadlines.py) and asks by the database's time.
A request's id is made of what it is about, so that two clocks, or one that is started again, record
one; the decider judges by the recorded time whether it was due. What came to nothing, since it was
put off meanwhile, is raised anew where that is taken back. So a clock that has slept needs to
catch up with nothing: what fell due first is raised first, and what follows is counted from there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from consumers import progress
from consumers.enforcer import CONSUMER as ENFORCER
from ledger import commands
from ledger.deadlines import CLOCK, Deadline, request_id
from ledger.envelope import Origin
from ledger.errors import LedgerError
from ledger.recording import Asked, Recorded, Recording
from ledger.store.reading import head
from projections import deadlines
from projections.deadlines import DueRow

_log = logging.getLogger(__name__)

_NOW = "SELECT clock_timestamp()"
# A leader looks every second or so. One that has said nothing for so long was stopped or cut off.
_IDLE = "SELECT set_config('idle_session_timeout', %s, false)"


@dataclass(frozen=True, slots=True)
class ClockLimits:
    """Bounds of the clock."""

    batch_requests_max: int = 500
    poll_seconds: float = 1.0
    standby_seconds: float = 1.0
    idle_seconds_max: float = 30.0


def database_now(connection: Connection[Any]) -> datetime:
    """Return the database's time (UTC): recorded times are of the same clock."""
    row = connection.execute(_NOW).fetchone()
    if row is None:
        raise AssertionError("the database tells the time")
    now: datetime = row[0]
    return now.astimezone(UTC)


class Clock:
    """Raises what is due, on a connection of its own (autocommit) and by a recording of its own.

    ``now`` tells the database's time. ``raised`` hears, after each batch, how many deadlines of it
    nobody had recorded before.
    """

    def __init__(
        self,
        connection: Connection[Any],
        recording: Recording,
        limits: ClockLimits | None = None,
        now: Callable[[Connection[Any]], datetime] = database_now,
        raised: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._connection = connection
        self._recording = recording
        self._limits = limits or ClockLimits()
        self._now = now
        self._told = raised
        # What was raised last stands there; the read model does not know of it before it is here.
        self._raised = 0
        self._decided = 0

    def run_once(self) -> int:
        """Raise all that is due now in order, a batch at a time; return how many were new.

        Nothing is raised while the read model does not reflect what was raised before, for it
        would show the same once more. Raises what recording raises; then what was recorded stays,
        and the next round goes on behind it.
        """
        if not self._is_reflected():
            return 0
        now, after, new = self._now(self._connection), deadlines.BEGINNING, 0
        limit = self._limits.batch_requests_max
        while True:
            page = deadlines.due(self._connection, now, after=after, limit=limit)
            new += self._raise(page) if page else 0
            if len(page) < limit:
                return new
            after = (page[-1].due, page[-1].customer)

    def _is_reflected(self) -> bool:
        if self._raised:
            if progress.reached(self._connection, ENFORCER) < self._raised:
                return False
            # What was decided stands behind the requests; that is to be projected as well.
            self._raised, self._decided = 0, head(self._connection)
        return deadlines.reached(self._connection) >= self._decided

    def _raise(self, page: list[DueRow]) -> int:
        """Raise a page; what came to nothing before, and is due all the same, once more."""
        new, failed = 0, None
        asked: list[tuple[DueRow, int | None]] = [(row, None) for row in page]
        while asked and failed is None:
            results = self._recording.record_many([_asked(*each) for each in asked])
            failed = next((each for each in results if isinstance(each, LedgerError)), None)
            repeated: list[tuple[DueRow, int]] = []
            for (row, _), each in zip(asked, results, strict=True):
                if isinstance(each, Recorded):
                    position = each.positions[-1]
                    self._raised = max(self._raised, position)
                    new += not each.repeated
                    repeated += [(row, position)] if each.repeated else []
            asked = [*deadlines.still_due(self._connection, repeated)] if repeated else []
        if new:
            _log.info("the clock raised %d deadlines", new)
        self._told(new)
        if failed is not None:
            raise failed
        return new

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Raise what falls due until ``stop`` is set; ``wait(seconds)`` may return early."""
        while not stop.is_set():
            self.run_once()
            wait(self._limits.poll_seconds)


def _asked(row: DueRow, again: int | None) -> Asked:
    command = commands.ReachDeadline(
        customer=row.customer, kind=row.kind, subject=row.subject, due=row.due.astimezone(UTC)
    )
    name = request_id(Deadline(row.kind, row.subject, command.due), again)
    return Asked(command, Origin(caller=CLOCK, request_id=name, actor=CLOCK))


def keep_time(
    connection: Connection[Any],
    recording: Recording,
    stop: threading.Event,
    wait: Callable[[float], object],
    limits: ClockLimits | None = None,
    *,
    now: Callable[[Connection[Any]], datetime] = database_now,
    raised: Callable[[int], None] = lambda count: None,
) -> None:
    """Be the clock while this connection leads, and stand by while another does, until ``stop``.

    That one leads saves work and is no fence: what two clocks raise is recorded once.
    """
    bounds = limits or ClockLimits()
    connection.execute(_IDLE, (f"{round(bounds.idle_seconds_max * 1_000)}ms",))
    while not progress.become_leader(connection, CLOCK):
        if stop.wait(bounds.standby_seconds):
            return
    Clock(connection, recording, bounds, now, raised).run(stop, wait)
