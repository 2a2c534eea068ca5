"""What projections share when they write a batch: rows as one parameter, keys loaded at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from psycopg import Connection

from ledger.store.arrays import BinaryArray
from projections.base import Unsealer


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as the one parameter that ``jsonb_to_recordset`` takes apart.

    Decimals must be text already; times and days are written as ISO 8601.
    """
    return orjson.dumps(rows).decode()


def load_keys(unsealer: Unsealer, key_ids: Iterable[str]) -> None:
    """Load the keys of a batch in one go, where the unsealer can."""
    prefetch = getattr(unsealer, "prefetch", None)
    if prefetch is not None:
        prefetch(key_ids)


def write(connection: Connection[Any], statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute a statement whose one parameter is the rows of a batch; nothing where none are."""
    if rows:
        connection.execute(statement.encode(), (as_json(rows),))


Packer = Callable[[Sequence[Any]], BinaryArray]


def put_rows(
    connection: Connection[Any],
    statement: str,
    packers: Sequence[Packer],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Execute a statement whose parameters are the columns of rows; nothing where none are.

    The statement has a ``%b`` for each column, and takes them apart by ``unnest``. Unlike COPY it
    can be sent in a pipeline, and costs the server hardly more.
    """
    if rows:
        columns = zip(*rows, strict=True)
        packed = [pack(column) for pack, column in zip(packers, columns, strict=True)]
        connection.execute(statement.encode(), packed, binary=True)
