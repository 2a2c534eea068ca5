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

# Streams, names and bodies of a transaction together: PostgreSQL takes up to 1 GiB in a message.
BYTES_PER_TRANSACTION_MAX = 256 * 1024 * 1024

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
    """Events that hold or fail together, in order; at most 10,000, and 256 MiB.

    The versions of a stream are stated for all of its events here, or for none.
    """

    events: tuple[NewEvent, ...]
    request: RequestKey | None = None


@dataclass(frozen=True, slots=True)
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

    Raises EntryTooLargeError where an entry could not fit; ValueError where there are no events,
    too many, or a stream's versions are stated in part.
    """
    total = 0
    for event in append.events:
        size = len(event.stream) + len(event.name) + len(event.body)
        if size > _VARIABLE_BYTES_MAX:
            raise EntryTooLargeError(
                f"{event.name} would have {size + _HEAD_BYTES_MAX} bytes; "
                f"the limit is {ENTRY_BYTES_MAX}.",
                way_out="Shorten the longest text, or split the request.",
            )
        total += size
    if len(append.events) != 1:
        _check_many(append, total)
    return total


def _check_many(append: Append, size: int) -> None:
    if not 1 <= len(append.events) <= EVENTS_PER_TRANSACTION_MAX:
        raise ValueError(f"An append has 1 to {EVENTS_PER_TRANSACTION_MAX} events.")
    if size > BYTES_PER_TRANSACTION_MAX:
        raise EntryTooLargeError(
            f"The append has {size} bytes; the limit is {BYTES_PER_TRANSACTION_MAX}.",
            way_out="Split it into several appends.",
        )
    stated = {event.stream for event in append.events if event.version is not None}
    if stated and any(event.version is None and event.stream in stated for event in append.events):
        raise ValueError("An append states the versions of a stream for all its events, or none.")


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

    Meant for a connection in pipeline mode, with the COMMIT right behind it, so that the append
    lock is never kept across a round trip. Where the append does not hold the transaction fails
    with SQLSTATE GS001 (VersionConflictError by ``translated``). The cursor's one row, once it is
    there, has the first position. Raises as ``check_append``.
    """
    check_append(append)
    return connection.execute(_APPEND_OR_FAIL, parameters([append]), prepare=True, binary=True)
