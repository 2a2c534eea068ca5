"""Keeps the read models up to date: one reader, one decoding, every projection that stands there.

State and tracking position commit together. A projection that is new, outdated or behind runs
apart until it stands where the others do. Two runners never apply twice: each takes a new epoch,
and a batch commits only where epoch and position are those that it began with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from ledger.envelope import Event, StoredEvent, decode
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.store import arrays
from ledger.store.reading import read_after, read_at
from projections import schema
from projections.base import LIVE, Change, Projection

CAUSES_CACHED_MAX = 20_000

_log = logging.getLogger(__name__)

_TAKE = """
UPDATE projections.tracking SET epoch = epoch + 1 WHERE name = ANY(%b)
RETURNING name, epoch, position
"""
_LOCK = """
SELECT name, epoch, position FROM projections.tracking WHERE name = ANY(%b)
ORDER BY name FOR UPDATE
"""
_MOVE = "UPDATE projections.tracking SET position = %s WHERE name = ANY(%b)"
_PARKED = "SELECT projection, stream FROM projections.parked WHERE projection = ANY(%b)"
_PARK = """
INSERT INTO projections.parked (projection, stream, position, code, words)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
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


class Causes:
    """Finds the requests that decisions were made for: in the batch, lately seen, or stored."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._seen: OrderedDict[int, Event] = OrderedDict()

    def changes(
        self, connection: Connection[Any], events: Sequence[Event], names: frozenset[str]
    ) -> list[Change]:
        """Return the events, each with its cause where its name is among ``names``."""
        for event in events:
            if event.name in self._catalogue.request_names:
                self._seen[event.position] = event
        wanted = [event.causation for event in events if event.name in names]
        missing = [each for each in wanted if each is not None and each not in self._seen]
        for stored in read_at(connection, missing) if missing else ():
            self._seen[stored.position] = decode(self._catalogue, stored)
        changes = [
            Change(
                event,
                self._seen[event.causation]
                if event.name in names and event.causation is not None
                else None,
            )
            for event in events
        ]
        while len(self._seen) > CAUSES_CACHED_MAX:
            self._seen.popitem(last=False)
        return changes


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
        self._projections = {each.name: each for each in projections}
        self._catalogue = catalogue
        self._limits = limits or RunnerLimits()
        self._causes = Causes(catalogue)
        self._epochs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        arrays.register(connection)

    def start(self) -> list[Projection]:
        """Make missing tables and take over; return projections of another version.

        Those are left alone until a rebuild brings them to this version.
        """
        outdated = schema.prepare(self._connection, self._projections.values())
        for projection in outdated:
            del self._projections[projection.name]
        with self._connection.transaction():
            names = arrays.text_array(sorted(self._projections))
            rows = self._connection.execute(_TAKE, (names,), binary=True).fetchall()
        self._epochs = {name: epoch for name, epoch, _ in rows}
        self._positions = {name: position for name, _, position in rows}
        return outdated

    @property
    def position(self) -> int:
        """The position that every projection has reached."""
        return min(self._positions.values(), default=0)

    def run_once(self) -> int:
        """Apply one batch to those that are furthest behind; return how many events it had.

        Raises ProjectorFencedError, and psycopg's errors when the database fails: then nothing of
        the batch was kept, and ``start`` begins anew from what was.
        """
        if not self._positions:
            return 0
        behind = self.position
        names = sorted(name for name, at in self._positions.items() if at == behind)
        # Whoever lags runs apart, and not past where the others stand: there they meet again.
        others = [at for at in self._positions.values() if at > behind]
        stored = read_after(
            self._connection,
            behind,
            self._limits.batch_events_max,
            *([min(others)] if others else []),
        )
        if not stored:
            return 0
        self._apply(names, behind, stored)
        for name in names:
            self._positions[name] = stored[-1].position
        return len(stored)

    def catch_up(self, progress: Callable[[int], None] = lambda position: None) -> None:
        """Apply until nothing is left; ``progress`` is told each position reached."""
        while self.run_once():
            progress(self.position)

    def run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        """Apply until ``stop`` is set; ``wait(seconds)`` returns early when there may be news."""
        while not stop.is_set():
            if not self.run_once():
                wait(self._limits.poll_seconds)

    def _apply(self, names: Sequence[str], behind: int, stored: Sequence[StoredEvent]) -> None:
        connection = self._connection
        events, unreadable = self._decoded(stored)
        with connection.transaction():
            packed = arrays.text_array(names)
            rows = connection.execute(_LOCK, (packed,), binary=True, prepare=True).fetchall()
            if rows != [(name, self._epochs[name], behind) for name in names]:
                raise ProjectorFencedError
            parked: dict[str, set[str]] = {name: set() for name in names}
            for name, stream in connection.execute(_PARKED, (packed,), binary=True):
                parked[name].add(stream)
            wanted = [self._projections[name] for name in names]
            needed = frozenset().union(*(each.needs_cause for each in wanted))
            changes = self._causes.changes(connection, events, needed)
            schema.use(connection, LIVE)
            for projection in wanted:
                self._apply_one(projection, changes, parked[projection.name], unreadable)
            connection.execute(_MOVE, (stored[-1].position, packed), binary=True)

    def _decoded(
        self, stored: Sequence[StoredEvent]
    ) -> tuple[list[Event], list[tuple[StoredEvent, Exception]]]:
        events: list[Event] = []
        unreadable: list[tuple[StoredEvent, Exception]] = []
        for each in stored:
            try:
                events.append(decode(self._catalogue, each))
            except (LedgerError, ValueError, KeyError) as error:
                unreadable.append((each, error))
        return events, unreadable

    def _apply_one(
        self,
        projection: Projection,
        changes: Sequence[Change],
        parked: set[str],
        unreadable: Sequence[tuple[StoredEvent, Exception]],
    ) -> None:
        """Apply a batch to one projection; where it fails, event by event, parking what fails."""
        for stored, error in unreadable:
            if stored.name in projection.handles or stored.name not in self._known_names:
                self._park(projection, stored.stream, stored.position, error)
                parked.add(stored.stream)
        first_parked = {stored.stream: stored.position for stored, _ in reversed(unreadable)}
        mine = [
            change
            for change in changes
            if change.event.name in projection.handles
            and (
                change.event.stream not in parked
                or change.event.position < first_parked.get(change.event.stream, 0)
            )
        ]
        if not mine:
            return
        try:
            with self._connection.transaction():
                projection.apply(self._connection, mine)
            return
        except (psycopg.OperationalError, ProjectorFencedError):
            raise
        except Exception:  # found again, and named, event by event
            _log.warning("%s could not apply a batch; one by one", projection.name)
        for change in mine:
            self._apply_alone(projection, change, parked)

    def _apply_alone(self, projection: Projection, change: Change, parked: set[str]) -> None:
        event = change.event
        if event.stream in parked:
            return
        try:
            with self._connection.transaction():
                projection.apply(self._connection, [change])
        except psycopg.OperationalError:
            raise
        except Exception as error:
            _log.exception("%s cannot apply position %d", projection.name, event.position)
            self._park(projection, event.stream, event.position, error)
            parked.add(event.stream)

    @property
    def _known_names(self) -> frozenset[str]:
        events = self._catalogue
        return events.request_names | events.decision_names | events.fact_names

    def _park(self, projection: Projection, stream: str, position: int, error: Exception) -> None:
        code = error.code if isinstance(error, LedgerError) else type(error).__name__
        # The words may quote a row; they stay in the database, and out of the log files.
        words = str(error).splitlines()[0][:500] if str(error) else code
        self._connection.execute(_PARK, (projection.name, stream, position, code, words))


def positions(connection: Connection[Any]) -> dict[str, int]:
    """Return the position that each projection reflects; empty before the first start."""
    if connection.execute("SELECT to_regclass('projections.tracking')").fetchone() == (None,):
        return {}
    return dict(connection.execute(_POSITIONS).fetchall())


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
