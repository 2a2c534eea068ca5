"""The feed: what consumers follow. On one machine it is the store's own tail.

With Kafka there is a feed for each partition of the customers (``consumers/kafka/feed.py``). One
suite of tests holds for both (``tests/consumers/test_feeds.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import Connection

from ledger.deciding import is_request_stream
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
    """The store's own tail: positions are dense and visible in order, so nothing can be missed.

    ``belongs``, where it is given, says of a stream whether its requests are of this feed's part of
    the customers. ``upto``, where it is given, is as far as the feed goes.
    """

    def __init__(
        self, belongs: Callable[[str], bool] | None = None, upto: int | None = None
    ) -> None:
        self._belongs = belongs
        self._upto = upto

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        row = connection.execute(_HEAD, prepare=True).fetchone()
        head = int(row[0]) if row else 0
        if head <= after:
            return Batch((), head)
        end = head if self._upto is None else min(head, max(self._upto, after))
        return self.read_upto(connection, after, limit, end)

    def read_upto(self, connection: Connection[Any], after: int, limit: int, upto: int) -> Batch:
        """Return the requests behind ``after`` and not behind ``upto``, which the log has."""
        end = min(upto, after + limit * _SPAN_PER_EVENT)
        rows = connection.execute(
            _REQUESTS, (after, end, limit), prepare=True, binary=True
        ).fetchall()
        requests = [StoredEvent._make(each) for each in rows]
        reached = requests[-1].position if len(requests) == limit else end
        if self._belongs is not None:
            requests = [each for each in requests if self._belongs(each.stream)]
        return Batch(requests, reached)


def is_request(event: StoredEvent) -> bool:
    """Say whether an event of the log is what a feed brings: the same as the store's own look-up.

    Requests have no cause; a parking has none either, and stands among the decisions.
    """
    return event.causation is None and is_request_stream(event.stream)
