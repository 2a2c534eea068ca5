"""Records of the log's topic: an event as it stands in the log, or a mark. Pure.

The value is the event's body, byte for byte; the rest of its entry stands in headers, as text. So
an event can be put back into the log from its record. A mark has no value: it says that up to a
position a partition has nothing more than what was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from consumers.kafka.chain import Placed, key_of
from ledger.canonical import instant
from ledger.envelope import StoredEvent
from ledger.errors import LedgerError

Headers = list[tuple[str, bytes]]


class UnreadableRecordError(LedgerError):
    """A record of the log's topic is not of our making."""

    code = "record_unreadable"


class Encoded(NamedTuple):
    """What a client of Kafka sends."""

    key: bytes
    value: bytes
    headers: Headers


class Linked(NamedTuple):
    """An event as it was sent: of which generation, and behind which one of its partition."""

    event: StoredEvent
    generation: int
    previous: int


class Mark(NamedTuple):
    """Up to ``upto`` the partition has nothing behind ``previous``, which was sent before.

    Whoever has not come to ``previous`` has missed something, and must not go on to ``upto``.
    """

    upto: int
    generation: int
    previous: int


def encode(placed: Placed, generation: int) -> Encoded:
    """Return an event as it is sent; the same each time."""
    event = placed.event
    named: dict[str, object] = {
        "position": event.position,
        "generation": generation,
        "previous": placed.previous,
        "recorded": instant(event.recorded),
        "stream": event.stream,
        "version": event.version,
        "name": event.name,
    }
    if event.causation is not None:
        named["causation"] = event.causation
    if event.ordinal is not None:
        named["ordinal"] = event.ordinal
    return Encoded(key_of(event.stream).encode(), event.body, _headers(named))


def encode_mark(mark: Mark) -> Encoded:
    """Return a mark as it is sent."""
    return Encoded(b"", b"", _headers(mark._asdict()))


def decode(value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Linked | Mark:
    """Return what a record says; raises UnreadableRecordError."""
    try:
        named = {name: text.decode() for name, text in headers}
        generation, previous = int(named["generation"]), int(named["previous"])
        if "upto" in named:
            return Mark(int(named["upto"]), generation, previous)
        event = StoredEvent(
            int(named["position"]),
            datetime.fromisoformat(named["recorded"]),
            named["stream"],
            int(named["version"]),
            named["name"],
            value if value is not None else b"",
            int(named["causation"]) if "causation" in named else None,
            int(named["ordinal"]) if "ordinal" in named else None,
        )
        return Linked(event, generation, previous)
    except (KeyError, ValueError) as error:
        raise UnreadableRecordError(
            f"A record of the log's topic cannot be read: {type(error).__name__}: {error}.",
            way_out="Find out who writes into the topic besides the relay. Nothing is lost: the"
            " log is in the database.",
        ) from error


def _headers(named: dict[str, object]) -> Headers:
    return [(name, str(value).encode()) for name, value in named.items()]
