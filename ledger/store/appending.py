"""What an append is, and the one SQL text through which every event enters the log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from psycopg import Connection, Cursor

from ledger.canonical import ENTRY_BYTES_MAX
from ledger.errors import EntryTooLargeError, RequestReusedError, VersionConflictError
from ledger.store import arrays
from ledger.store.arrays import BinaryArray

EVENTS_PER_TRANSACTION_MAX = 10_000

# Streams, names and bodies of a transaction together; PostgreSQL takes up to 1 GiB in a message.
BYTES_PER_TRANSACTION_MAX = 64 * 1024 * 1024

# Position and version at their longest, the recorded time, four spaces and the line feed.
_HEAD_BYTES_MAX = 19 + 27 + 10 + 5
_VARIABLE_BYTES_MAX = ENTRY_BYTES_MAX - _HEAD_BYTES_MAX

# The functions of migrations/0002_events.sql, prepared for the committer's connection.
PREPARE_APPEND = b"""
PREPARE guishu_append(
    text[], integer[], integer[], text[], bytea[], bigint[], integer[],
    text[], text[], bytea[], integer[], integer[]
) AS
SELECT ledger.append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
PREPARE_REFUSALS = b"""
PREPARE guishu_refusals(
    text[], integer[], integer[], text[], bytea[], bigint[], integer[],
    text[], text[], bytea[], integer[], integer[]
) AS
SELECT place, outcome, first_position, event_count
FROM ledger.refusals($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
_APPEND_OR_FAIL = """
SELECT ledger.append_events_or_fail(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
"""

# The cursor's query runs only when it is fetched from; its parameters lie ready at the server.
_LAY_READY = "DECLARE guishu_append NO SCROLL CURSOR FOR" + _APPEND_OR_FAIL
# One message of the simple protocol: the server has all of it, the COMMIT too, before it begins.
_APPEND_AND_COMMIT = "FETCH ALL FROM guishu_append; COMMIT"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append: its body is opaque bytes, stored as they are.

    ``version`` None takes whatever comes next in the stream; a number must be the next one.
    ``causation`` and ``ordinal`` are those of a decision, else None.
    """

    stream: str
    name: str
    body: bytes
    version: int | None = None
    causation: int | None = None
    ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Who asks, under which id, and the digest of what was asked (see ledger/requests.py)."""

    caller: str
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Events that hold or fail together, in order; at most 10,000, and 64 MiB.

    The versions of a stream are stated for all of its events here, or for none.
    """

    events: tuple[NewEvent, ...]
    request: RequestKey | None = None


# Not frozen: every append makes one, and a frozen one takes three times as long to make.
@dataclass(slots=True)
class Appended:
    """The positions that an append got: ``count`` of them from ``first_position`` on.

    ``repeated`` says that the same request was recorded before, and this is its first answer.
    """

    first_position: int
    count: int
    repeated: bool = False

    @property
    def positions(self) -> range:
        return range(self.first_position, self.first_position + self.count)


Outcome = Appended | VersionConflictError | RequestReusedError


def check_append(append: Append) -> int:
    """Return the bytes of the append's streams, names and bodies.

    Raises EntryTooLargeError where an entry could not fit; VersionConflictError where the stated
    versions of a stream do not follow each other; ValueError where there are no events, too many,
    or a stream's versions are stated in part.
    """
    size = 0
    for event in append.events:
        size += len(event.stream) + len(event.name) + len(event.body)
    # Nearly every append is one event, and short.
    if len(append.events) != 1 or size > _VARIABLE_BYTES_MAX:
        _check_thoroughly(append, size)
    return size


def _check_thoroughly(append: Append, size: int) -> None:
    if not 1 <= len(append.events) <= EVENTS_PER_TRANSACTION_MAX:
        raise ValueError(f"An append has 1 to {EVENTS_PER_TRANSACTION_MAX} events.")
    for event in append.events:
        entry = len(event.stream) + len(event.name) + len(event.body) + _HEAD_BYTES_MAX
        if entry > ENTRY_BYTES_MAX:
            raise EntryTooLargeError(
                f"{event.name} would have {entry} bytes; the limit is {ENTRY_BYTES_MAX}.",
                way_out="Shorten the longest text, or split the request.",
            )
    if size > BYTES_PER_TRANSACTION_MAX:
        raise EntryTooLargeError(
            f"The append has {size} bytes; the limit is {BYTES_PER_TRANSACTION_MAX}.",
            way_out="Split it into several appends.",
        )
    _check_versions(append)


def _check_versions(append: Append) -> None:
    reached: dict[str, int | None] = {}
    for event in append.events:
        stream, version = event.stream, event.version
        if stream in reached:
            before = reached[stream]
            if (version is None) != (before is None):
                raise ValueError("An append states all versions of a stream, or none of them.")
            if version is not None and before is not None and version != before + 1:
                raise VersionConflictError(stream)
        reached[stream] = version


def parameters(appends: Sequence[Append]) -> list[BinaryArray]:
    """Return the arrays of a group of appends, in the order of the SQL functions' parameters.

    What need not be said is an empty array, which costs neither side anything.
    """
    events = [event for append in appends for event in append.events]
    streams = [event.stream for event in events]
    requests = [append.request for append in appends if append.request is not None]
    places: Sequence[int] = ()
    counts: Sequence[int] = ()
    if requests and not len(requests) == len(appends) == len(events):
        starts = accumulate((len(append.events) for append in appends), initial=1)
        asked = [
            (place, len(append.events))
            for place, append in zip(starts, appends, strict=False)
            if append.request is not None
        ]
        places, counts = zip(*asked, strict=True)
    return [
        arrays.text_array(streams),
        arrays.int4_array(_unless_none([event.version for event in events])),
        arrays.int4_array(_steps(streams)),
        arrays.text_array([event.name for event in events]),
        arrays.bytea_array([event.body for event in events]),
        arrays.int8_array(_unless_none([event.causation for event in events])),
        arrays.int4_array(_unless_none([event.ordinal for event in events])),
        arrays.text_array([request.caller for request in requests]),
        arrays.text_array([request.request_id for request in requests]),
        arrays.bytea_array([request.digest for request in requests]),
        arrays.int4_array(places),
        arrays.int4_array(counts),
    ]


def _unless_none(values: Sequence[int | None]) -> Sequence[int | None]:
    return () if values.count(None) == len(values) else values


def _steps(streams: Sequence[str]) -> Sequence[int]:
    """Number the events of each stream from 1, in their order; nothing where all are different."""
    if len(set(streams)) == len(streams):
        return ()
    reached: dict[str, int] = {}
    steps: list[int] = []
    for stream in streams:
        step = reached.get(stream, 0) + 1
        reached[stream] = step
        steps.append(step)
    return steps


def appended(appends: Iterable[Append], first_position: int) -> list[Appended]:
    """Return the results of a group that was appended from ``first_position`` on."""
    results: list[Appended] = []
    position = first_position
    for append in appends:
        count = len(append.events)
        results.append(Appended(position, count))
        position += count
    return results


# The place of an event in the group, counted from 1; the outcome; first position; event count.
Refusal = tuple[int, str, int, int]


def refused(appends: Sequence[Append], refusals: Iterable[Refusal]) -> list[Outcome | None]:
    """Return the results of a group of which something does not hold.

    Nothing was appended: those without a result are to be sent again without the others.
    """
    starts = list(accumulate((len(append.events) for append in appends), initial=1))
    results: list[Outcome | None] = [None] * len(appends)
    for place, outcome, first_position, count in refusals:
        number = bisect_right(starts, place) - 1
        # What is known about a request comes first, and is the whole answer.
        if results[number] is None:
            results[number] = _outcome(appends[number], outcome, first_position, count)
    return results


def _outcome(append: Append, word: str, first_position: int, count: int) -> Outcome:
    if word == "request_repeated":
        return Appended(first_position, count, repeated=True)
    if word == "request_reused" and append.request is not None:
        return RequestReusedError(append.request.request_id)
    if word == "version_conflict":
        return VersionConflictError(append.events[0].stream)
    raise AssertionError(f"the append function answered {word!r}")


def append_within(connection: Connection[Any], append: Append) -> Cursor[Any]:
    """Send an append as the last statement of the caller's transaction.

    The append lock is kept from here to the end of the transaction, which must come at once;
    ``append_and_commit`` makes sure of it. Where the append does not hold the transaction fails
    with SQLSTATE GS001 (VersionConflictError by ``translated``). The cursor's one row, once it is
    there, has the first position. Raises as ``check_append``.
    """
    check_append(append)
    return connection.execute(_APPEND_OR_FAIL, parameters([append]), prepare=True, binary=True)


def append_and_commit(connection: Connection[Any], append: Append) -> Appended:
    """Append as the last thing in the caller's transaction, and commit it.

    The append lock is taken only when the server has the COMMIT in its hands, whatever becomes of
    this process: psycopg's pipeline sends a statement as soon as it is made, and one that stops in
    front of the COMMIT would keep the lock. ``connection`` is in a transaction, and not in pipeline
    mode. Where the append does not hold, SQLSTATE GS001 is raised and the transaction has failed.
    Raises as ``check_append``.
    """
    check_append(append)
    connection.execute(_LAY_READY, parameters([append]), prepare=True, binary=True)
    row = connection.execute(_APPEND_AND_COMMIT, prepare=False).fetchone()
    if row is None:
        raise AssertionError("an append that holds has a first position")
    return Appended(int(row[0]), len(append.events))
