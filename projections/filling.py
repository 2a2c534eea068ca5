"""Filling the tables of projections in a schema of their own from the log, from its beginning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, sql

from ledger.events.catalogue import Catalogue
from ledger.store.reading import read_after
from projections import schema
from projections.applying import Applier, Batch, Parked, Parking, decoded
from projections.base import Projection

BATCH_EVENTS = 5_000

_log = logging.getLogger(__name__)

_READ = """
SELECT position, recorded, stream, version, name, body, causation, ordinal
FROM ledger.events WHERE position > %b AND position <= %b ORDER BY position LIMIT %b
"""


class Filling:
    """Fills the tables of one schema; streams are parked as the live runner parks them.

    ``connection`` is in autocommit mode and nobody else's; ``position`` is what is reached.
    """

    def __init__(
        self,
        connection: Connection[Any],
        projections: Sequence[Projection],
        catalogue: Catalogue,
        where: str,
        batch_events: int = BATCH_EVENTS,
    ) -> None:
        self.connection = connection
        self.projections = tuple(projections)
        self.position = 0
        self.parkings: list[Parking] = []
        self._catalogue = catalogue
        self._where = where
        self._batch_events = batch_events
        self._applier = Applier(projections, catalogue)
        self._parked: Parked = {}

    def begin(self) -> None:
        """Make the tables afresh, with the keys that the folds rely on and no other index."""
        with self.connection.transaction():
            for projection in self.projections:
                schema.make_tables(self.connection, projection, self._where, indexed=False)

    def index(self) -> None:
        """Make the indexes, and the statistics that readers' plans go by."""
        for projection in self.projections:
            with self.connection.transaction():
                schema.make_indexes(self.connection, projection, self._where)
        for projection in self.projections:
            for table in projection.tables:
                name = sql.Identifier(self._where, table.name)
                self.connection.execute(sql.SQL("ANALYZE {}").format(name))

    def fill(self, upto: int, progress: Callable[[int], None]) -> None:
        """Apply all up to a position, a transaction a batch."""
        batch = self._read(upto)
        while batch is not None:
            try:
                following = self._apply_at_once(batch, upto)
            except psycopg.OperationalError:
                raise
            except Exception:  # it comes again, named, where the batch is applied carefully
                _log.warning("a batch behind %d could not be applied at once", self.position)
                with self.connection.transaction():
                    self._apply_carefully(batch)
                following = self._read(upto)
            progress(self.position)
            batch = following

    def apply_within(self, upto: int) -> None:
        """Apply all up to a position in the caller's transaction."""
        while (batch := self._read(upto)) is not None:
            self._apply_carefully(batch)

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

    def _read(self, upto: int) -> Batch | None:
        stored = read_after(self.connection, self.position, self._batch_events, upto)
        return decoded(self._catalogue, stored) if stored else None

    def _apply_at_once(self, batch: Batch, upto: int) -> Batch | None:
        """Apply a batch and return the next one, read and decoded while the server writes."""
        connection = self.connection
        with self.undone_on_error():
            with connection.pipeline(), connection.transaction():
                schema.use(connection, self._where)
                ahead = connection.execute(
                    _READ, (batch.reached, upto, self._batch_events), prepare=True, binary=True
                )
                # Else its last rows would wait in the server for the end of the batch.
                connection.pgconn.send_flush_request()
                parkings = self._applier.apply(connection, batch, self._parked)
                stored = ahead.fetchall()
                following = decoded(self._catalogue, stored) if stored else None
            self.parkings += parkings
            self.position = batch.reached
        return following

    def _apply_carefully(self, batch: Batch) -> None:
        schema.use(self.connection, self._where)
        self.parkings += self._applier.apply_carefully(self.connection, batch, self._parked)
        self.position = batch.reached
