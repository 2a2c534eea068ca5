"""A log that has lost its tail, of which the topic knows: what is done before more is written.

A standby that was promoted, or a backup that was restored, may lack what was recorded last, and
what consumers have acted on. So the topic is asked before a generation is opened, and before
anything is sent. What the topic holds behind the log's end is put back, and the guards with it, in
one transaction with the opening. Where it does not hold all of it, nothing is opened until somebody
gives up, in so many words, what is missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaError
from psycopg import Connection, Rollback

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import (
    GiveUpRefusedError,
    KafkaUnavailableError,
    TailBusyError,
    TailIncompleteError,
    TailLostError,
    TopicForeignError,
)
from consumers.kafka.looking_back import TopicEnd
from consumers.kafka.merging import Merge
from consumers.kafka.putting_back import ContradictionError, Writer, check_again
from consumers.kafka.topics import LOG, identity
from consumers.rebuilding import rebuild_guards
from ledger.events.catalogue import catalogue
from ledger.folding import Folding
from ledger.store import arrays
from ledger.store.generations import (
    Generation,
    is_in_force,
    open_generation_above,
    read_generations,
)
from ledger.store.reading import head

_WAIT_SECONDS_MAX = 600.0
_WAIT_SECONDS = 0.2
_COMPARED_AT_ONCE = 2_000

_TRY_LOCK = "SELECT pg_try_advisory_lock(hashtext('guishu lost tail'), 0)"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext('guishu lost tail'), 0)"
# While Kafka is read the session says nothing, and the guards take as long as the log is.
_UNHURRIED = """
SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '60s', true),
       set_config('idle_in_transaction_session_timeout', '0', true)
"""
_FILLED = "SELECT topic_id FROM ledger.relay WHERE topic = %s AND topic_id IS NOT NULL"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Found:
    """What the topic knows behind the log's end.

    ``keep`` is the position up to which the log has everything, once it is put back; ``known`` the
    highest that anything tells of. ``reasons`` say what stands in the way; where there are none all
    is there. ``generation`` is the highest of the topic.
    """

    head: int
    keep: int
    known: int = 0
    generation: int = 0
    reasons: list[str] = field(default_factory=list)
    folding: Folding | None = None


def check_tail(connection: Connection[Any], cluster: Cluster) -> None:
    """Return where the store knows all that the topic does, or the topic does not exist.

    For a server that has written already: it may have written in the place of what is missing, so
    nothing is put back. What an older generation has left behind in the topic was given up. Raises
    TailLostError, KafkaUnavailableError, UnreadableRecordError.
    """
    topic = LOG.name(cluster.topic_prefix)
    newest = read_generations(connection).newest
    try:
        with TopicEnd(cluster, topic) as end:
            known = end.highest(newest)
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(cluster.bootstrap, error) from error
    # Behind the look at the topic, which is filled from the store and never before it.
    ends_at = head(connection)
    if known > ends_at:
        raise TailLostError(topic, known, ends_at)


def open_behind_tail(connection: Connection[Any], cluster: Cluster) -> None:
    """Open a generation where this server is not the one that wrote last, and put back the tail.

    All of that or nothing, in one transaction. ``connection`` is in autocommit mode, to the
    primary. Raises TailIncompleteError, TopicForeignError, KafkaUnavailableError, TailBusyError,
    UnreadableRecordError; UnknownEventError and DeciderMissingError where this guishu is too old.
    """
    with _alone(connection):
        if is_in_force(connection):
            return
        with connection.transaction():
            found = _put_back(connection, cluster)
            if found.reasons:
                topic = LOG.name(cluster.topic_prefix)
                raise TailIncompleteError(topic, found.head, found.keep, found.reasons)
            _finish(connection, found)
            put_back = found.keep - found.head
            opened = open_generation_above(connection, found.generation, put_back=put_back)
        _tell(opened, cluster)


def give_up(connection: Connection[Any], cluster: Cluster, position: int, by: str) -> Generation:
    """Give up all that was recorded behind ``position``; return the generation opened behind it.

    What can be put back up to there is put back. Raises GiveUpRefusedError where nothing is
    missing, or not from there on; and as ``open_behind_tail``.
    """
    with _alone(connection), connection.transaction():
        found = _put_back(connection, cluster)
        if not found.reasons:
            raise GiveUpRefusedError(
                "Nothing is missing of the log that the topic knows of.",
                way_out="Start guishu: it puts back by itself what it finds.",
            )
        if found.keep != position:
            raise GiveUpRefusedError(
                f"Everything is there up to position {found.keep}, and not {position}:"
                f" {'; '.join(found.reasons)}.",
                way_out="To give up all that was recorded behind it, for ever:"
                f" guishu generations give-up {found.keep}",
            )
        _finish(connection, found)
        opened = open_generation_above(
            connection,
            found.generation,
            put_back=found.keep - found.head,
            given_up_by=by,
            given_up_upto=found.known if found.known > found.keep else None,
        )
    _tell(opened, cluster)
    return opened


def _finish(connection: Connection[Any], found: _Found) -> None:
    """Bring what the enforcer keeps beside the log up to what was put back."""
    if found.keep > found.head:
        rebuild_guards(connection, catalogue(), folded=found.folding)


def _tell(opened: Generation, cluster: Cluster) -> None:
    first, count = opened.first_position, opened.put_back
    if count:
        name = LOG.name(cluster.topic_prefix)
        _log.warning("positions %d to %d were put back from %s", first - count, first - 1, name)
    if opened.given_up_by is not None:
        _log.warning("what was recorded from position %d on was given up", first)


def _put_back(connection: Connection[Any], cluster: Cluster) -> _Found:
    """Put back what can be, in the caller's transaction; return what was found."""
    arrays.register(connection)
    connection.execute(_UNHURRIED)
    topic = LOG.name(cluster.topic_prefix)
    begins_at = head(connection)
    try:
        reasons = _why_unknown(connection, cluster, topic)
        limit: int | None = begins_at if is_in_force(connection) else None
        contradicted: int | None = None
        while True:
            try:
                found = _read(connection, cluster, topic, limit)
            except ContradictionError as error:
                if error.position <= begins_at:
                    raise TopicForeignError(topic, error.position) from error
                # Once more, up to there.
                contradicted, limit = error.position, error.position - 1
            else:
                break
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(cluster.bootstrap, error) from error
    if contradicted is not None:
        reasons.append(f"what the topic holds at position {contradicted} contradicts the rest")
    found.reasons = reasons + found.reasons
    return found


