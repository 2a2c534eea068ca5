"""How far everything that follows the log has come, and since when it has left something undone.

For people (``guishu lag``) and for Prometheus alike. Every look-up goes down an index, however long
the log is, and however far somebody is behind.

Since when a consumer is behind is told by the first event behind what it has reached; of those who
decide requests, by the first request. Of a part of the customers (a partition of Kafka) that is a
bound, for whether this very event belongs to the part only Kafka's hash of each would tell: nothing
of the part has waited for longer. A part for which there is nothing new is moved on all the same,
by the relay's marks; so one that stays behind tells of somebody who does not follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from psycopg import Connection

from consumers.clock import database_now
from consumers.enforcer import CONSUMER
from ledger.deadlines import CLOCK
from ledger.store.reading import head
from projections.runner import positions

Kind = Literal["requests", "events", "jobs", "deadlines"]

# Requests are counted among so many positions at the end of the log; and the first is looked for
# among so many behind where somebody stands.
SPAN = 10_000
NEAR = 1_000

_PROGRESS = "SELECT consumer, partition, position FROM ledger.consumer_progress ORDER BY 1, 2"
# What has been filled under another prefix is no topic of this ledger any more.
_RELAYED = "SELECT topic, position FROM ledger.relay WHERE starts_with(topic, %s) ORDER BY topic"
_FOLLOWED = "SELECT application_name, notification_id FROM ledger.tracking ORDER BY 1"
_JOBS = "SELECT count(*), min(asked) FROM api.jobs WHERE state = 'waiting'"
_DUE = "SELECT due FROM projections.deadlines WHERE due <= %s ORDER BY due LIMIT 1"
_FIRST = """
SELECT a.position, (SELECT e.recorded FROM ledger.events e WHERE e.position > a.position
                    ORDER BY e.position LIMIT 1)
FROM unnest(%(positions)s::bigint[]) AS a(position)
"""
# Decisions need none; where many of them stand in front, what stands behind them is told.
_FIRST_REQUEST = """
SELECT a.position, coalesce(
    (SELECT e.recorded FROM ledger.events e
     WHERE e.position > a.position AND e.position <= a.position + %(near)s AND e.causation IS NULL
       AND (left(e.stream, 9) = 'customer-' OR left(e.stream, 7) = 'person-')
     ORDER BY e.position LIMIT 1),
    (SELECT e.recorded FROM ledger.events e WHERE e.position > a.position + %(near)s
     ORDER BY e.position LIMIT 1))
