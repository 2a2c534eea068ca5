"""Reading the log: by position, by stream, by cause. Nothing here keeps a snapshot open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.envelope import Event, StoredEvent, StoredRow, decode
from ledger.events.catalogue import Catalogue
from ledger.store.arrays import int8_array

_AFTER = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position > %s AND position <= %s
ORDER BY position LIMIT %s
"""
_STREAM = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE stream = %s AND version > %s AND position <= %s
ORDER BY version LIMIT %s
"""
_AT = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position = ANY(%b) ORDER BY position
"""
_RECORDED_AT = "SELECT position, recorded FROM ledger.events WHERE position = ANY(%b)"
_DECISIONS = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE causation = ANY(%b) ORDER BY causation, ordinal
"""
POSITION_MAX = 2**63 - 1


def head(connection: Connection[Any]) -> int:
    """Return the highest position, 0 for an empty log."""
    row = connection.execute("SELECT coalesce(max(position), 0) FROM ledger.events").fetchone()
    return int(row[0]) if row else 0


def read_after(
    connection: Connection[Any], after: int, limit: int, upto: int = POSITION_MAX
) -> list[StoredEvent]:
    """Return up to ``limit`` events behind position ``after`` and not behind ``upto``."""
    rows = connection.execute(_AFTER, (after, upto, limit), prepare=True, binary=True)
    return [StoredEvent._make(row) for row in rows]


def read_stream(
    connection: Connection[Any],
    stream: str,
    after_version: int = -1,
    upto: int = POSITION_MAX,
    limit: int = 1_000_000,
) -> list[StoredEvent]:
    """Return events of one stream behind a version, up to a position of the log."""
    rows = connection.execute(
        _STREAM, (stream, after_version, upto, limit), prepare=True, binary=True
    )
    return [StoredEvent._make(row) for row in rows]


def read_at(connection: Connection[Any], positions: Sequence[int]) -> list[StoredEvent]:
    """Return the events at these positions, in their order; the connection knows BinaryArray."""
    rows = connection.execute(_AT, (int8_array(positions),), prepare=True, binary=True)
    return [StoredEvent._make(row) for row in rows]


def recorded_at(connection: Connection[Any], positions: Sequence[int]) -> dict[int, datetime]:
    """Return when the events at these positions were recorded (UTC), by position."""
    rows = connection.execute(_RECORDED_AT, (int8_array(positions),), prepare=True, binary=True)
    return dict(rows.fetchall())


def read_decisions(connection: Connection[Any], causes: Sequence[int]) -> list[StoredEvent]:
    """Return the decisions of the requests at these positions, by cause and ordinal."""
    rows = connection.execute(_DECISIONS, (int8_array(causes),), prepare=True, binary=True)
    return [StoredEvent._make(row) for row in rows]


def read_requests(
    connection: Connection[Any],
    catalogue: Catalogue,
    positions: Iterable[int],
    at_hand: Iterable[Event] = (),
) -> dict[int, Event]:
    """Return the events at these positions, by position; what does not exist is missing.

    Those that stand ``at_hand`` are not read again. Raises as ``decode``.
    """
    wanted = set(positions)
    found = {event.position: event for event in at_hand if event.position in wanted}
    absent = sorted(wanted - found.keys())
    found.update((each.position, decode(catalogue, each)) for each in read_at(connection, absent))
    return found


def replay(
    connection: Connection[Any],
    catalogue: Catalogue,
    after: int = 0,
    upto: int = POSITION_MAX,
    page: int = 5_000,
) -> Iterator[Event]:
    """Yield decoded events in order, a page at a time, each page a statement of its own."""
    while True:
        rows: list[StoredRow] = connection.execute(
            _AFTER, (after, upto, page), prepare=True, binary=True
        ).fetchall()
        for row in rows:
            yield decode(catalogue, row)
        if len(rows) < page:
            return
        after = rows[-1][0]
