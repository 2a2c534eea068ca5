"""Making the tables of projections, and where each projection stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection, sql

from projections.base import CHECK, LIVE, Projection

_TRACKING = """
CREATE TABLE IF NOT EXISTS projections.tracking (
    name     text    NOT NULL PRIMARY KEY,
    version  integer NOT NULL,
    position bigint  NOT NULL DEFAULT 0,
    epoch    bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50)
"""
# A stream that a projection could not apply waits here with the reason, from a position on.
_PARKED = """
CREATE TABLE IF NOT EXISTS projections.parked (
    projection text NOT NULL,
    stream     text NOT NULL,
    position   bigint NOT NULL,
    code       text NOT NULL,
    words      text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, stream)
)
"""
ROWS_DO_NOT_FIT = "GS003"
# A statement that must meet a number of rows says so in itself, and costs no round trip to ask.
_REQUIRE_ROWS = """
CREATE FUNCTION projections.require_rows(met bigint, expected bigint) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF met <> expected THEN
        RAISE EXCEPTION 'met % rows of %: the read model does not fit the log', met, expected
            USING ERRCODE = 'GS003';
    END IF;
END $$
"""
HANDFUL_EVENTS = 50
_USE = "SELECT set_config('search_path', %s, true)"
_USE_AND_KEEP_PLANS = """
SELECT set_config('search_path', %s, true), set_config('enable_seqscan', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true)
"""
# The first service process of a database makes the tables; a second one waits for it.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('guishu projections'))"


def use(connection: Connection[Any], schema: str, *, events: int | None = None) -> None:
    """Let the names of tables mean those of ``schema``, for this transaction.

    ``events`` says that so many are to be applied. For a handful planning takes longer than
    running: then plans are kept, made so that they stay right however the tables grow.
    """
    handful = events is not None and events <= HANDFUL_EVENTS
    connection.execute(
        _USE_AND_KEEP_PLANS if handful else _USE,
        (f'"{schema}", pg_catalog',),
        prepare=True,
    )


def plan_for_batches(connection: Connection[Any]) -> None:
    """Have every statement of this session planned for a batch and for the tables as they are.

    A plan that was made while the tables were small would scan them for ever. And a look down an
    index costs a few microseconds here, since its pages are in memory: as the planner counts by
    itself it would rather read the whole of a table than look up the rows of a batch.
    """
    connection.execute(
        "SELECT set_config('plan_cache_mode', 'force_custom_plan', false),"
        " set_config('random_page_cost', '0.2', false), set_config('jit', 'off', false)"
    )


def prepare(connection: Connection[Any], projections: Iterable[Projection]) -> list[Projection]:
    """Make what is missing; return the projections whose tables are of another version.

    New ones begin at position 0. The connection is in autocommit mode.
    """
    outdated = []
    with connection.transaction():
        connection.execute(_LOCK)
        connection.execute(_TRACKING)
        connection.execute(_PARKED)
        known = connection.execute(
            "SELECT to_regprocedure('projections.require_rows(bigint, bigint)') IS NOT NULL"
        ).fetchone()
        if known != (True,):
            connection.execute(_REQUIRE_ROWS)
        for projection in projections:
            row = connection.execute(
                "SELECT version FROM projections.tracking WHERE name = %s", (projection.name,)
            ).fetchone()
            if row is None:
                make_tables(connection, projection, LIVE, indexed=True)
                connection.execute(
                    "INSERT INTO projections.tracking (name, version) VALUES (%s, %s)",
                    (projection.name, projection.version),
                )
            elif row[0] != projection.version:
                outdated.append(projection)
    return outdated


def make_tables(
    connection: Connection[Any], projection: Projection, schema: str, *, indexed: bool
) -> None:
    """Make a projection's tables afresh in ``schema``, dropping what is there.

    What is made only to be compared need not survive a crash, and is not written to the WAL.
    """
    use(connection, schema)
    create = "CREATE UNLOGGED TABLE {} ({})" if schema == CHECK else "CREATE TABLE {} ({})"
    for table in projection.tables:
        connection.execute(
            sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(sql.Identifier(schema, table.name))
        )
        connection.execute(
            sql.SQL(create).format(
                sql.Identifier(schema, table.name),
                sql.SQL(table.columns),
            )
        )
        for key in table.keys:
            connection.execute(key)
    if indexed:
        make_indexes(connection, projection, schema)


def make_indexes(connection: Connection[Any], projection: Projection, schema: str) -> None:
    """Make the indexes of a projection's tables in ``schema``."""
    use(connection, schema)
    for table in projection.tables:
        for index in table.indexes:
            connection.execute(index)


def drop_tables(connection: Connection[Any], projection: Projection, schema: str) -> None:
    """Drop a projection's tables in ``schema``."""
    for table in projection.tables:
        connection.execute(
            sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(sql.Identifier(schema, table.name))
        )
