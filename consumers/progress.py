"""How far a consumer has come, and who may move it: a row, an epoch, and an advisory lock.

There is one row for all customers, or one for each partition of them in Kafka. The highest position
that all rows have reached is how far the consumer has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import Connection

from ledger.errors import LedgerError

_MAKE = "INSERT INTO ledger.consumer_progress (consumer) VALUES (%s) ON CONFLICT DO NOTHING"
_TAKE = """
UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = %s AND partition = %s
RETURNING epoch, position
"""
_COUNT = "SELECT count(*) FROM ledger.consumer_progress WHERE consumer = %s"
_LOCK_ALL = """
SELECT position FROM ledger.consumer_progress WHERE consumer = %s ORDER BY partition FOR UPDATE
"""
_FENCE_ALL = "UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = %s"
_ADD = """
INSERT INTO ledger.consumer_progress (consumer, partition, position)
SELECT %s, number, %s FROM generate_series(%s::integer, %s::integer) AS number
"""
_MOVE = """
UPDATE ledger.consumer_progress SET position = %s
WHERE consumer = %s AND partition = %s AND epoch = %s AND position = %s
"""
# Nothing is lost with such a step: it goes over what needs no decision, and can be made again.
_SKIP = _MOVE + " AND set_config('synchronous_commit', 'off', true) = 'off'"
_READ = "SELECT min(position) FROM ledger.consumer_progress WHERE consumer = %s"
_LEAD = "SELECT pg_try_advisory_lock(hashtext(%s), hashtext(current_database()))"
_JOIN = "SELECT pg_try_advisory_lock_shared(hashtext(%s), hashtext(current_database()))"
_LEAD_NO_MORE = "SELECT pg_advisory_unlock(hashtext(%s), hashtext(current_database()))"
_UNITE = "SELECT ledger.unite_progress(%s)"


class FencedError(LedgerError):
    """Another process has taken over; nothing of this batch was kept."""

    code = "fenced"

    def __init__(self, consumer: str) -> None:
        super().__init__(
            f"Another process has become the {consumer}.",
            way_out="Nothing needs to be done: it goes on where this one stopped.",
        )


class ProgressDividedError(LedgerError):
    """A consumer's progress is divided into other parts than asked for; nothing was changed."""

    code = "progress_divided"

    def __init__(self, consumer: str, found: int, wanted: int) -> None:
        super().__init__(
            f"The progress of the {consumer} is divided into {found} parts, not {wanted}.",
            way_out="Others follow those parts now. Stop them, and start this one again: it brings"
            " the parts together, and divides them anew.",
        )


class Part(NamedTuple):
    """Which part of the customers is followed: one of so many, all by default."""

    number: int = 0
    of: int = 1


WHOLE = Part()


@dataclass(slots=True)
class Progress:
    """What this process believes: its epoch, and the position that its part has reached."""

    consumer: str
    epoch: int
    position: int
    part: int = 0


def become_leader(connection: Connection[Any], consumer: str) -> bool:
    """Try to become the one active process; the lock lasts as long as the connection.

    So do everything that leading allows on this very connection: what ends it ends the work too.
    """
    row = connection.execute(_LEAD, (f"guishu {consumer}",)).fetchone()
    return bool(row and row[0])


def lead_no_more(connection: Connection[Any], consumer: str) -> None:
    """Let others lead, or join; what this connection has joined itself stays."""
    connection.execute(_LEAD_NO_MORE, (f"guishu {consumer}",))


def join(connection: Connection[Any], consumer: str) -> bool:
    """Try to become one of several active processes, which share the parts among them.

    It fails while one leads alone, and nobody leads alone while any has joined.
    """
    row = connection.execute(_JOIN, (f"guishu {consumer}",)).fetchone()
    return bool(row and row[0])


def take_over(connection: Connection[Any], consumer: str, part: Part = WHOLE) -> Progress:
    """Take a new epoch of a part, so that whoever held an older one can write nothing more.

    Waits for a transaction of theirs to end, as long as ``lock_timeout`` allows. Raises
    ProgressDividedError where the progress is divided into another number of parts: two that
    follow the same customers would decide the same requests.
    """
    with connection.transaction():
        connection.execute(_MAKE, (consumer,))
        row = connection.execute(_TAKE, (consumer, part.number)).fetchone()
        # A later statement: it sees what was divided while this one waited for the row.
        found = parts(connection, consumer)
        if found != part.of:
            raise ProgressDividedError(consumer, found, part.of)
    if row is None:
        raise AssertionError(f"there is no progress row of {consumer}, part {part.number}")
    epoch, position = row
    return Progress(consumer, epoch, position, part.number)


def fence_all(connection: Connection[Any], consumer: str) -> None:
    """Take a new epoch of every part: whoever follows one of them begins anew."""
    connection.execute(_MAKE, (consumer,))
    connection.execute(_FENCE_ALL, (consumer,))


def divide(connection: Connection[Any], consumer: str, into: int) -> None:
    """Divide a progress that is whole into parts, each of which has reached what the whole has.

    Whoever follows the whole is fenced, and cannot take it over again. Nothing is done where it is
    divided so already. Raises ProgressDividedError where it is divided otherwise.
    """
    with connection.transaction():
        connection.execute(_MAKE, (consumer,))
        rows = connection.execute(_LOCK_ALL, (consumer,)).fetchall()
        found = parts(connection, consumer)
        if found == into:
            return
        if found != 1:
            raise ProgressDividedError(consumer, found, into)
        fence_all(connection, consumer)
        connection.execute(_ADD, (consumer, rows[0][0], 1, into - 1))


def unite(connection: Connection[Any], consumer: str) -> None:
    """Make one of all parts, which have reached the same position; whoever follows one is fenced.

    Raises psycopg's ObjectNotInPrerequisiteState where they have not.
    """
    connection.execute(_UNITE, (consumer,))


def parts(connection: Connection[Any], consumer: str) -> int:
    """Return into how many parts the progress is divided; 0 before the first start."""
    row = connection.execute(_COUNT, (consumer,)).fetchone()
    return int(row[0]) if row else 0


def move(connection: Connection[Any], progress: Progress, position: int) -> None:
    """Lock the row and move it, as the first thing in a transaction.

    What ``progress`` says is left to the caller, who knows when that is committed. Raises
    FencedError where the row is no longer ours.
    """
    _update(connection, _MOVE, progress, position)


def skip(connection: Connection[Any], progress: Progress, position: int) -> None:
    """Move the row over what needs no decision, in a transaction of its own that waits for no disk.

    Raises FencedError.
    """
    _update(connection, _SKIP, progress, position)
    progress.position = position


def _update(connection: Connection[Any], statement: str, progress: Progress, to: int) -> None:
    values = (to, progress.consumer, progress.part, progress.epoch, progress.position)
    if connection.execute(statement.encode(), values, prepare=True).rowcount != 1:
        raise FencedError(progress.consumer)


def reached(connection: Connection[Any], consumer: str) -> int:
    """Return the position that a consumer has reached in every partition, 0 before all began."""
    row = connection.execute(_READ, (consumer,)).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
