"""The feed: what consumers follow. On one machine it is the store's own tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import Connection

from ledger.envelope import StoredEvent

_HEAD = "SELECT position FROM ledger.events ORDER BY position DESC LIMIT 1"
# Written so that no index can serve the stream's name: a plan that began there would look at every
# request that there ever was.
_REQUESTS = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events
WHERE position > %s AND position <= %s AND causation IS NULL
  AND (left(stream, 9) = 'customer-' OR left(stream, 7) = 'person-')
ORDER BY position LIMIT %s
"""
# So many positions are looked through for requests in one go; between them stand decisions.
_SPAN_PER_EVENT = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests in order, and the position up to which there are no others.

    ``reached`` below the position asked for says that the log ends there: it has lost its tail.
    """

    requests: Sequence[StoredEvent]
    reached: int


class Feed(Protocol):
    """Ordered batches of requests; ``read`` returns at once, also with nothing."""

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        """Return the requests behind ``after``, at most ``limit``."""
        ...


class StoreFeed:
    """The store's own tail: positions are dense and visible in order, so nothing can be missed."""

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        row = connection.execute(_HEAD, prepare=True).fetchone()
        head = int(row[0]) if row else 0
        if head <= after:
            return Batch((), head)
        upto = min(head, after + limit * _SPAN_PER_EVENT)
        rows = connection.execute(
            _REQUESTS, (after, upto, limit), prepare=True, binary=True
        ).fetchall()
        requests = [StoredEvent._make(each) for each in rows]
        return Batch(requests, requests[-1].position if len(requests) == limit else upto)
