"""Filling the tables of projections in a schema of their own from the log, from its beginning."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from queue import SimpleQueue
from typing import Any, TypeVar

from psycopg import Connection, sql

from ledger.collecting import uncollected
from ledger.envelope import StoredRow
from ledger.events.catalogue import Catalogue
from projections import schema
from projections.applying import (
    Applier,
    Batch,
    Parked,
    Parking,
    Share,
    apply_at_once,
    apply_carefully,
    decoded,
    is_of_an_event,
    park_unreadable,
)
from projections.base import Projection, Table

BATCH_EVENTS = 10_000
# Connections that write, beside the one that reads.
LANES = 2

# Without statistics the planner takes a table that grows for a small one, and reads all of it for
# every batch. It reckons with the size by itself, once it has seen what the rows are like.
_ANALYSED_AFTER = frozenset({1, 4, 16, 64, 256, 1024})

# The rows as they come: a name for each column would cost as much again.
_READ = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position > %b AND position <= %b ORDER BY position LIMIT %b
"""

T = TypeVar("T")
Task = Callable[[Connection[Any]], T]

_log = logging.getLogger(__name__)


class Filling:
    """Fills the tables of one schema; streams are parked as the live runner parks them.

    ``connection`` reads the log. What the projections make of a batch is written on the ``lanes``,
    each projection in a transaction of its own on whichever is free, while the next batch is
    decoded. All connections are in autocommit mode and nobody else's. ``position`` is what is
    reached. Two batches at most are in memory.
    """

    def __init__(
        self,
        connection: Connection[Any],
        lanes: Sequence[Connection[Any]],
        projections: Sequence[Projection],
        catalogue: Catalogue,
        where: str,
    ) -> None:
        self.connection = connection
        self.projections = tuple(projections)
        self.position = 0
        self.parkings: list[Parking] = []
        self._catalogue = catalogue
        self._where = where
        self._applier = Applier(projections, catalogue)
        self._parked: Parked = {each.name: {} for each in projections}
        self._lanes = tuple(lanes)
        self._tables = [table for each in projections for table in each.tables]
        self._seconds: dict[str, float] = {}
        self._batches = 0

    def begin(self) -> None:
        """Make the tables afresh, with the keys that the folds rely on and no other index."""
        with self.connection.transaction():
            for projection in self.projections:
                schema.make_tables(self.connection, projection, self._where, indexed=False)

    def fill(self, upto: int, progress: Callable[[int], None]) -> None:
        """Apply all up to a position."""
        batch = self._read(self.position, upto)
        with self._workers() as workers:
            while batch is not None:
                shares = self._applier.shares(self.connection, batch)
                # What took longest last time begins first, so that the lanes end together.
                shares.sort(key=lambda share: self._seconds.get(share.projection.name, 0.0))
                tasks = [self._applying(share) for share in reversed(shares)]
                with uncollected(), workers.running(tasks) as parkings:
                    following = self._read(batch.reached, upto)
                self.parkings += chain.from_iterable(parkings)
                self.position = batch.reached
                progress(self.position)
                batch = following
                self._batches += 1
                if self._batches in _ANALYSED_AFTER:
                    workers.run([self._analysing(each) for each in self._tables])

    def index(self, *checks: Task[None]) -> None:
        """Make the indexes, and the statistics that readers' plans go by; run ``checks`` beside.

        Whatever a check raises is raised once all is done.
        """
        statements = [index for table in self._tables for index in table.indexes]
        with self._workers() as workers:
            workers.run([*checks, *(self._indexing(each) for each in statements)])
            workers.run([self._analysing(each) for each in self._tables])

    def apply_within(self, upto: int) -> None:
        """Apply all up to a position in the caller's transaction on ``connection``."""
        while (batch := self._read(self.position, upto)) is not None:
            schema.use(self.connection, self._where)
            for share in self._applier.shares(self.connection, batch):
                self.parkings += park_unreadable(share, self._parked)
                self.parkings += apply_carefully(self.connection, share, self._parked)
            self.position = batch.reached

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Forget what was reached inside the block, where it fails and is rolled back."""
        position, parkings = self.position, len(self.parkings)
        parked = {name: dict(streams) for name, streams in self._parked.items()}
        try:
            yield
        except BaseException:
            self.position, self._parked = position, parked
            del self.parkings[parkings:]
            raise

    def _read(self, after: int, upto: int) -> Batch | None:
        stored: list[StoredRow] = self.connection.execute(
            _READ, (after, upto, BATCH_EVENTS), prepare=True, binary=True
        ).fetchall()
        return decoded(self._catalogue, stored) if stored else None

    def _applying(self, share: Share) -> Task[list[Parking]]:
        def apply(connection: Connection[Any]) -> list[Parking]:
            began = time.perf_counter()
            parkings = park_unreadable(share, self._parked)
            try:
                with connection.transaction():
                    schema.use(connection, self._where)
                    apply_at_once(connection, share, self._parked)
            except Exception as error:
                if not is_of_an_event(error):
                    raise
                # It comes again, named, event by event.
                _log.warning("%s could not apply a batch at once", share.projection.name)
                with connection.transaction():
                    schema.use(connection, self._where)
                    parkings += apply_carefully(connection, share, self._parked)
            self._seconds[share.projection.name] = time.perf_counter() - began
            return parkings

        return apply

    def _indexing(self, statement: str) -> Task[None]:
        def make(connection: Connection[Any]) -> None:
            with connection.transaction():
                schema.use(connection, self._where)
                connection.execute(statement.encode())

        return make

    def _analysing(self, table: Table) -> Task[None]:
        def analyse(connection: Connection[Any]) -> None:
            name = sql.Identifier(self._where, table.name)
            connection.execute(sql.SQL("ANALYZE {}").format(name))

        return analyse

    @contextmanager
    def _workers(self) -> Iterator[_Workers]:
        with ThreadPoolExecutor(len(self._lanes), "guishu-filling") as pool:
            yield _Workers(pool, self._lanes)


class _Workers:
    """Runs tasks, each on a connection that is free."""

    def __init__(self, pool: ThreadPoolExecutor, lanes: Iterable[Connection[Any]]) -> None:
        self._pool = pool
        self._free: SimpleQueue[Connection[Any]] = SimpleQueue()
        for lane in lanes:
            self._free.put(lane)

    def run(self, tasks: Sequence[Task[T]]) -> None:
        """Run tasks to their end; raises what the first of them raised."""
        with self.running(tasks):
            pass

    @contextmanager
    def running(self, tasks: Sequence[Task[T]]) -> Iterator[list[T]]:
        """Run tasks beside the block; their results are there once it is left.

        Every task has ended then. Raises what the first of them raised.
        """
        results: list[T] = []
        futures = [self._pool.submit(self._run, task) for task in tasks]
        try:
            yield results
        finally:
            wait(futures)
        results += [each.result() for each in futures]

    def _run(self, task: Task[T]) -> T:
        connection = self._free.get()
        try:
            return task(connection)
        finally:
            self._free.put(connection)
