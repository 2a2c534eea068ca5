"""Puts events back into the log, byte for byte: whole appends only, under the append lock.

An append is what held or failed as one: the events of a request, or the decisions on one. Half of
one would contradict the rest for ever, for what stands in the log stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import Connection, errors

from consumers.kafka.records import Asked, Linked
from ledger.envelope import decode
from ledger.events.catalogue import Catalogue
from ledger.folding import Folding, fold_log
from ledger.store import arrays
from ledger.store.appending import EVENTS_PER_TRANSACTION_MAX
from ledger.store.reading import read_at, read_requests
from ledger.verification import DiffersError, decisions_lacking

PAGE_EVENTS = 2_000
PAGE_BYTES = 16 * 1024 * 1024
# Parts of one hand-over cannot be told apart, and may stand next to each other: so many events are
# held back, until it shows that the last of them is whole.
UNIT_EVENTS_MAX = 200_000

# Of a request whose digest the record does not tell: no digest is the same, so that the id is
# refused as used before, and nothing is recorded twice.
UNKNOWN_DIGEST = b""

_PUT_BACK = """
SELECT ledger.put_back_events(%s, %s, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
"""
_REFUSED = ("GS006",)


class ContradictionError(Exception):
    """What is to be put back contradicts the log, or itself, from a position on."""

    def __init__(self, position: int) -> None:
        super().__init__(f"position {position}")
        self.position = position


@dataclass(slots=True)
class _Unit:
    """Events that were appended together; of a request its caller and id."""

    causation: int | None = None
    request: tuple[str, str] | None = None
    asked: Asked | None = None
    events: list[Linked] = field(default_factory=list)
    size: int = 0

    @property
    def first(self) -> int:
        return self.events[0].event.position

    @property
    def lacking(self) -> int:
        """How many events of the request are not there."""
        return self.asked.events - len(self.events) if self.asked is not None else 0


class Writer:
    """Takes events in the order of the log, and writes them into the caller's transaction.

    ``position`` is the last that was written. ``folding``, where it is there, has folded the log up
    to there.
    """

    def __init__(self, connection: Connection[Any], catalogue: Catalogue, head: int) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._unit: _Unit | None = None
        self._page: list[_Unit] = []
        self._page_events = self._page_bytes = 0
        self.position = head
        self.folding: Folding | None = None

    def add(self, linked: Linked) -> None:
        """Take the next event; raises ContradictionError."""
        event = linked.event
        asked = None if event.causation is not None else _request_of(event.body)
        unit = self._unit
        if unit is None or not _continues(unit, linked, asked):
            self._close()
            if asked is not None and asked[1] != 0:
                raise ContradictionError(event.position)
            request = asked[0] if asked is not None else None
            self._unit = unit = _Unit(event.causation, request, linked.asked)
        unit.events.append(linked)
        unit.size += len(event.body)

    def end(self) -> int:
        """Write all that is whole; return how many events are missing of the last append.

        Then none of it is written. Raises ContradictionError, and as ``fold_log``.
        """
        last, self._unit = self._unit, None
        self._flush()
        if last is None:
            return 0
        lacking = last.lacking if last.causation is None else self._decisions_lacking(last)
        if lacking == 0:
            self._page.append(last)
            self._flush()
        else:
            self.folding = None
        return max(lacking, 0)

    def _close(self) -> None:
        """What follows on the last unit shows that it is whole."""
        unit, self._unit = self._unit, None
        if unit is None:
            return
        if unit.lacking != 0:
            raise ContradictionError(unit.first)
        count = self._page_events + len(unit.events)
        if count > EVENTS_PER_TRANSACTION_MAX or self._page_bytes + unit.size > PAGE_BYTES:
            self._flush()
        self._page.append(unit)
        self._page_events += len(unit.events)
        self._page_bytes += unit.size
        if self._page_events >= PAGE_EVENTS:
            self._flush()

    def _decisions_lacking(self, unit: _Unit) -> int:
        """Decide again what the last unit decides; return how many decisions are not there."""
        folding = Folding(self._catalogue)
        fold_log(self._connection, folding, self.position)
        stored = [each.event for each in unit.events]
        events = [decode(self._catalogue, each) for each in stored]
        causes = [unit.causation or 0]
        requests = read_requests(self._connection, self._catalogue, causes, events)
        try:
            lacking = decisions_lacking(folding, list(zip(stored, events, strict=True)), requests)
        except DiffersError as error:
            raise ContradictionError(unit.first) from error
        self.folding = folding
        return lacking

    def _flush(self) -> None:
        page, self._page = self._page, []
        self._page_events = self._page_bytes = 0
        if not page:
            return
        try:
            with self._connection.transaction():
                self._connection.execute(_PUT_BACK, _parameters(page), prepare=True)
        except (errors.UniqueViolation, errors.CheckViolation) as error:
            raise ContradictionError(page[0].first) from error
        except errors.Error as error:
            if error.sqlstate not in _REFUSED:
                raise
            raise ContradictionError(page[0].first) from error
        self.position = page[-1].events[-1].event.position


def check_again(connection: Connection[Any], again: Sequence[Linked], upto: int) -> None:
    """Compare what the topic holds with what the log has up to ``upto``, byte for byte.

    Raises ContradictionError for the first position that differs.
    """
    told = {each.event.position: each.event for each in again if each.event.position <= upto}
    stored = {each.position: each for each in read_at(connection, sorted(told))}
    differing = [position for position, event in told.items() if stored.get(position) != event]
    differing += [
        each.event.position
        for each in again
        if each.event.position <= upto and told[each.event.position] != each.event
    ]
    if differing:
        raise ContradictionError(min(differing))


def _continues(unit: _Unit, linked: Linked, asked: tuple[tuple[str, str], int] | None) -> bool:
    if linked.event.causation is not None:
        same = linked.event.causation == unit.causation
        return same and len(unit.events) < UNIT_EVENTS_MAX
    return asked is not None and asked == (unit.request, len(unit.events))


def _request_of(body: bytes) -> tuple[tuple[str, str], int] | None:
    """Return caller and id of a request, and the number of the event in it; None for a parking."""
    try:
        envelope = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(envelope, dict) or "request_id" not in envelope:
        return None
    return (str(envelope.get("caller")), str(envelope["request_id"])), int(envelope["index"])


def _parameters(page: Sequence[_Unit]) -> list[Any]:
    """Return the arguments of put_back_events."""
    events = [each.event for unit in page for each in unit.events]
    places, place = [], 1
    for unit in page:
        places.append(place)
        place += len(unit.events)
    asking = [
        (unit.request, unit.asked, place, len(unit.events))
        for unit, place in zip(page, places, strict=True)
        if unit.request is not None
    ]
    return [
        events[0].position,
        [each.recorded for each in events],
        arrays.text_array([each.stream for each in events]),
        arrays.int4_array([each.version for each in events]),
        arrays.text_array([each.name for each in events]),
        arrays.bytea_array([each.body for each in events]),
        arrays.int8_array([each.causation for each in events]),
        arrays.int4_array([each.ordinal for each in events]),
        arrays.text_array([request[0] for request, _, _, _ in asking]),
        arrays.text_array([request[1] for request, _, _, _ in asking]),
        arrays.bytea_array([a.digest if a else UNKNOWN_DIGEST for _, a, _, _ in asking]),
        arrays.int4_array([place for _, _, place, _ in asking]),
        arrays.int4_array([count for _, _, _, count in asking]),
    ]
