"""A statement that the server runs while this process does something else.

Not psycopg's pipeline: that sends a Flush behind its last Sync, which takes PostgreSQL's time-out
of idle transactions away, and a process that is stopped would keep its locks for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, sql
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many, send
from psycopg.pq import ExecStatus, Format

from ledger.store.arrays import BinaryArray


@contextmanager
def running(
    connection: Connection[Any], statement: sql.Composed, values: Sequence[BinaryArray]
) -> Iterator[None]:
    """Run a statement (with $1 and so on) beside the block, and wait for its end behind it.

    It is planned anew each time, for with a rollback psycopg has all that was prepared forgotten.
    The block must leave the connection alone. Raises what the database refuses; where the block
    fails as well, its error is the one that counts, and the connection is free all the same. Where
    the connection is lost, that is raised in any case.
    """
    pgconn = connection.pgconn
    pgconn.send_query_params(
        statement.as_bytes(connection),
        [value.data for value in values],
        [value.oid for value in values],
        [Format.BINARY] * len(values),
    )
    connection.wait(send(pgconn))
    try:
        yield
    finally:
        results = connection.wait(fetch_many(pgconn))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, connection.info.encoding)
