"""A connection that is given up where the server says nothing.

A route that drops packets is noticed by TCP (``api.database.service_conninfo``). Not so a server
that was stopped, or one behind a proxy that answers for it: there a statement would wait for ever.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar, cast

import psycopg
from psycopg import Connection
from psycopg.abc import RV, PQGen
from psycopg.rows import TupleRow

Row = TypeVar("Row")


class ImpatientConnection(Connection[Row]):
    """Ends itself, and raises OperationalError, when the server has been silent for so long."""

    silence_seconds_max: float | None = None

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        """Wait as psycopg does for whatever this connection asks, as long as there are answers."""
        if self.silence_seconds_max is None:
            return super().wait(gen, *args, **options)
        return super().wait(self._heard(gen, self.silence_seconds_max), *args, **options)

    def _heard(self, gen: PQGen[RV], seconds: float) -> PQGen[RV]:
        try:
            wanted = next(gen)
            heard_at = time.monotonic()
            while True:
                ready = yield wanted
                # From time to time psycopg says that nothing has come.
                if ready:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > seconds:
                    self.close()
                    raise psycopg.OperationalError(
                        f"the database has said nothing for {seconds:g} seconds"
                    )
                wanted = gen.send(ready)
        except StopIteration as end:
            return cast("RV", end.value)


def connect_impatient(
    conninfo: str, silence_seconds_max: float | None, **options: Any
) -> ImpatientConnection[TupleRow]:
    """Connect as ``psycopg.connect``, and wait for no answer longer than that; None: for ever."""
    connection = ImpatientConnection.connect(conninfo, **options)
    connection.silence_seconds_max = silence_seconds_max
    return connection
