"""Making read models again: fresh tables beside the live ones, filled from the log, then swapped.

Readers and the live runner go on meanwhile. The swap takes each table's lock for a moment only,
with a time-out and retries, because behind one open reader it would queue every new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from psycopg import Connection, errors, sql

from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.store.arrays import text_array
from ledger.store.reading import head
from projections import comparing, schema
from projections.base import CHECK, FRESH, LIVE, Projection, Table
from projections.comparing import Difference, digests
from projections.filling import LANES, Filling, Task
from projections.intervals import Intervals, check_no_overlap
from projections.runner import positions

__all__ = ["Difference", "RebuildRunningError", "SwapError", "compare", "digests", "rebuild"]

# What may be left to apply inside the swap, while the live runner waits.
DELTA_EVENTS_MAX = 2_000
SWAP_TRIES_MAX = 100
# For the live runner's batch the swap may wait; behind its wait for a table all readers queue.
_RUNNER_LOCK_TIMEOUT = "5s"
_TABLE_LOCK_TIMEOUT = "200ms"
_SWAP_PAUSE_SECONDS = 0.2

Connect = Callable[[], AbstractContextManager[Connection[Any]]]
Progress = Callable[[int], None]

_ONE_AT_A_TIME = "SELECT pg_try_advisory_lock(hashtext(%s))"
_OVER = "SELECT pg_advisory_unlock(hashtext(%s))"
_SWAP_SETTINGS = """
SELECT set_config('lock_timeout', %s, true), set_config('synchronous_commit', 'on', true)
"""
_LOCK_TRACKING = "SELECT name FROM projections.tracking ORDER BY name FOR UPDATE"
# Every epoch rises: a runner that leaves an outdated projection alone must start anew, too.
_FENCE = "UPDATE projections.tracking SET epoch = epoch + 1"
_TRACK = "UPDATE projections.tracking SET position = %s, version = %s WHERE name = %s"
_UNPARK = "DELETE FROM projections.parked WHERE projection = ANY(%b)"
_PARK = """
INSERT INTO projections.parked (projection, stream, position, code, words)
VALUES (%s, %s, %s, %s, %s)
"""


class RebuildRunningError(LedgerError):
    """Another process makes the read models again at this moment."""

    code = "rebuild_running"

    def __init__(self) -> None:
        super().__init__(
            "Another process is making the read models again.",
            way_out="Wait until it is done.",
        )


class SwapError(LedgerError):
    """The fresh tables could not take the place of the live ones: somebody kept these locked."""

    code = "swap_blocked"

    def __init__(self) -> None:
        super().__init__(
            "The fresh read models could not be swapped in: somebody keeps the live ones locked.",
            way_out="Find the long reader (guishu doctor), and rebuild again.",
        )


def rebuild(
    connect: Connect,
    projections: Sequence[Projection],
    catalogue: Catalogue,
    progress: Progress = lambda position: None,
) -> None:
    """Make read models again and swap them in; heals parked streams and new versions.

    ``connect`` gives a connection of its own in autocommit mode; ``progress`` is told each
    position reached. A live runner is fenced by a new epoch and, started anew, goes on with the
    fresh tables. Raises RebuildRunningError, SwapError and OverlapError: then nothing changed.
    """
    with connect() as connection, _lanes(connect) as lanes:
        schema.prepare(connection, projections)
        with _alone(connection, "guishu rebuild"):
            _relax(connection)
            filling = Filling(connection, lanes, projections, catalogue, FRESH)
            filling.begin()
            filling.fill(head(connection), progress)
            filling.index(*_checks(projections, FRESH))
            _swap(filling, progress)


@contextmanager
def _lanes(connect: Connect) -> Iterator[list[Connection[Any]]]:
    """Open the connections that write beside each other."""
    with ExitStack() as stack:
        lanes = [stack.enter_context(connect()) for _ in range(LANES)]
        for lane in lanes:
            _relax(lane)
        yield lanes


@contextmanager
def _alone(connection: Connection[Any], name: str) -> Iterator[None]:
    """Let nobody else do the same meanwhile; raises RebuildRunningError."""
    if connection.execute(_ONE_AT_A_TIME, (name,)).fetchone() != (True,):
        raise RebuildRunningError
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_OVER, (name,))


def _relax(connection: Connection[Any]) -> None:
    """Let a rebuild take its time, and not wait for the disk: a crash only begins it anew."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'off', false),"
        " set_config('statement_timeout', '0', false),"
        " set_config('maintenance_work_mem', '128MB', false)"
    )
    schema.plan_for_batches(connection)


def _checks(projections: Sequence[Projection], where: str) -> list[Task[None]]:
    """Return what must hold of the whole history, over and above what the folds make sure of."""
    if not any(isinstance(each, Intervals) for each in projections):
        return []
    return [lambda connection: check_no_overlap(connection, where)]


