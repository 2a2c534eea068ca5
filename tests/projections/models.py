"""Read models of a history, in a database of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection

from ledger.events.catalogue import catalogue
from ledger.store import arrays
from projections.base import Projection
from projections.rebuild import rebuild
from projections.registry import all_projections
from projections.runner import Runner, RunnerLimits
from tests.projections.history import History, OpenUnsealer
from tests.support.database import DatabaseUrls


@dataclass
class Models:
    """A log and its read models; ``connection`` is the service's, in autocommit mode."""

    urls: DatabaseUrls
    connection: Connection[Any]
    projections: Sequence[Projection] = field(
        default_factory=lambda: all_projections(OpenUnsealer())
    )

    def connect(self) -> AbstractContextManager[Connection[Any]]:
        """Open one more connection, as the service."""
        return connected(self.urls.service_url)

    def runner(self, connection: Connection[Any] | None = None, batch: int = 2_000) -> Runner:
        """Return a runner that has taken over."""
        limits = RunnerLimits(batch_events_max=batch)
        runner = Runner(connection or self.connection, self.projections, catalogue(), limits)
        assert runner.start() == []
        return runner

    def project(self, history: History, *, batch: int = 2_000) -> Runner:
        """Append what is new of a history, and bring every read model up to date."""
        history.append(self.connection)
        runner = self.runner(batch=batch)
        runner.catch_up()
        assert runner.position == history.position
        return runner

    def rebuild(self, progress: Callable[[int], None] = lambda position: None) -> None:
        """Make every read model again."""
        rebuild(self.connect, self.projections, catalogue(), progress)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the live tables."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL search_path TO projections")
            return self.connection.execute(query.encode(), values).fetchall()

    def parked(self) -> list[tuple[Any, ...]]:
        """Return what is parked: projection, stream, position, code."""
        return self.rows("SELECT projection, stream, position, code FROM parked ORDER BY 1, 2")


@contextmanager
def connected(url: str) -> Iterator[Connection[Any]]:
    """Open a connection as consumers have them: autocommit, binary arrays known."""
    with psycopg.connect(url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection
