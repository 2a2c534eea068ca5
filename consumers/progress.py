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
_LOCK = """
SELECT epoch, position FROM ledger.consumer_progress
WHERE consumer = %s AND partition = 0 FOR UPDATE
"""
_MOVE = """
UPDATE ledger.consumer_progress SET position = %s WHERE consumer = %s AND partition = 0
"""
_READ = "SELECT position FROM ledger.consumer_progress WHERE consumer = %s AND partition = 0"
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
    """Try to become the one active process; the lock lasts as long as the connection."""
    row = connection.execute(_LEAD, (f"guishu {consumer}",)).fetchone()
    return bool(row and row[0])


def take_over(connection: Connection[Any], consumer: str) -> Progress:
    """Take a new epoch, so that whoever held an older one can write nothing more."""
    with connection.transaction():
        connection.execute(_MAKE, (consumer,))
        row = connection.execute(_TAKE, (consumer,)).fetchone()
    if row is None:
        raise AssertionError(f"there is no progress row of {consumer}")
    return Progress(consumer, *row)


def lock(connection: Connection[Any], progress: Progress) -> None:
    """Lock the progress row within a transaction; raises FencedError where it is no longer ours."""
    row = connection.execute(_LOCK, (progress.consumer,), prepare=True).fetchone()
    if row != (progress.epoch, progress.position):
        raise FencedError(progress.consumer)


def move(connection: Connection[Any], progress: Progress, position: int) -> None:
    """Send the new position; the row was locked before."""
    connection.execute(_MOVE, (position, progress.consumer), prepare=True)


def reached(connection: Connection[Any], consumer: str) -> int:
    """Return the position that a consumer has reached, 0 before its first batch."""
    row = connection.execute(_READ, (consumer,)).fetchone()
    return int(row[0]) if row else 0