FROM unnest(%(positions)s::bigint[]) AS a(position)
"""
_REQUESTS = """
SELECT position, stream FROM ledger.events
WHERE position > %s AND position <= %s AND causation IS NULL
  AND (left(stream, 9) = 'customer-' OR left(stream, 7) = 'person-')
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer has come, or a part of it, and what is left to it.

    ``partition`` is None where it is not divided, ``reached`` where it goes by no position: jobs
    and deadlines wait by themselves. ``left`` is how many positions are left, ``waiting`` how much
    of ``kind`` is among them, None where nobody has counted. ``oldest`` (UTC) is since when the
    oldest of it waits, ``seconds`` for how long, by the database's clock.
    """

    consumer: str
    partition: int | None
    reached: int | None
    left: int | None
    kind: Kind
    waiting: int | None
    oldest: datetime | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Lags:
    """All of them, when the log ended at ``head``."""

    at: datetime
    head: int
    consumers: Sequence[Lag]


class _Place(NamedTuple):
    """Where a consumer stands that goes by positions."""

    consumer: str
    partition: int | None
    reached: int
    kind: Kind


def lags(connection: Connection[Any], topic_prefix: str) -> Lags:
    """Return how far everybody has come; of topics those with a prefix.

    How many requests are among what is left, ``count_requests`` tells.
    """
    places = list(_places(connection, topic_prefix))
    jobs, due = _jobs(connection), list(_due(connection))
    # The head behind them: nobody can have reached what is behind it.
    top = head(connection)
    firsts: dict[Kind, dict[int, datetime | None]] = {
        "events": _recorded(connection, _FIRST, places, "events"),
        "requests": _recorded(connection, _FIRST_REQUEST, places, "requests"),
    }
    now = database_now(connection)
    behind = [_behind(each, top, firsts[each.kind], now) for each in places]
    return Lags(now, top, [*behind, *(_aged(each, now) for each in (jobs, *due))])


def count_requests(connection: Connection[Any], found: Lags) -> Lags:
    """Count what is left to those who decide requests, where that is within the last positions.

    Of which part a request is Kafka's hash tells: that takes a moment, and is for people.
    """
    floor = max(0, found.head - SPAN)
    near = [
        each
        for each in found.consumers
        if each.kind == "requests" and each.reached is not None and each.reached >= floor
    ]
    if not near:
        return found
    least = min(each.reached or 0 for each in near)
    requests = connection.execute(_REQUESTS, (least, found.head)).fetchall()
    divided = Counter(each.consumer for each in found.consumers)

    def counted(lag: Lag) -> Lag:
        if lag not in near:
            return lag
        part_of, reached = _part_of(divided[lag.consumer]), lag.reached or 0
        mine = [at for at, stream in requests if at > reached and part_of(stream) == lag.partition]
        return replace(lag, waiting=len(mine))

    return replace(found, consumers=[counted(each) for each in found.consumers])


def _part_of(parts: int) -> Callable[[str], int]:
    """Return what tells of which of so many parts the requests of a stream are."""
    if parts == 1:
        return lambda stream: 0
    from consumers.kafka.chain import key_of, partition_of  # takes a while, and few need it

    return lambda stream: partition_of(key_of(stream), parts)


def _places(connection: Connection[Any], topic_prefix: str) -> Iterator[_Place]:
    enforced = [
        _Place(consumer, partition, position, "requests")
        for consumer, partition, position in connection.execute(_PROGRESS)
    ]
    # Before anybody has decided, all that was asked waits.
    yield from enforced or [_Place(CONSUMER, 0, 0, "requests")]
    for name, position in sorted(positions(connection).items()):
        yield _Place(name, None, position, "events")
    for topic, position in connection.execute(_RELAYED, (f"{topic_prefix}.",)):
        yield _Place(f"relay:{topic}", None, position, "events")
    for name, position in connection.execute(_FOLLOWED):
        yield _Place(f"follower:{name}", None, position, "events")


def _recorded(
    connection: Connection[Any], statement: str, places: Sequence[_Place], kind: Kind
) -> dict[int, datetime | None]:
    """Return when the first was recorded behind each position that somebody of a kind stands at."""
    wanted = sorted({each.reached for each in places if each.kind == kind})
    given = {"positions": wanted, "near": NEAR}
    return dict(connection.execute(statement.encode(), given).fetchall())


def _behind(place: _Place, top: int, firsts: dict[int, datetime | None], now: datetime) -> Lag:
    left = max(0, top - place.reached)
    waiting = left if place.kind == "events" or not left else None
    oldest = firsts.get(place.reached) if left else None
    told = Lag(place.consumer, place.partition, place.reached, left, place.kind, waiting, oldest, 0)
    return _aged(told, now)


def _jobs(connection: Connection[Any]) -> Lag:
    row = connection.execute(_JOBS).fetchone()
    count, oldest = row or (0, None)
    return Lag("jobs", None, None, None, "jobs", count, oldest, 0)


def _due(connection: Connection[Any]) -> Iterator[Lag]:
    """Yield since when something is due that the read model does not know as raised and decided."""
    if connection.execute("SELECT to_regclass('projections.deadlines')").fetchone() == (None,):
        return
    row = connection.execute(_DUE, (database_now(connection),)).fetchone()
    oldest = row[0] if row else None
    yield Lag(CLOCK, None, None, None, "deadlines", None if row else 0, oldest, 0)


def _aged(lag: Lag, now: datetime) -> Lag:
    if lag.oldest is None:
        return lag
    oldest = lag.oldest.astimezone(UTC)
    return replace(lag, oldest=oldest, seconds=max(0.0, (now - oldest).total_seconds()))