def _why_unknown(connection: Connection[Any], cluster: Cluster, topic: str) -> list[str]:
    """Return why the topic may know less than it did; nothing where it was never filled."""
    row = connection.execute(_FILLED, (topic,)).fetchone()
    if row is None:
        return []
    there = identity(cluster, topic)
    if there is None:
        return ["the topic was filled, and does not exist any more"]
    if there[0] != row[0]:
        return ["the topic was made anew, and what it held before is not known"]
    return []


def _read(connection: Connection[Any], cluster: Cluster, topic: str, limit: int | None) -> _Found:
    """Read the topic from where the log may end, and write what follows on it up to ``limit``."""
    found: _Found | None = None
    with connection.transaction() as written, TopicEnd(cluster, topic) as end:
        begins_at = head(connection)
        merge = Merge(end.partitions, begins_at, read_generations(connection))
        writer = Writer(connection, catalogue(), begins_at)
        lacking, last = _write(connection, end, merge, writer, limit)
        found = _Found(begins_at, writer.position, merge.known, merge.generation)
        found.folding = writer.folding
        found.reasons = list(_reasons(end, merge, lacking, last))
        if merge.unknown_at is not None:
            if merge.unknown_at <= begins_at:
                raise ContradictionError(merge.unknown_at)
            found.keep, found.folding = begins_at, None
            raise Rollback(written)
    if found is None:
        raise AssertionError("what was read is told in any case")
    if not found.reasons and found.known > found.keep:
        # Whatever the reason may be: nothing is given up that nobody was asked about.
        found.reasons = [
            f"{_missing([range(found.keep + 1, found.known + 1)])}, which the topic holds"
        ]
    return found


def _write(
    connection: Connection[Any], end: TopicEnd, merge: Merge, writer: Writer, limit: int | None
) -> tuple[int, int]:
    """Return how many events the last append lacks, and the last position that came in order."""
    last = begins_at = writer.position
    try:
        for linked in end.merged(merge, _recorded(connection, begins_at)):
            position = linked.event.position
            if position == last + 1 and (limit is None or position <= limit):
                writer.add(linked)
                last = position
            if len(merge.again) >= _COMPARED_AT_ONCE:
                _compare(connection, merge, writer)
        lacking = writer.end()
    except (KeyError, ValueError) as error:
        # Folding it failed: it is no continuation of this log.
        raise ContradictionError(begins_at + 1) from error
    _compare(connection, merge, writer)
    return lacking, last


def _compare(connection: Connection[Any], merge: Merge, writer: Writer) -> None:
    check_again(connection, merge.again, writer.position)
    # What was not written yet is compared later, if it comes to that.
    merge.again = [each for each in merge.again if each.event.position > writer.position]


def _recorded(connection: Connection[Any], position: int) -> Any:
    row = connection.execute(
        "SELECT recorded FROM ledger.events WHERE position = %s", (position,)
    ).fetchone()
    return row[0] if row else None


def _reasons(end: TopicEnd, merge: Merge, lacking: int, last: int) -> Iterator[str]:
    if merge.unknown_at is not None:
        yield (
            f"position {merge.unknown_at} in the topic is of generation {merge.generation},"
            " which the log does not know: the database is older than that"
        )
    if lacking:
        behind = range(last + 1, last + 1 + lacking)
        yield f"{_missing([behind])}, recorded together with {last}"
    if merge.missing:
        more = merge.missing_count - sum(map(len, merge.missing))
        yield _missing(merge.missing) + (f" and {more} more" if more else "")
    for partition in end.emptied:
        yield f"all that partition {partition} of the topic held has expired"


def _missing(ranges: Sequence[range]) -> str:
    spans = [str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}" for each in ranges]
    one = sum(map(len, ranges)) == 1
    return f"missing {'is position' if one else 'are positions'} {', '.join(spans)}"


@contextmanager
def _alone(connection: Connection[Any]) -> Iterator[None]:
    """Let one process at a time put back the tail; raises TailBusyError."""
    deadline = time.monotonic() + _WAIT_SECONDS_MAX
    while connection.execute(_TRY_LOCK).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise TailBusyError
        time.sleep(_WAIT_SECONDS)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_UNLOCK)
