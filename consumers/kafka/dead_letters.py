"""Records of the log's topic that cannot be read: they are put aside, and the reader goes on.

Nothing is lost with one. Records name the position in front of them in their partition: a reader
that lacks one sees that, and reads it from the log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from psycopg import Connection

from consumers.kafka.records import Linked, Mark, UnreadableRecordError, decode

# Nearly any record of ours has room: an event's entry has at most 65,535 bytes, and its head adds
# some dozens to the body.
PART_BYTES_MAX = 65_536
HEADERS_BYTES_MAX = 131_072
WORDS_MAX = 500
# So many are kept at a time. What somebody else fills the topic with must not fill the database.
KEPT_MAX = 1_000

_log = logging.getLogger(__name__)

_KEEP = """
INSERT INTO ledger.dead_letters AS d
    (topic, partition, record_offset, key, value, headers, is_whole, bytes, digest, code, words)
SELECT %(topic)s, %(partition)s, %(offset)s, %(key)s, %(value)s, %(headers)s, %(is_whole)s,
       %(bytes)s, %(digest)s, %(code)s, %(words)s
WHERE EXISTS (SELECT FROM ledger.dead_letters
              WHERE (topic, partition, record_offset) = (%(topic)s, %(partition)s, %(offset)s))
   OR (SELECT count(*) FROM (SELECT FROM ledger.dead_letters WHERE dropped IS NULL
                             LIMIT %(kept_max)s) AS kept) < %(kept_max)s
ON CONFLICT (topic, partition, record_offset) DO UPDATE SET
    key = excluded.key, value = excluded.value, headers = excluded.headers,
    is_whole = excluded.is_whole, bytes = excluded.bytes, digest = excluded.digest,
    code = excluded.code, words = excluded.words, last_seen = excluded.last_seen, dropped = NULL,
    attempts = CASE WHEN d.digest = excluded.digest THEN d.attempts + 1 ELSE 1 END,
    first_seen = CASE WHEN d.digest = excluded.digest THEN d.first_seen
                      ELSE excluded.last_seen END
WHERE d.dropped IS NULL OR d.digest <> excluded.digest
"""
_AT = "topic = %s AND partition = %s AND record_offset = %s AND dropped IS NULL"
_FIND = f"SELECT value, headers, is_whole FROM ledger.dead_letters WHERE {_AT}"  # noqa: S608  # constants, as below
_TRIED = f"""
UPDATE ledger.dead_letters SET attempts = attempts + 1, code = %s, words = %s WHERE {_AT}
"""  # noqa: S608
_TAKE_OFF = f"DELETE FROM ledger.dead_letters WHERE {_AT}"  # noqa: S608
_DROP = f"""
UPDATE ledger.dead_letters SET key = NULL, value = NULL, headers = '[]', is_whole = false,
    dropped = clock_timestamp()
WHERE {_AT}
"""  # noqa: S608


class Record(Protocol):
    """What a client of Kafka delivers."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Place(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


Unreadable = deque[tuple[Record, UnreadableRecordError]]


def readable(records: Iterable[Record], unreadable: Unreadable) -> list[tuple[int, Linked | Mark]]:
    """Return what the records say, with the offset of each.

    Those that say nothing are added to ``unreadable``.
    """
    read: list[tuple[int, Linked | Mark]] = []
    for each in records:
        try:
            read.append((each.offset, decode(each.value, each.headers)))
        except UnreadableRecordError as error:
            unreadable.append((each, error))
    return read


def keep_all(connection: Connection[Any], unreadable: Unreadable) -> None:
    """Put records aside, each by a statement of its own; what could not be kept is left there."""
    while unreadable:
        keep(connection, *unreadable[0])
        unreadable.popleft()


def keep(connection: Connection[Any], record: Record, error: UnreadableRecordError) -> None:
    """Put a record aside; one that is there was tried once more.

    Where KEPT_MAX are there it is not kept, and stays in Kafka for as long as its topic keeps it.
    """
    headers, has_all = _packed(record.headers)
    parts = (record.key or b"", record.value or b"")
    given = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": _cut(record.key),
        "value": _cut(record.value),
        "headers": headers,
        "is_whole": has_all and all(len(each) <= PART_BYTES_MAX for each in parts),
        "bytes": sum(map(len, parts)) + sum(len(each or b"") for _, each in record.headers),
        "digest": _digest(record),
        "code": error.code,
        "words": _storable(str(error)),
        "kept_max": KEPT_MAX,
    }
    kept = connection.execute(_KEEP, given).rowcount
    # Its content is a stranger's, and stays out of the log files.
    where = (record.topic, record.partition, record.offset)
    _log.warning("%s, partition %d: the record at %d cannot be read", *where)
    if not kept:
        _log.warning("it is not kept: it was dropped, or there are %d of them", KEPT_MAX)


def read_again(connection: Connection[Any], place: Place) -> Linked | Mark | None:
    """Read a record that was put aside with this version, and if that goes, take it off.

    None: there is none of that place. Raises UnreadableRecordError, which counts as an attempt.
    """
    row = connection.execute(_FIND.encode(), place).fetchone()
    if row is None:
        return None
    value, headers, is_whole = row
    try:
        if not is_whole:
            raise UnreadableRecordError(
                "It is longer than what is kept of a record, and only its beginning is there.",
                way_out="Find out who writes into the topic, and drop it.",
            )
        read = decode(value, unpacked(headers))
    except UnreadableRecordError as error:
        connection.execute(_TRIED.encode(), (error.code, _storable(str(error)), *place))
        raise
    connection.execute(_TAKE_OFF.encode(), place)
    return read


def drop(connection: Connection[Any], place: Place) -> bool:
    """Forget the content of a record, and hear of it no more; say whether there was one."""
    return connection.execute(_DROP.encode(), place).rowcount == 1


def _cut(part: bytes | None) -> bytes | None:
    return None if part is None else part[:PART_BYTES_MAX]


def _packed(headers: Sequence[tuple[str, bytes | None]]) -> tuple[bytes, bool]:
    """Return headers as JSON, as many as have room; and whether that is all of them."""
    pairs: list[bytes] = []
    size = 2
    for name, value in headers:
        text = None if value is None else base64.b64encode(value).decode()
        pair = json.dumps([name, text]).encode()
        size += len(pair) + 1
        if size > HEADERS_BYTES_MAX:
            return b"[%s]" % b",".join(pairs), False
        pairs.append(pair)
    return b"[%s]" % b",".join(pairs), True


def unpacked(headers: bytes) -> list[tuple[str, bytes | None]]:
    """Return headers as a record has them, from how they are kept."""
    return [
        (name, None if text is None else base64.b64decode(text))
        for name, text in json.loads(headers)
    ]


def _digest(record: Record) -> bytes:
    hashed = hashlib.sha256()
    named = [part for name, value in record.headers for part in (name.encode(), value)]
    for part in (record.key, record.value, *named):
        hashed.update(b"-" if part is None else b"%d:" % len(part) + part)
    return hashed.digest()


def _storable(words: str) -> str:
    return words[:WORDS_MAX].replace("\x00", "").encode("utf-8", "replace").decode()