def _swap(filling: Filling, progress: Progress) -> None:
    """Apply what came meanwhile and swap; again, where a reader keeps a table too long."""
    for _ in range(SWAP_TRIES_MAX):
        while head(filling.connection) - filling.position > DELTA_EVENTS_MAX:
            filling.fill(head(filling.connection), progress)
        try:
            _try_swap(filling)
        except errors.LockNotAvailable:
            time.sleep(_SWAP_PAUSE_SECONDS)
        else:
            progress(filling.position)
            return
    raise SwapError


def _try_swap(filling: Filling) -> None:
    connection, projections = filling.connection, filling.projections
    names = text_array(sorted(each.name for each in projections))
    with filling.undone_on_error(), connection.transaction():
        connection.execute(_SWAP_SETTINGS, (_RUNNER_LOCK_TIMEOUT,))
        # From here on the live runner waits: nothing can be projected past the delta.
        connection.execute(_LOCK_TRACKING)
        filling.apply_within(head(connection))
        connection.execute(_SWAP_SETTINGS, (_TABLE_LOCK_TIMEOUT,))
        for projection in projections:
            for table in projection.tables:
                _take_place(connection, table)
            connection.execute(_TRACK, (filling.position, projection.version, projection.name))
        connection.execute(_FENCE)
        connection.execute(_UNPARK, (names,), binary=True)
        for parking in filling.parkings:
            connection.execute(_PARK, parking)


def _take_place(connection: Connection[Any], table: Table) -> None:
    live, fresh = sql.Identifier(LIVE, table.name), sql.Identifier(FRESH, table.name)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(live))
    connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(fresh, sql.Identifier(LIVE)))


def compare(
    connect: Connect,
    projections: Sequence[Projection],
    catalogue: Catalogue,
    progress: Progress = lambda position: None,
) -> list[Difference]:
    """Fill a copy of every read model from the log aside, and return the tables that differ.

    The live runner goes on: what is compared are the live tables as they are at one moment, each
    projection at its own position then. One of another version has no table to compare with and
    counts as a difference. Raises RebuildRunningError and OverlapError.
    """
    with connect() as live, connect() as aside, _lanes(connect) as lanes:
        outdated = schema.prepare(aside, projections)
        differences = [
            Difference(table.name, comparing.count(live, LIVE, table), 0, "another version")
            for projection in outdated
            for table in projection.tables
        ]
        current = [each for each in projections if each not in outdated]
        with _alone(aside, "guishu rebuild aside"):
            _relax(aside)
            try:
                fillings = rebuild_aside(aside, lanes, current, catalogue, progress)
                differences += _differences(live, fillings, progress)
            finally:
                for projection in current:
                    schema.drop_tables(aside, projection, CHECK)
    return differences


def rebuild_aside(
    connection: Connection[Any],
    lanes: Sequence[Connection[Any]],
    projections: Sequence[Projection],
    catalogue: Catalogue,
    progress: Progress = lambda position: None,
) -> list[Filling]:
    """Fill the tables in the schema ``projections_check``, each up to where the live ones stand.

    Projections that stand apart from the others are filled apart. The connections are as Filling
    has them. Raises OverlapError.
    """
    reached = positions(connection)
    standing: dict[int, list[Projection]] = {}
    for projection in projections:
        standing.setdefault(reached.get(projection.name, 0), []).append(projection)
    fillings = []
    for upto, group in sorted(standing.items()):
        filling = Filling(connection, lanes, group, catalogue, CHECK)
        filling.begin()
        filling.fill(upto, progress)
        for check in _checks(group, CHECK):
            check(connection)
        fillings.append(filling)
    return fillings


def _differences(
    live: Connection[Any], fillings: Sequence[Filling], progress: Progress
) -> list[Difference]:
    """Compare with the live tables as one snapshot shows them, and where they stand in it."""
    differences: list[Difference] = []
    # Most of what came meanwhile is moved on before the snapshot opens, so that it stays short;
    # and what is left must not count as an idle transaction.
    _move_on(live, fillings, progress)
    live.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        live.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        _move_on(live, fillings, progress)
        for filling in fillings:
            for projection in filling.projections:
                for table in projection.tables:
                    found = comparing.compare_table(live, LIVE, filling.connection, CHECK, table)
                    if found is not None:
                        differences.append(found)
    finally:
        live.execute("ROLLBACK")
    return differences


def _move_on(live: Connection[Any], fillings: Sequence[Filling], progress: Progress) -> None:
    """Fill each up to where the live tables stand; those that stood together moved together."""
    reached = positions(live)
    for filling in fillings:
        filling.fill(min(reached[each.name] for each in filling.projections), progress)
