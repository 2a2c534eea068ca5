"""Keeps the read models up to date: one reader, one decoding, every projection that stands there.

State and tracking position commit together. A projection that is new, outdated or behind runs
apart until it stands where the others do. Two runners never apply twice: each takes a new epoch,
and a batch commits only where epoch and position are those that it began with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.collecting import uncollected
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.store import arrays
from ledger.store.reading import POSITION_MAX, read_after
from projections import schema
from projections.applying import (
    Applier,
    Batch,
    Parked,
    Parking,
    apply_at_once,
    apply_carefully,
    decoded,
    is_of_an_event,
    park_unreadable,
)
from projections.base import LIVE, Projection

_log = logging.getLogger(__name__)

# What follows a batch is read in its own message, so that it is there when the batch is done.
_AHEAD = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position > %b ORDER BY position LIMIT %b
"""
# What a crash of the server takes away of the last batches is applied again from the log; rows and
# position go back together, and the log behind which they stand was on the disk before they were.
_DO_NOT_WAIT_FOR_THE_DISK = "SELECT set_config('synchronous_commit', 'off', false)"
# In the middle of a batch, whose statements come in one pipeline, the session of a process that was
# stopped is not idle to the server, which would wait for the rest of it for ever, with its locks.
# The name is looked for, since PostgreSQL has it from 17 on.
_END_A_BATCH_THAT_HANGS = """
SELECT set_config(name, %s, false) FROM pg_settings WHERE name = 'transaction_timeout'
"""
_TAKE = """
UPDATE projections.tracking SET epoch = epoch + 1 WHERE name = ANY(%b)
RETURNING name, epoch, position
"""
_LOCK = """
SELECT name, epoch, position FROM projections.tracking WHERE name = ANY(%b)
ORDER BY name FOR UPDATE
"""
_MOVE = "UPDATE projections.tracking SET position = %b WHERE name = ANY(%b)"
_PARKED = "SELECT projection, stream, position FROM projections.parked WHERE projection = ANY(%b)"
_PARK = """
INSERT INTO projections.parked (projection, stream, position, code, words)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_PARKED_STREAMS = """
SELECT projection, stream, position, code, words, parked_at FROM projections.parked
ORDER BY position, projection LIMIT %s
"""
_POSITIONS = "SELECT name, position FROM projections.tracking"


class ProjectorFencedError(LedgerError):
    """Another process keeps the read models now; nothing of this batch was kept."""

    code = "projector_fenced"

    def __init__(self) -> None:
        super().__init__(
            "Another process keeps the read models now.",
            way_out="Nothing needs to be done: it goes on where this one stopped.",
        )


class NotReflectedError(LedgerError):
    """A read model did not reach a position in time."""

    code = "not_reflected"


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Bounds of the runner."""

    batch_events_max: int = 2_000
    poll_seconds: float = 0.2
    # Far behind what a batch takes, however slow the server is.
    batch_seconds_max: float = 300.0


