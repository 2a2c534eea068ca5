"""Comparing the tables of two schemas: digests, and the first row that differs.

Rows are streamed in a defined order, so that a table of any size is compared in constant memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from psycopg import Connection, sql

from projections.base import Projection, Table

_COLUMNS = """
SELECT a.attname FROM pg_attribute a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname
"""
# The columns of the primary key, else of a unique index without a condition.
_KEY = """
SELECT array_agg(a.attname ORDER BY k.place)
FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(number, place), pg_attribute a
WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
    AND a.attrelid = i.indrelid AND a.attnum = k.number
GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1
"""
# Text that does not depend on how a session is set. And where two tables are read side by side, one
# has to wait until the other is sorted: its connection is not to count as lost meanwhile.
_PLAINLY = """
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),
       set_config('IntervalStyle', 'iso_8601', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true), set_config('tcp_user_timeout', '0', true)
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A table of a read model that is not what the log makes of it.

    ``key`` names the first row that differs, is missing or should not be there.
    """

    table: str
    live_rows: int
    expected_rows: int
    key: str


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a table is written out: its columns, those of its key first."""

    key: Sequence[str]
    columns: Sequence[str]


def digests(
    connection: Connection[Any], projections: Sequence[Projection], where: str
) -> dict[str, str]:
    """Return the SHA-256, in hex, of every table's rows in a defined order.

    Columns that may differ between a rebuild and the live table are left out.
    """
    found = {}
    for projection in projections:
        for table in projection.tables:
            shape = _shape(connection, where, table)
            digest = hashlib.sha256()
            with connection.transaction():
                connection.execute(_PLAINLY)
                for line in _lines(connection, where, table, shape):
                    digest.update(line)
            found[table.name] = digest.hexdigest()
    return found


def count(connection: Connection[Any], where: str, table: Table) -> int:
    """Return how many rows a table has."""
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(where, table.name))
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def compare_table(
    live: Connection[Any], live_schema: str, other: Connection[Any], other_schema: str, table: Table
) -> Difference | None:
    """Return how a live table differs from its expected copy, None where it does not.

    The two connections are different ones: both tables are read side by side.
    """
    shape = _shape(live, live_schema, table)
    if set(shape.columns) != set(_shape(other, other_schema, table).columns):
        columns = ", ".join(sorted(shape.columns))
        return Difference(
            table.name, count(live, live_schema, table), 0, f"it has other columns: {columns}"
        )
    first: tuple[bytes, bytes] | None = None
    rows, expected_rows = 0, 0
    with live.transaction(), other.transaction():
        for connection in (live, other):
            connection.execute(_PLAINLY)
        pairs = zip_longest(
            _lines(live, live_schema, table, shape),
            _lines(other, other_schema, table, shape),
            fillvalue=b"",
        )
        for mine, theirs in pairs:
            rows += mine != b""
            expected_rows += theirs != b""
            if first is None and mine != theirs:
                first = mine, theirs
    if first is None:
        return None
    key = _first_key(live, live_schema, table, shape, *first)
    return Difference(table.name, rows, expected_rows, key)


def _shape(connection: Connection[Any], where: str, table: Table) -> _Shape:
    name = sql.Identifier(where, table.name).as_string(connection)
    compared = [
        column
        for (column,) in connection.execute(_COLUMNS, (name,))
        if column not in table.digest_without
    ]
    row = connection.execute(_KEY, (name,)).fetchone()
    key = row[0] if row and not set(row[0]) & table.digest_without else compared
    return _Shape(key, [*key, *(each for each in compared if each not in key)])


def _lines(connection: Connection[Any], where: str, table: Table, shape: _Shape) -> Iterator[bytes]:
    """Yield a table's rows as COPY writes them, in order of the key."""
    statement = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, shape.columns)),
        sql.Identifier(where, table.name),
        sql.SQL(", ").join(map(sql.Identifier, shape.key)),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for line in copy:
            yield bytes(line)


def _first_key(
    live: Connection[Any], where: str, table: Table, shape: _Shape, mine: bytes, theirs: bytes
) -> str:
    """Name the row that one side has and the other has not, or has otherwise."""
    values = [line.rstrip(b"\n").split(b"\t")[: len(shape.key)] for line in (mine, theirs)]
    if not theirs or values[0] == values[1]:
        return _named(shape, values[0])
    if not mine:
        return _named(shape, values[1])
    # Whichever key comes first in the order is the one that the other side lacks.
    columns = sql.SQL(", ").join(map(sql.Identifier, shape.key))
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE ({}) = ({}))").format(
        sql.Identifier(where, table.name),
        columns,
        sql.SQL(", ").join(sql.Literal(_plain(value)) for value in values[1]),
    )
    row = live.execute(statement).fetchone()
    return _named(shape, values[0] if row == (True,) else values[1])


def _named(shape: _Shape, values: Sequence[bytes]) -> str:
    pairs = zip(shape.key, values, strict=False)
    return ", ".join(f"{column} {_plain(value)}" for column, value in pairs)


def _plain(value: bytes) -> str | None:
    return None if value == b"\\N" else value.decode()
