"""What an append is, and the one SQL text through which every event enters the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ledger.canonical import ENTRY_BYTES_MAX
from ledger.errors import EntryTooLargeError, RequestReusedError, VersionConflictError
from ledger.store import arrays
from ledger.store.arrays import BinaryArray

EVENTS_PER_TRANSACTION_MAX = 10_000

# Position and version at their longest, the recorded time, four spaces and the line feed.
_HEAD_BYTES_MAX = 19 + 27 + 10 + 5

PREPARE_APPEND = b"""
PREPARE guishu_append(
    integer[], text[], integer[], integer[], text[], bytea[], bigint[], integer[],
    integer[], text[], text[], bytea[], integer[], integer[]
) AS
SELECT append_number, outcome, first_position, event_count
FROM ledger.append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
APPEND_OR_FAIL = """
SELECT ledger.append_events_or_fail(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
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
    """Events that hold or fail together, in order; at most 10,000."""

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


def check_append(append: Append) -> None:
    """Raise EntryTooLargeError where an entry could not fit, ValueError where there is nothing."""
    if not 1 <= len(append.events) <= EVENTS_PER_TRANSACTION_MAX:
        raise ValueError(f"An append has 1 to {EVENTS_PER_TRANSACTION_MAX} events.")
    for event in append.events:
        size = _HEAD_BYTES_MAX + len(event.stream) + len(event.name) + len(event.body)
        if size > ENTRY_BYTES_MAX:
            raise EntryTooLargeError(
                f"{event.name} would have {size} bytes; the limit is {ENTRY_BYTES_MAX}.",
                way_out="Shorten the longest text, or split the request.",
            )


def parameters(appends: Sequence[Append]) -> list[BinaryArray]:
    """Return the fourteen arrays of a group of appends, in the order of the SQL function."""
    numbers: list[int] = []
    events: list[NewEvent] = []
    requests: list[tuple[int, RequestKey, int, int]] = []
    for number, append in enumerate(appends, start=1):
        if append.request is not None:
            requests.append((number, append.request, len(events) + 1, len(append.events)))
        events.extend(append.events)
        numbers.extend([number] * len(append.events))
    return [
        arrays.int4_array(numbers),
        arrays.text_array([event.stream for event in events]),
        arrays.int4_array([event.version for event in events]),
        arrays.int4_array(_steps(events)),
        arrays.text_array([event.name for event in events]),
        arrays.bytea_array([event.body for event in events]),
        arrays.int8_array([event.causation for event in events]),
        arrays.int4_array([event.ordinal for event in events]),
        arrays.int4_array([number for number, _, _, _ in requests]),
        arrays.text_array([request.caller for _, request, _, _ in requests]),
        arrays.text_array([request.request_id for _, request, _, _ in requests]),
        arrays.bytea_array([request.digest for _, request, _, _ in requests]),
        arrays.int4_array([place for _, _, place, _ in requests]),
        arrays.int4_array([count for _, _, _, count in requests]),
    ]


def _steps(events: Sequence[NewEvent]) -> list[int | None]:
    """Number the events of each stream from 1, in their order."""
    reached: dict[str, int] = {}
    steps: list[int | None] = []
    for event in events:
        step = reached.get(event.stream, 0) + 1
        reached[event.stream] = step
        steps.append(step)
    return steps


Outcome = Appended | VersionConflictError | RequestReusedError

# The number of the append, counted from 1, or 0 for all; the outcome; first position; event count.
AnswerRow = tuple[int, str, int, int]


def outcomes(appends: Sequence[Append], rows: Sequence[AnswerRow]) -> list[Outcome | None]:
    """Return what the answer of the append function means for each append, in their order.

    Where some do not hold nothing is appended: those have their results, the others None, and are
    to be sent again without them.
    """
    if rows[0][1] == "appended":
        return list(_appended(appends, rows[0][2], rows[0][3]))
    found: list[Outcome | None] = [None] * len(appends)
    for number, word, first_position, count in rows:
        found[number - 1] = _outcome(appends[number - 1], word, first_position, count)
    return found


def _appended(appends: Sequence[Append], first_position: int, count: int) -> Iterator[Appended]:
    position = first_position
    for append in appends:
        yield Appended(position, len(append.events))
        position += len(append.events)
    if position - first_position != count:
        raise AssertionError(f"{count} of {position - first_position} events were appended")


def _outcome(append: Append, word: str, first_position: int, count: int) -> Outcome:
    if word == "request_repeated":
        return Appended(first_position, count, repeated=True)
    if word == "request_reused" and append.request is not None:
        return RequestReusedError(append.request.request_id)
    if word == "version_conflict":
        return VersionConflictError(append.events[0].stream)
    raise AssertionError(f"the append function answered {word!r}")


def append_within(connection: Connection[Any], append: Append) -> None:
    """Send an append as the last statement of the caller's transaction.

    Meant for a connection in pipeline mode, with the COMMIT right behind it, so that the append
    lock is never kept across a round trip. Where the append does not hold the transaction fails
    with SQLSTATE GS001 (VersionConflictError by ``translated``).
    """
    check_append(append)
    connection.execute(APPEND_OR_FAIL, parameters([append]), prepare=True, binary=True)