class Runner:
    """Keeps projections up to date on a connection of its own (autocommit, nobody else's)."""

    def __init__(
        self,
        connection: Connection[Any],
        projections: Sequence[Projection],
        catalogue: Catalogue,
        limits: RunnerLimits | None = None,
    ) -> None:
        self._connection = connection
        self._projections = tuple(projections)
        self._catalogue = catalogue
        self._limits = limits or RunnerLimits()
        self._applier = Applier(projections, catalogue)
        self._epochs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        # The batch behind a position, read and decoded while the one before was written.
        self._ahead: tuple[int, Batch] | None = None
        arrays.register(connection)

    def start(self) -> list[Projection]:
        """Make missing tables and take over; return projections of another version.

        Those are left alone until a rebuild brings them to this version, and a new start.
        """
        outdated = schema.prepare(self._connection, self._projections)
        schema.plan_for_batches(self._connection)
        self._connection.execute(_DO_NOT_WAIT_FOR_THE_DISK)
        longest = f"{round(self._limits.batch_seconds_max * 1_000)}ms"
        self._connection.execute(_END_A_BATCH_THAT_HANGS, (longest,))
        names = {each.name for each in self._projections} - {each.name for each in outdated}
        with self._connection.transaction():
            packed = arrays.text_array(sorted(names))
            # In one order everywhere, else two that take over at once could wait for each other.
            self._connection.execute(_LOCK, (packed,), binary=True)
            rows = self._connection.execute(_TAKE, (packed,), binary=True).fetchall()
        self._epochs = {name: epoch for name, epoch, _ in rows}
        self._positions = {name: position for name, _, position in rows}
        self._ahead = None
        return outdated

    @property
    def position(self) -> int:
        """The position that every projection has reached."""
        return min(self._positions.values(), default=0)

    def run_once(self) -> int:
        """Apply one batch to those in front and one to those furthest behind; count their events.

        Whoever lags (a read model that is new, say) runs apart, so that the others never wait for
        more than one batch of its.

        Raises ProjectorFencedError, and psycopg's errors when the database fails: then nothing of
        the batch was kept, and ``start`` begins anew from what was.
        """
        if not self._positions:
            return 0
        events = self._step(max(self._positions.values()), POSITION_MAX)
        behind = self.position
        others = [at for at in self._positions.values() if at > behind]
        if others:
            # Not past where others stand: there they meet, and go on together.
            events += self._step(behind, min(others))
        return events

    def _step(self, behind: int, upto: int) -> int:
        """Apply one batch to those that stand at ``behind``; return how many events it had."""
        names = sorted(name for name, at in self._positions.items() if at == behind)
        batch = self._next(behind, upto)
        if batch is None:
            return 0
        with uncollected():
            self._apply(names, behind, batch, look_ahead=upto == POSITION_MAX)
        for name in names:
            self._positions[name] = batch.reached
        return batch.count

    def catch_up(self, progress: Callable[[int], None] = lambda position: None) -> None:
        """Apply until nothing is left; ``progress`` is told each position reached."""
        while self.run_once():
            progress(self.position)

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Apply until ``stop`` is set; ``wait(seconds)`` returns early when there may be news."""
        while not stop.is_set():
            if not self.run_once():
                wait(self._limits.poll_seconds)

    def _next(self, after: int, upto: int) -> Batch | None:
        if self._ahead is not None and self._ahead[0] == after:
            return self._ahead[1]
        stored = read_after(self._connection, after, self._limits.batch_events_max, upto)
        return decoded(self._catalogue, stored) if stored else None

    def _apply(self, names: Sequence[str], behind: int, batch: Batch, *, look_ahead: bool) -> None:
        packed = arrays.text_array(names)
        try:
            self._apply_at_once(names, behind, batch, packed, look_ahead=look_ahead)
            return
        except ProjectorFencedError:
            raise
        except Exception as error:
            if not is_of_an_event(error):
                raise
            # It comes again, named, where the batch is applied carefully.
            _log.warning("a batch behind %d could not be applied at once", behind)
        with self._connection.transaction():
            parked = self._lock(names, behind, packed, batch.count)
            parkings: list[Parking] = []
            for share in self._applier.shares(self._connection, batch, frozenset(names)):
                parkings += park_unreadable(share, parked)
                parkings += apply_carefully(self._connection, share, parked)
            self._finish(batch.reached, packed, parkings)

    def _apply_at_once(
        self,
        names: Sequence[str],
        behind: int,
        batch: Batch,
        packed: arrays.BinaryArray,
        *,
        look_ahead: bool,
    ) -> None:
        """Send all statements of the batch in a row: the server works while the next is made."""
        connection = self._connection
        ahead = None
        with connection.pipeline(), connection.transaction():
            parked = self._lock(names, behind, packed, batch.count)
            if look_ahead and batch.count == self._limits.batch_events_max:
                ahead = connection.execute(
                    _AHEAD, (batch.reached, batch.count), prepare=True, binary=True
                )
                # Else its last rows would wait in the server for the end of the batch.
                connection.pgconn.send_flush_request()
            parkings: list[Parking] = []
            for share in self._applier.shares(connection, batch, frozenset(names)):
                parkings += park_unreadable(share, parked)
                apply_at_once(connection, share, parked)
            self._finish(batch.reached, packed, parkings)
            # The server still writes this batch, while the next is decoded here.
            stored = ahead.fetchall() if ahead is not None else []
            following = decoded(self._catalogue, stored) if stored else None
        if look_ahead:
            self._ahead = (batch.reached, following) if following is not None else None

    def _lock(
        self, names: Sequence[str], behind: int, packed: arrays.BinaryArray, events: int
    ) -> Parked:
        """Lock the tracking rows; return what is parked. Raises ProjectorFencedError."""
        connection = self._connection
        locked = connection.execute(_LOCK, (packed,), binary=True, prepare=True)
        rows = connection.execute(_PARKED, (packed,), binary=True, prepare=True)
        schema.use(connection, LIVE, events=events)
        if locked.fetchall() != [(name, self._epochs[name], behind) for name in names]:
            raise ProjectorFencedError
        parked: Parked = {}
        for name, stream, position in rows:
            parked.setdefault(name, {})[stream] = position
        return parked

    def _finish(
        self, reached: int, packed: arrays.BinaryArray, parkings: Sequence[Parking]
    ) -> None:
        for parking in parkings:
            self._connection.execute(_PARK, parking)
        self._connection.execute(_MOVE, (reached, packed), binary=True, prepare=True)


def positions(connection: Connection[Any]) -> dict[str, int]:
    """Return the position that each projection reflects; empty before the first start."""
    if connection.execute("SELECT to_regclass('projections.tracking')").fetchone() == (None,):
        return {}
    return dict(connection.execute(_POSITIONS).fetchall())


@dataclass(frozen=True, slots=True)
class ParkedStream:
    """A stream that a projection leaves alone from ``position`` on, and why.

    ``code`` is stable; ``words`` say more and may quote personal data. ``parked_at`` is UTC.
    """

    projection: str
    stream: str
    position: int
    code: str
    words: str
    parked_at: datetime


def parked_streams(connection: Connection[Any], limit: int = 1_000) -> list[ParkedStream]:
    """Return what waits for a mending and a rebuild, by position."""
    if connection.execute("SELECT to_regclass('projections.parked')").fetchone() == (None,):
        return []
    return [ParkedStream(*row) for row in connection.execute(_PARKED_STREAMS, (limit,))]


def wait_until(
    connection: Connection[Any],
    names: Iterable[str],
    position: int,
    timeout_seconds: float,
    pause_seconds: float = 0.02,
) -> None:
    """Wait until the named projections reflect ``position``; raises NotReflectedError."""
    wanted = set(names)
    deadline = time.monotonic() + timeout_seconds
    while True:
        reached = positions(connection)
        if all(reached.get(name, 0) >= position for name in wanted):
            return
        if time.monotonic() > deadline:
            lagging = sorted(name for name in wanted if reached.get(name, 0) < position)
            raise NotReflectedError(
                f"{', '.join(lagging)} do not reflect position {position} yet.",
                way_out="See that `guishu run` is running, or ask again a little later.",
            )
        time.sleep(pause_seconds)
