"""Applying a batch of events to projections: decoded once, with its causes, bad streams parked.

The runner does this to the live tables, a rebuild to fresh ones; what one parks, the other does.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from ledger.envelope import Event, StoredRow, decode
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.store.reading import read_at
from projections.base import Change, Projection
from projections.schema import ROWS_DO_NOT_FIT

CAUSES_CACHED_MAX = 20_000
WORDS_MAX = 500

_LIMIT_EXCEEDED = "54"

_log = logging.getLogger(__name__)


class CauseMissingError(LedgerError):
    """The request of a decision cannot be read, and a projection needs it."""

    code = "cause_missing"

    def __init__(self, event: Event) -> None:
        super().__init__(
            f"The request at {event.causation} of the decision at {event.position} cannot be read.",
            way_out="Upgrade guishu to the version that recorded it, and run guishu rebuild.",
        )


class Parking(NamedTuple):
    """From ``position`` on a projection leaves a stream alone: why, as a code and in words."""

    projection: str
    stream: str
    position: int
    code: str
    words: str


Parked = dict[str, dict[str, int]]
"""By projection: the streams that it leaves alone, each with the position from which on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of the log in order, decoded; and those that this version of guishu cannot read."""

    reached: int
    count: int
    events: Sequence[Event]
    unreadable: Sequence[tuple[StoredRow, Exception]]


def decoded(catalogue: Catalogue, stored: Sequence[StoredRow]) -> Batch:
    """Decode what was read; at least one event."""
    events: list[Event] = []
    unreadable: list[tuple[StoredRow, Exception]] = []
    for each in stored:
        try:
            events.append(decode(catalogue, each))
        except (LedgerError, ValueError, KeyError, TypeError) as error:
            unreadable.append((each, error))
    return Batch(stored[-1][0], len(stored), events, unreadable)


class Causes:
    """Finds the requests that decisions were made for: in the batch, lately seen, or stored."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._seen: OrderedDict[int, Event] = OrderedDict()

    def changes(
        self, connection: Connection[Any], events: Sequence[Event], names: frozenset[str]
    ) -> list[Change]:
        """Return the events, each with its cause where its name is among ``names``.

        The cause is None where it cannot be read.
        """
        requests, seen = self._catalogue.request_names, self._seen
        wanted: list[int] = []
        for event in events:
            name = event.name
            if name in requests:
                seen[event.position] = event
            elif name in names and (cause := event.envelope["causation"]) not in seen:
                wanted.append(cause)
        self._load(connection, wanted)
        # As Change(...) does, without a call of its generated constructor around it.
        new, find = tuple.__new__, seen.get
        changes = [
            new(Change, (event, find(event.envelope["causation"]) if event.name in names else None))
            for event in events
        ]
        while len(seen) > CAUSES_CACHED_MAX:
            seen.popitem(last=False)
        return changes

    def _load(self, connection: Connection[Any], positions: Sequence[int]) -> None:
        for stored in read_at(connection, positions) if positions else ():
            try:
                self._seen[stored.position] = decode(self._catalogue, stored)
            except (LedgerError, ValueError, KeyError):
                # The event itself parks its stream; here its decision will miss it.
                _log.warning("the request at %d cannot be read", stored.position)


class Share(NamedTuple):
    """What a projection handles of a batch; and what it would, could it be read."""

    projection: Projection
    changes: list[Change]
    unreadable: Sequence[tuple[StoredRow, Exception]]


class Applier:
    """Deals batches out to projections."""

    def __init__(self, projections: Sequence[Projection], catalogue: Catalogue) -> None:
        self.projections = tuple(projections)
        self._causes = Causes(catalogue)
        self._known = catalogue.request_names | catalogue.decision_names | catalogue.fact_names

    def shares(
        self, connection: Connection[Any], batch: Batch, names: frozenset[str] | None = None
    ) -> list[Share]:
        """Deal the events out to the projections ``names`` (None: to all), in one pass, in order.

        Nobody knows who would handle an event of an unknown name: it counts for everybody.
        """
        wanted = [each for each in self.projections if names is None or each.name in names]
        needed = frozenset[str]().union(*(each.needs_cause for each in wanted))
        shares = [Share(each, [], self._unreadable(each, batch)) for each in wanted]
        takers: dict[str, list[list[Change]]] = {}
        for share in shares:
            for name in share.projection.handles:
                takers.setdefault(name, []).append(share.changes)
        nobody: list[list[Change]] = []
        for change in self._causes.changes(connection, batch.events, needed):
            for changes in takers.get(change[0].name, nobody):
                changes.append(change)
        return [each for each in shares if each.changes or each.unreadable]

    def _unreadable(
        self, projection: Projection, batch: Batch
    ) -> Sequence[tuple[StoredRow, Exception]]:
        return [
            each
            for each in batch.unreadable
            if each[0][4] in projection.handles or each[0][4] not in self._known
        ]


