"""Columns as binary arrays: what the server makes of them is what went in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from ledger.store import arrays
from ledger.store.arrays import BinaryArray
from projections.columns import instants, repeated, texts
from tests.support.database import DatabaseUrls

_SAME = datetime(2026, 3, 1, 8, 30, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize("pack", [texts, repeated])
@pytest.mark.parametrize("items", [[], [None], ["", "张三", ""], [None, "a", None, "a", "b"]])
def test_texts_come_through(
    database: DatabaseUrls,
    pack: Callable[[Sequence[str | None]], BinaryArray],
    items: list[str | None],
) -> None:
    assert _through(database, "text", pack(items)) == items


@pytest.mark.parametrize(
    "items",
    [
        [],
        [None, None],
        [None, _SAME, _SAME, None, _SAME],
        [datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)],
        [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)],
        [datetime(2026, 3, 1, 16, 30, tzinfo=timezone(timedelta(hours=8)))],
    ],
)
def test_instants_come_through(database: DatabaseUrls, items: list[datetime | None]) -> None:
    assert _through(database, "timestamptz", instants(items)) == items


def _through(database: DatabaseUrls, type_name: str, packed: BinaryArray) -> list[Any]:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        arrays.register(connection)
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(f"SELECT unnest(%b::{type_name}[])", (packed,), binary=True)
        return [value for (value,) in rows]
