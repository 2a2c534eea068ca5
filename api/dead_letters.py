"""What a consumer could not handle and has left aside: requests, streams, records. Told alike.

A request that could not be decided is parked by the enforcer, and its customer waits. A stream that
a read model could not apply is left alone by it. A record of the log's topic that cannot be read is
put aside by whoever follows it. Each has an id; what an id is made of is nobody else's business.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson
from psycopg import Connection

from api import parked
from consumers.enforcer import CONSUMER
from ledger.store.reading import read_at, recorded_at
from projections.runner import parked_streams

Kind = Literal["request", "stream", "record"]
KINDS: tuple[Kind, ...] = ("request", "stream", "record")
_IDS: Mapping[Kind, str] = {
    "request": r"request:([0-9]{1,18})",
    "stream": r"stream:([^:]+):([!-~]+)",
    "record": r"record:([A-Za-z0-9._-]+):([0-9]{1,9}):([0-9]{1,18})",
}
# So many of a kind are counted, and so many that wait behind one are named.
COUNTED_MAX = 10_000
BEHIND_MAX = 100

_COUNT_REQUESTS = """
SELECT count(*) FROM (SELECT FROM ledger.parked_requests WHERE error IS NOT NULL LIMIT %s) AS found
"""
_COUNT_STREAMS = "SELECT count(*) FROM (SELECT FROM projections.parked LIMIT %s) AS found"
_COUNT_RECORDS = """
SELECT count(*) FROM (SELECT FROM ledger.dead_letters WHERE dropped IS NULL LIMIT %s) AS found
"""
_REQUEST = """
SELECT customer, error FROM ledger.parked_requests WHERE position = %s AND error IS NOT NULL
"""
_BEHIND = """
SELECT position FROM ledger.parked_requests
WHERE customer = %s AND position > %s AND error IS NULL ORDER BY position LIMIT %s
"""
_STREAM = """
SELECT position, code, words, parked_at FROM projections.parked
WHERE projection = %s AND stream = %s
"""
_RECORDS = """
SELECT topic, partition, record_offset, code, attempts, first_seen FROM ledger.dead_letters
WHERE dropped IS NULL ORDER BY first_seen, topic, partition, record_offset LIMIT %s
"""
_RECORD = """
SELECT code, attempts, first_seen, last_seen, words, key, value, headers, is_whole, bytes
FROM ledger.dead_letters
WHERE topic = %s AND partition = %s AND record_offset = %s AND dropped IS NULL
"""


class Named(NamedTuple):
    """What an id names: of a request its position, else the parts that stand in the table's key."""

    kind: Kind
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a consumer has left aside; ``code`` says why, and is stable.

    ``about`` is the customer (of a hand-over its giver), the stream, or the place in Kafka;
    ``position`` that of the event. So many requests wait ``behind`` a request; so many ``attempts``
    were made to read a record. ``since`` (UTC) a request was recorded, a stream is left alone, a
    record was first met.
    """

    id: str
    kind: Kind
    consumer: str
    about: str
    position: int | None
    code: str
    behind: int | None
    attempts: int | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Whole:
    """All that is known of one. ``words`` and ``details`` may quote what somebody has entered."""

    letter: DeadLetter
    words: str
    details: Mapping[str, Any]


def counts(connection: Connection[Any]) -> dict[Kind, int]:
    """Return how many there are of each kind, at most COUNTED_MAX."""
    statements: dict[Kind, str] = {"request": _COUNT_REQUESTS, "record": _COUNT_RECORDS}
    if _is_projected(connection):
        statements["stream"] = _COUNT_STREAMS
    found = dict.fromkeys(KINDS, 0)
    for kind, statement in statements.items():
        row = connection.execute(statement.encode(), (COUNTED_MAX,)).fetchone()
        found[kind] = int(row[0]) if row else 0
    return found


def dead_letters(
    connection: Connection[Any], limit: int, kind: Kind | None = None
) -> list[DeadLetter]:
    """Return what was left aside, the oldest first, at most ``limit`` of each kind; or of one."""
    found: list[DeadLetter] = []
    if kind in (None, "request"):
        found += _requests(connection, limit)
    if kind in (None, "stream"):
        found += [
            _stream(each.projection, each.stream, each.position, each.code, each.parked_at)
            for each in parked_streams(connection, limit)
        ]
    if kind in (None, "record"):
        found += [_record(*row) for row in connection.execute(_RECORDS, (limit,)).fetchall()]
    return found


def named(text: str) -> Named | None:
    """Return what an id names, None for what is no id of ours."""
    for kind, pattern in _IDS.items():
        if match := re.fullmatch(pattern, text):
            return Named(kind, match.groups())
    return None


def find(connection: Connection[Any], text: str) -> Whole | None:
    """Return one by its id, None where there is none (any more)."""
    found = named(text)
    if found is None:
        return None
    if found.kind == "request":
        return _whole_request(connection, int(found.parts[0]))
    if found.kind == "stream":
        return _whole_stream(connection, *found.parts)
    topic, partition, offset = found.parts
    return _whole_record(connection, topic, int(partition), int(offset))


# --- requests ----------------------------------------------------------------------------------


def _requests(connection: Connection[Any], limit: int) -> list[DeadLetter]:
    found = parked.parked_requests(connection, limit=limit)
    recorded = recorded_at(connection, [each.request for each in found])
    return [
        _request(each.request, each.customer, each.error, each.behind, recorded.get(each.request))
        for each in found
    ]


def _request(
    position: int, customer: str, code: str, behind: int, recorded: datetime | None
) -> DeadLetter:
    since = _utc(recorded)
    name = f"request:{position}"
    return DeadLetter(name, "request", CONSUMER, customer, position, code, behind, None, since)


def _whole_request(connection: Connection[Any], position: int) -> Whole | None:
    row = connection.execute(_REQUEST, (position,)).fetchone()
    if row is None:
        return None
    customer, error = row
    behind = connection.execute(_BEHIND, (customer, position, BEHIND_MAX)).fetchall()
    recorded = recorded_at(connection, [position]).get(position)
    letter = _request(position, customer, error.partition(":")[0], len(behind), recorded)
    details = {"event": _event(connection, position), "behind": [each for (each,) in behind]}
    return Whole(letter, error, details)


# --- streams -----------------------------------------------------------------------------------


def _stream(projection: str, stream: str, position: int, code: str, at: datetime) -> DeadLetter:
    name, since = f"stream:{projection}:{stream}", _utc(at)
    return DeadLetter(name, "stream", projection, stream, position, code, None, None, since)


def _whole_stream(connection: Connection[Any], projection: str, stream: str) -> Whole | None:
    if not _is_projected(connection):
        return None
    row = connection.execute(_STREAM, (projection, stream)).fetchone()
    if row is None:
        return None
    position, code, words, at = row
    letter = _stream(projection, stream, position, code, at)
    return Whole(letter, words, {"event": _event(connection, position)})


def _is_projected(connection: Connection[Any]) -> bool:
    found = connection.execute("SELECT to_regclass('projections.parked') IS NOT NULL").fetchone()
    return found == (True,)


# --- records -----------------------------------------------------------------------------------


def _record(
    topic: str, partition: int, offset: int, code: str, attempts: int, first_seen: datetime
) -> DeadLetter:
    name, about = f"record:{topic}:{partition}:{offset}", f"{topic} {partition} {offset}"
    since = _utc(first_seen)
    return DeadLetter(name, "record", "feed", about, None, code, None, attempts, since)


def _whole_record(
    connection: Connection[Any], topic: str, partition: int, offset: int
) -> Whole | None:
    row = connection.execute(_RECORD, (topic, partition, offset)).fetchone()
    if row is None:
        return None
    code, attempts, first_seen, last_seen, words, key, value, headers, is_whole, size = row
    pairs = [
        {"name": _told(name.encode()), "value": None if each is None else _told(_from64(each))}
        for name, each in orjson.loads(headers)
    ]
    details = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "last_seen": _utc(last_seen),
        "bytes": size,
        "is_whole": is_whole,
        "key": _told(key),
        "headers": pairs,
        "value": _told(value),
    }
    return Whole(_record(topic, partition, offset, code, attempts, first_seen), words, details)


# --- what stands in them -----------------------------------------------------------------------


def _event(connection: Connection[Any], position: int) -> dict[str, Any] | None:
    """Return an event as it stands in the log, its personal data sealed."""
    for stored in read_at(connection, [position]):
        return {
            "position": stored.position,
            "recorded": stored.recorded,
            "stream": stored.stream,
            "version": stored.version,
            "name": stored.name,
            "body": _told(bytes(stored.body)),
        }
    return None


def _told(content: bytes | None) -> dict[str, str] | None:
    """Return bytes as text, or where a terminal could take them for something else as Base64."""
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if all(each.isprintable() or each in "\n\t" for each in text):
        return {"text": text}
    return {"base64": base64.b64encode(content).decode()}


def _from64(text: str) -> bytes:
    return base64.b64decode(text)


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