def park_unreadable(share: Share, parked: Parked) -> list[Parking]:
    """Park the streams of the events that cannot be read; ``parked`` has them, too."""
    parkings: list[Parking] = []
    for stored, error in share.unreadable:
        _park(share.projection, stored[2], stored[0], error, parked, parkings)
    return parkings


def is_of_an_event(error: Exception) -> bool:
    """Say whether an event is to blame for an error, and not the database's state.

    psycopg counts among the OperationalErrors what exceeds a limit of PostgreSQL (class 54): a
    value too long for an index is as long at the next try.
    """
    if not isinstance(error, psycopg.OperationalError):
        return True
    return (error.sqlstate or "").startswith(_LIMIT_EXCEEDED)


def apply_at_once(connection: Connection[Any], share: Share, parked: Parked) -> None:
    """Apply what a projection handles of a batch in one go, in the caller's transaction.

    Raises whatever the projection raises; then the caller rolls back, and ``apply_carefully``
    finds out which event is to blame.
    """
    projection = share.projection
    mine = _without(share.changes, parked.get(projection.name))
    if mine:
        _require_causes(projection, mine)
        projection.apply(connection, mine)


def apply_carefully(connection: Connection[Any], share: Share, parked: Parked) -> list[Parking]:
    """Apply what a projection handles of a batch, and park the stream of every event that fails.

    In the caller's transaction, not in pipeline mode. Returns what was parked; ``parked`` has it,
    too.
    """
    parkings: list[Parking] = []
    _halve(connection, share.projection, share.changes, parked, parkings)
    return parkings


def _halve(
    connection: Connection[Any],
    projection: Projection,
    changes: Sequence[Change],
    parked: Parked,
    parkings: list[Parking],
) -> None:
    """Apply changes; where that fails, in halves, down to the event that is to blame."""
    mine = _without(changes, parked.get(projection.name))
    if not mine:
        return
    try:
        with connection.transaction():
            _require_causes(projection, mine)
            projection.apply(connection, mine)
        return
    except Exception as error:  # a bad stream must not stop the others
        if not is_of_an_event(error):
            raise
        if len(mine) == 1:
            event = mine[0].event
            _park(projection, event.stream, event.position, error, parked, parkings)
            return
    middle = len(mine) // 2
    _halve(connection, projection, mine[:middle], parked, parkings)
    _halve(connection, projection, mine[middle:], parked, parkings)


def _without(changes: Sequence[Change], streams: Mapping[str, int] | None) -> Sequence[Change]:
    """Return the changes that are not of a parked stream, behind where it was parked."""
    if not streams:
        return changes
    return [
        change
        for change in changes
        if change[0].stream not in streams or change[0].position < streams[change[0].stream]
    ]


def _require_causes(projection: Projection, changes: Sequence[Change]) -> None:
    if projection.needs_cause:
        for event, cause in changes:
            if cause is None and event.name in projection.needs_cause:
                raise CauseMissingError(event)


def _park(
    projection: Projection,
    stream: str,
    position: int,
    error: Exception,
    parked: Parked,
    parkings: list[Parking],
) -> None:
    streams = parked.setdefault(projection.name, {})
    if stream in streams:
        return
    streams[stream] = position
    code = _code(error)
    # The words may quote a row; they stay in the database, and out of the log files.
    words = str(error).splitlines()[0][:WORDS_MAX] if str(error) else code
    _log.error("%s cannot apply position %d: %s", projection.name, position, code)
    parkings.append(Parking(projection.name, stream, position, code, words))


def _code(error: Exception) -> str:
    if isinstance(error, LedgerError):
        return error.code
    if isinstance(error, psycopg.Error) and error.sqlstate == ROWS_DO_NOT_FIT:
        return "rows_do_not_fit"
    return type(error).__name__
