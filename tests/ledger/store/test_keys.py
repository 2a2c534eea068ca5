"""The tables of keys: what the service may do there, and what they refuse to hold."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.support.database import DatabaseUrls

INSERT_KEY = "INSERT INTO keys.subject_keys VALUES (%s, %s, %s, 'm')"
INSERT_CHECK = "INSERT INTO keys.master_check (master, wrapped) VALUES ('m', '\\x00')"


def test_the_service_inserts_selects_and_destroys_keys(database: DatabaseUrls) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        connection.execute(INSERT_KEY, ("key_1", "cus_1", bytes(60)))
        row = connection.execute("SELECT key_id, made_at FROM keys.subject_keys").fetchone()
        assert row is not None
        assert row[0] == "key_1"
        assert row[1].tzinfo is not None
        assert connection.execute("DELETE FROM keys.subject_keys").rowcount == 1
        # The subject may have a key again, another one.
        connection.execute(INSERT_KEY, ("key_2", "cus_1", bytes(60)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys.subject_keys SET wrapped = wrapped",
        "TRUNCATE keys.subject_keys",
        "DROP TABLE keys.subject_keys",
        "UPDATE keys.master_check SET master = 'x'",
        "DELETE FROM keys.master_check",
        "TRUNCATE keys.master_check",
        "CREATE TABLE keys.more ()",
    ],
)
def test_the_service_may_do_nothing_else(database: DatabaseUrls, statement: str) -> None:
    with (
        psycopg.connect(database.service_url, autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_a_subject_has_one_key(database: DatabaseUrls) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        connection.execute(INSERT_KEY, ("key_1", "cus_1", bytes(60)))
        with pytest.raises(errors.UniqueViolation):
            connection.execute(INSERT_KEY, ("key_2", "cus_1", bytes(60)))
        with pytest.raises(errors.UniqueViolation):
            connection.execute(INSERT_KEY, ("key_1", "cus_2", bytes(60)))


def test_a_cut_off_key_is_refused(database: DatabaseUrls) -> None:
    with (
        psycopg.connect(database.service_url, autocommit=True) as connection,
        pytest.raises(errors.CheckViolation),
    ):
        connection.execute(INSERT_KEY, ("key_1", "cus_1", bytes(59)))


def test_there_is_one_master_key(database: DatabaseUrls) -> None:
    with psycopg.connect(database.service_url, autocommit=True) as connection:
        connection.execute(INSERT_CHECK.encode())
        with pytest.raises(errors.UniqueViolation):
            connection.execute(INSERT_CHECK.encode())
        with pytest.raises(errors.CheckViolation):
            connection.execute(
                "INSERT INTO keys.master_check (only_one, master, wrapped)"
                " VALUES (false, 'm', '\\x00')"
            )
