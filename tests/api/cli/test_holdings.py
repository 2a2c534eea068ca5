"""What somebody holds or held, on the command line."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import BOSS, Shell, adopt
from tests.support.database import DatabaseUrls

CUSTOMERS = ("苏州恒信电子有限公司", "无锡明德机械有限公司", "常州远航物流有限公司")


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    adopt(shell, folder, "protection_days = 0", "approval_rules = []")
    shell("territories", "define", "华东", *BOSS)
    for person in ("张伟", "李娜"):
        shell("people", "add", person, "--territory", "华东", *BOSS)
    for customer in CUSTOMERS:
        shell("register", customer, "--territory", "华东", "--claim", "--as", "张伟")
    shell("release", CUSTOMERS[0], "--reason-code", "no_budget", "--as", "张伟")
    shell("assign", CUSTOMERS[0], "李娜", *BOSS)
    shell("transfer", CUSTOMERS[1], "李娜", "--as", "张伟")


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """One who claimed three customers, gave one back, and transferred another."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def test_what_they_hold_and_all_that_they_held(shell: Shell) -> None:
    holds = shell("people", "holdings", "张伟").out
    assert CUSTOMERS[2] in holds
    assert CUSTOMERS[0] not in holds
    held = shell("people", "holdings", "张伟", "--history").out
    assert all(each in held for each in CUSTOMERS)
    assert "released (no budget)" in held
    assert "transferred to 李娜" in held
    theirs = shell("people", "holdings", "李娜", "--ids").out
    assert "assigned by 陈建国" in theirs
    assert "cus_" in theirs
    first = shell("people", "holdings", "张伟", "--history", "--limit", "2")
    before = first.err.split("--before ")[1].strip()
    (oldest,) = shell.json("people", "holdings", "张伟", "--history", "--before", before)
    assert oldest["ended_by"] == "released"
    assert shell.json("people", "holdings", "张伟", "--as-of", "2020-01-01") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("谁",), "There is no person 谁"),
        (("张伟", "--before", "1"), "nothing of theirs began at position 1"),
        (("张伟", "--as-of", "2999-01-01"), "the moment lies in the future"),
        (("张伟", "--as-of", "then"), "is no date or time"),
    ],
)
def test_what_cannot_be_answered(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    assert words in shell("people", "holdings", *arguments, status=1).err


def test_a_read_model_of_an_older_version_is_to_be_made_again(
    shell: Shell, database: DatabaseUrls
) -> None:
    """A column that was not there yet ended the command with a traceback."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE projections.ownership_intervals DROP COLUMN next_owner")
        connection.execute("UPDATE projections.tracking SET version = 1 WHERE name = 'intervals'")
    said = shell("people", "holdings", "张伟", status=1)
    assert "read_models_outdated: " in said.err
    assert "intervals is of version 1" in shell("doctor", status=4).out
    shell("rebuild")
    assert CUSTOMERS[2] in shell("people", "holdings", "张伟").out
