"""Generations of the log: which server wrote what, so that a lost tail can be told from a new one.

A generation is opened before the first write after a start on a server or timeline that has not
written before. See the architecture, "Many machines, and the worst day".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

# Looked at first, for to open one takes the append lock.
_IN_FORCE = """
SELECT g.generation, g.first_position, g.system, g.timeline, g.opened, g.put_back,
       g.given_up_by, g.given_up_upto
FROM (SELECT * FROM ledger.generations ORDER BY generation DESC LIMIT 1) g
JOIN ledger.this_server() s USING (system, timeline)
"""
_OPEN = """
SELECT generation, first_position, system, timeline, opened, put_back, given_up_by, given_up_upto
FROM ledger.open_generation()
"""
_OPEN_ABOVE = """
SELECT generation, first_position, system, timeline, opened, put_back, given_up_by, given_up_upto
FROM ledger.open_generation(%s, %s, %s, %s)
"""
_ALL = """
SELECT generation, first_position, system, timeline, opened, put_back, given_up_by, given_up_upto
FROM ledger.generations ORDER BY generation
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one server (its system identifier) wrote on one timeline, from ``first_position`` on.

    ``put_back`` events in front of it were lost and put back when it was opened. ``given_up_by``
    has given up what an older generation had from ``first_position`` on, which was known up to
    ``given_up_upto``, if it was known at all. ``opened`` is UTC.
    """

    number: int
    first_position: int
    system: str
    timeline: int
    opened: datetime | None = None
    put_back: int = 0
    given_up_by: str | None = None
    given_up_upto: int | None = None


class Generations:
    """All generations there are, and to which of them a position belongs."""

    def __init__(self, opened: Sequence[Generation]) -> None:
        self._opened = tuple(opened)
        self._firsts = [each.first_position for each in self._opened]
        self.newest = self._opened[-1].number if self._opened else 0
        """The number of the one in force, 0 before any was opened."""
        self.begins_at = self._firsts[-1] if self._opened else 1
        """The first position of the one in force."""

    def __iter__(self) -> Iterator[Generation]:
        return iter(self._opened)

    def of(self, position: int) -> int:
        """Return the number of the generation that wrote a position, 0 before any was opened.

        Of two that begin at one position the earlier one wrote nothing that is left.
        """
        at = bisect_right(self._firsts, position)
        return self._opened[at - 1].number if at else 0


def is_in_force(connection: Connection[Any]) -> bool:
    """Say whether this server is the one that wrote last: then there is nothing to open."""
    return connection.execute(_IN_FORCE).fetchone() is not None


def open_generation(connection: Connection[Any]) -> Generation:
    """Open a generation if this server is not the one that wrote last; return the one in force.

    To be called before anything is appended, on a connection in autocommit mode to the primary.
    """
    row = connection.execute(_IN_FORCE).fetchone() or connection.execute(_OPEN).fetchone()
    if row is None:
        raise AssertionError("the function returns a row")
    return Generation(*row)


def open_generation_above(
    connection: Connection[Any],
    known: int,
    *,
    put_back: int = 0,
    given_up_by: str | None = None,
    given_up_upto: int | None = None,
) -> Generation:
    """Open a generation with a number above ``known``, and record what its opening was about.

    Where something is given up it is opened in any case, else as ``open_generation`` does. For the
    last thing in a transaction: it takes the append lock.
    """
    values = (known, put_back, given_up_by, given_up_upto)
    row = connection.execute(_OPEN_ABOVE, values).fetchone()
    if row is None:
        raise AssertionError("the function returns a row")
    return Generation(*row)


def read_generations(connection: Connection[Any]) -> Generations:
    """Return all generations."""
    rows = connection.execute(_ALL, prepare=True).fetchall()
    return Generations([Generation(*row) for row in rows])
