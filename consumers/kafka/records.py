"""Records of the log's topic: an event as it stands in the log, or a mark. Pure.

The value is the event's body, byte for byte. The headers are text, their parts between spaces:

    entry   position, recorded time, stream, version and name: the head of the event's entry
    link    the generation, and the position of the one before it in this partition
    cause   of a decision the position of its request, and its ordinal; ``-`` for none
    asked   of the first event of a request how many events it has, and the digest of what was
            asked in base64; missing where the store keeps none, and in records of before

So an event can be put back into the log from its record. A mark has no value, and ``upto`` for
``entry``: it says that up to that position the partition has nothing behind what it links to. There
are few headers because each of them costs a client more than the bytes in it.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from consumers.kafka.chain import Placed, key_of
from ledger.canonical import instant
from ledger.envelope import StoredEvent
from ledger.errors import LedgerError

Headers = list[tuple[str, bytes]]


class UnreadableRecordError(LedgerError):
    """A record of the log's topic cannot be read."""

    code = "record_unreadable"


class ForeignRecordError(UnreadableRecordError):
    """It is not of our making: it does not even say what it links to. It tells of no position."""

    code = "record_foreign"


class Encoded(NamedTuple):
    """What a client of Kafka sends."""

    key: bytes
    value: bytes
    headers: Headers


class Asked(NamedTuple):
    """How many events a request has, and the keyed digest of what was asked."""

    events: int
    digest: bytes


class Linked(NamedTuple):
    """An event as it was sent: of which generation, and behind which one of its partition."""

    event: StoredEvent
    generation: int
    previous: int
    asked: Asked | None = None


class Mark(NamedTuple):
    """Up to ``upto`` the partition has nothing behind ``previous``, which was sent before.

    Whoever has not come to ``previous`` has missed something, and must not go on to ``upto``.
    """

    upto: int
    generation: int
    previous: int


def encode(placed: Placed, generation: int, asked: Asked | None = None) -> Encoded:
    """Return an event as it is sent; the same each time."""
    event = placed.event
    recorded = instant(event.recorded)
    entry = f"{event.position} {recorded} {event.stream} {event.version} {event.name}"
    headers = [("entry", entry.encode()), _link(generation, placed.previous)]
    if event.causation is not None or event.ordinal is not None:
        headers.append(("cause", f"{_or_dash(event.causation)} {_or_dash(event.ordinal)}".encode()))
    if asked is not None:
        digest = b2a_base64(asked.digest, newline=False)
        headers.append(("asked", b"%d %b" % (asked.events, digest)))
    return Encoded(key_of(event.stream).encode(), event.body, headers)


def encode_mark(mark: Mark) -> Encoded:
    """Return a mark as it is sent."""
    headers = [("upto", str(mark.upto).encode()), _link(mark.generation, mark.previous)]
    return Encoded(b"", b"", headers)


def decode(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> Linked | Mark:
    """Return what a record says; raises UnreadableRecordError, or ForeignRecordError."""
    try:
        # Others may send a header twice, or without a value.
        named = {name: text or b"" for name, text in headers}
        generation, previous = map(int, named["link"].split(b" "))
        if "upto" in named:
            return Mark(int(named["upto"]), generation, previous)
        position, recorded, stream, version, name = named["entry"].decode().split(" ")
        causation, ordinal = named.get("cause", b"- -").split(b" ")
        event = StoredEvent(
            int(position),
            datetime.fromisoformat(recorded),
            stream,
            int(version),
            name,
            value if value is not None else b"",
            _number(causation),
            _number(ordinal),
        )
        return Linked(event, generation, previous, _asked(named.get("asked")))
    except (KeyError, ValueError) as error:
        is_ours = any(name == "link" for name, _ in headers)
        raise (UnreadableRecordError if is_ours else ForeignRecordError)(
            f"A record of the log's topic cannot be read: {type(error).__name__}: {error}.",
            way_out="Find out who writes into the topic besides the relay. Nothing is lost: the"
            " log is in the database.",
        ) from error


def _asked(text: bytes | None) -> Asked | None:
    if text is None:
        return None
    events, digest = text.split(b" ")
    return Asked(int(events), a2b_base64(digest, strict_mode=True))


def _link(generation: int, previous: int) -> tuple[str, bytes]:
    return "link", f"{generation} {previous}".encode()


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _number(text: bytes) -> int | None:
    return None if text == b"-" else int(text)
