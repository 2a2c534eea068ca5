"""How far a consumer has come, and who may move it: one row, an epoch, and an advisory lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ledger.errors import LedgerError

_MAKE = "INSERT INTO ledger.consumer_progress (consumer) VALUES (%s) ON CONFLICT DO NOTHING"
_TAKE = """
UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = %s AND partition = 0
RETURNING epoch, position
"""
_MOVE = """
UPDATE ledger.consumer_progress SET position = %s
WHERE consumer = %s AND partition = 0 AND epoch = %s AND position = %s
"""
# Nothing is lost with such a step: it goes over what needs no decision, and can be made again.
_SKIP = _MOVE + " AND set_config('synchronous_commit', 'off', true) = 'off'"
_READ = "SELECT min(position) FROM ledger.consumer_progress WHERE consumer = %s"
_LEAD = "SELECT pg_try_advisory_lock(hashtext(%s), hashtext(current_database()))"


class FencedError(LedgerError):
    """Another process has taken over; nothing of this batch was kept."""

    code = "fenced"

    def __init__(self, consumer: str) -> None:
        super().__init__(
            f"Another process has become the {consumer}.",
            way_out="Nothing needs to be done: it goes on where this one stopped.",
        )


@dataclass(slots=True)
class Progress:
    """What this process believes: its epoch, and the position that it has reached."""

    consumer: str
    epoch: int
    position: int


def become_leader(connection: Connection[Any], consumer: str) -> bool:
    """Try to become the one active process; the lock lasts as long as the connection.

    So do everything that leading allows on this very connection: what ends it ends the work too.
    """
    row = connection.execute(_LEAD, (f"guishu {consumer}",)).fetchone()
    return bool(row and row[0])


def take_over(connection: Connection[Any], consumer: str) -> Progress:
    """Take a new epoch, so that whoever held an older one can write nothing more.

    Waits for a transaction of theirs to end, as long as ``lock_timeout`` allows.
    """
    with connection.transaction():
        connection.execute(_MAKE, (consumer,))
        row = connection.execute(_TAKE, (consumer,)).fetchone()
    if row is None:
        raise AssertionError(f"there is no progress row of {consumer}")
    return Progress(consumer, *row)


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
    values = (to, progress.consumer, progress.epoch, progress.position)
    if connection.execute(statement.encode(), values, prepare=True).rowcount != 1:
        raise FencedError(progress.consumer)


def reached(connection: Connection[Any], consumer: str) -> int:
    """Return the position that a consumer has reached in every partition, 0 before all began."""
    row = connection.execute(_READ, (consumer,)).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
