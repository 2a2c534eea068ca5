"""Binary arrays: what PostgreSQL reads is what was packed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.store import arrays
from ledger.store.arrays import BinaryArray
from tests.support.database import DatabaseUrls


@pytest.fixture
def connection(database: DatabaseUrls) -> Iterator[Connection[Any]]:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection


def read_back(connection: Connection[Any], array: BinaryArray, kind: str) -> Any:
    row = connection.execute(f"SELECT %b::{kind}".encode(), (array,)).fetchone()
    assert row is not None
    return row[0]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
kept = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@kept
@given(items=st.lists(st.binary()))
def test_bytea(connection: Connection[Any], items: list[bytes]) -> None:
    assert read_back(connection, arrays.bytea_array(items), "bytea[]") == items


@kept
@given(items=st.lists(texts))
def test_text(connection: Connection[Any], items: list[str]) -> None:
    assert read_back(connection, arrays.text_array(items), "text[]") == items


@kept
@given(items=st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)))
def test_integer(connection: Connection[Any], items: list[int | None]) -> None:
    assert read_back(connection, arrays.int4_array(items), "integer[]") == items


@kept
@given(items=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_bigint(connection: Connection[Any], items: list[int | None]) -> None:
    assert read_back(connection, arrays.int8_array(items), "bigint[]") == items


def test_one_statement_takes_arrays_of_different_types(connection: Connection[Any]) -> None:
    row = connection.execute(
        "SELECT %b::text[], %b::bytea[], %b::integer[], %b::bigint[]",
        (
            arrays.text_array(["a"]),
            arrays.bytea_array([b"b"]),
            arrays.int4_array([1]),
            arrays.int8_array([2]),
        ),
        prepare=True,
    ).fetchone()
    assert row == (["a"], [b"b"], [1], [2])
