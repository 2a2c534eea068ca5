"""Records of the log's topic: an event as it stands in the log, or a mark. Pure.

The value is a line of text, the head, and behind it the event's body, byte for byte. The parts of
the head stand between spaces, with ``-`` for what there is not:

    ``guishu/1``, so that readers know the format
    the generation, and the position of the event before this one in this partition
    position, recorded time, stream, version and name: the head of the event's entry
    of a decision the position of its request, and its ordinal
    of the first event of a request how many events it has, and the digest of what was asked in
    base64; none where the store keeps none

So an event can be put back into the log from its record. A mark has a line of four parts alone: of
``guishu/1 2 7 12`` the last says that up to position 12 the partition has nothing behind what it
links to.

There are no headers, for each costs a client of Kafka in Python a fifth of what the record does.
At first all this stood in headers, and topics may hold records of then: they are read as well.
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
# As a client delivers them: others may send one without a value.
Delivered = Sequence[tuple[str, bytes | None]]

_OURS = b"guishu/"
_FORMAT = _OURS + b"1 "
_MARK_PARTS = 3


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
    digest = "-" if asked is None else b2a_base64(asked.digest, newline=False).decode("ascii")
    head = (
        f"{generation} {placed.previous}"
        f" {event.position} {instant(event.recorded)} {event.stream} {event.version} {event.name}"
        f" {_or_dash(event.causation)} {_or_dash(event.ordinal)}"
        f" {'-' if asked is None else asked.events} {digest}\n"
    )
    return Encoded(key_of(event.stream).encode(), _FORMAT + head.encode() + event.body, [])


def encode_mark(mark: Mark) -> Encoded:
    """Return a mark as it is sent."""
    head = f"{mark.generation} {mark.previous} {mark.upto}"
    return Encoded(b"", _FORMAT + head.encode(), [])


def decode(value: bytes | None, headers: Delivered) -> Linked | Mark:
    """Return what a record says; raises UnreadableRecordError, or ForeignRecordError."""
    given = value or b""
    try:
        if not given.startswith(_FORMAT):
            return _decode_headed(given, headers)
        head, _, body = given.partition(b"\n")
        _, *parts = head.decode().split(" ")
        if len(parts) == _MARK_PARTS:
            generation, previous, upto = map(int, parts)
            return Mark(upto, generation, previous)
        return _linked(parts, body)
    except (KeyError, ValueError) as error:
        is_ours = given.startswith(_OURS) or any(name == "link" for name, _ in headers)
        raise (UnreadableRecordError if is_ours else ForeignRecordError)(
            f"A record of the log's topic cannot be read: {type(error).__name__}: {error}.",
            way_out="Find out who writes into the topic besides the relay. Nothing is lost: the"
            " log is in the database.",
        ) from error


def _linked(parts: Sequence[str], body: bytes) -> Linked:
    generation, previous, position, recorded, stream, version, name, *caused_asked = parts
    causation, ordinal, events, digest = caused_asked
    event = StoredEvent(
        int(position),
        datetime.fromisoformat(recorded),
        stream,
        int(version),
        name,
        body,
        _number(causation),
        _number(ordinal),
    )
    return Linked(event, int(generation), int(previous), _asked(events, digest))


def _decode_headed(body: bytes, headers: Delivered) -> Linked | Mark:
    """Read a record of the first format; raises KeyError, ValueError.

    Its headers: ``link`` (generation, previous position), ``entry`` (position to name) or the
    ``upto`` of a mark, and where there are such ``cause`` and ``asked``.
    """
    # Others may send a header twice, or without a value, and more than we look at.
    named = {name: text or b"" for name, text in headers}
    generation, previous = named["link"].decode().split(" ")
    if "upto" in named:
        return Mark(int(named["upto"]), int(generation), int(previous))
    entry = named["entry"].decode().split(" ")
    causation, ordinal = named.get("cause", b"- -").decode().split(" ")
    events, digest = named.get("asked", b"- -").decode().split(" ")
    return _linked([generation, previous, *entry, causation, ordinal, events, digest], body)


def _asked(events: str, digest: str) -> Asked | None:
    if events == digest == "-":
        return None
    return Asked(int(events), a2b_base64(digest, strict_mode=True))


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _number(text: str) -> int | None:
    return None if text == "-" else int(text)
