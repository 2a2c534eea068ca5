"""Orphaned customers on the command line: in whose care they are, and who stands in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import BOSS, Shell, staff
from tests.support.database import DatabaseUrls

CUSTOMERS = ("苏州恒信电子有限公司", "无锡明德机械有限公司")
TODAY = (datetime.now(UTC) + timedelta(hours=8)).date()
NEXT_WEEK = (TODAY + timedelta(days=7)).isoformat()


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    staff(shell, "华东", "林晓燕", "张伟", "李娜", "王芳")
    for customer in CUSTOMERS:
        shell("register", customer, "--territory", "华东", "--claim", "--as", "张伟")
    shell("people", "left", "张伟", TODAY.isoformat(), *BOSS)


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """A head, two reps, and one who has left with two customers."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def test_they_are_listed_to_the_head_who_names_a_stand_in(shell: Shell) -> None:
    listed = shell("orphans").out
    assert all(each in listed for each in (*CUSTOMERS, "张伟", "林晓燕", TODAY.isoformat()))
    rows = shell.json("orphans", "--as", "林晓燕")
    assert [len(each["looked_after_by"]) for each in rows] == [1, 1]
    assert shell.json("orphans", "--as", "李娜") == []
    assert shell.json("orphans", "--owner", "李娜", "--territory", "华东") == []
    assert "there may be more: --after" in shell("orphans", "--limit", "1", "--ids").err
    assert "orphaned, and in your care: 2" in shell("inbox", "--as", "林晓燕").err
    assert shell("inbox", "--as", "李娜").err == ""
    assert [each["orphaned"] for each in shell.json("territories")] == [2]

    said = shell(
        *("orphans", "stand-in", CUSTOMERS[0], "--person", "李娜", "--until", NEXT_WEEK),
        *("--as", "林晓燕"),
    )
    assert f"李娜 stands in at {CUSTOMERS[0]} for 张伟 until {NEXT_WEEK} 00:00" in said.out
    assert "it is orphaned: 林晓燕 looks after it, 李娜 stands in." in (
        shell("whois", CUSTOMERS[0]).out
    )
    noted = shell("follow-up", CUSTOMERS[0], "已接手", "--as", "李娜").out
    assert f"noted at {CUSTOMERS[0]}\n" in noted
    assert f"who left, until {NEXT_WEEK} (orphaned)" in shell("history", CUSTOMERS[0]).out
    ended = shell("orphans", "end-stand-in", CUSTOMERS[0], "--as", "李娜")
    assert f"李娜 no longer stands in at {CUSTOMERS[0]}" in ended.out
    gone = shell("orphans", "end-stand-in", CUSTOMERS[0], "--as", "李娜", status=1)
    assert "Nobody stands in at" in gone.err
    assert "decided again, each the same to the byte" in shell("verify").out


def test_all_of_one_who_left_at_once(shell: Shell) -> None:
    named = ("orphans", "stand-in", "--of", "张伟", "--person", "李娜", "--until", NEXT_WEEK)
    said = shell(*named, "--yes", "--as", "林晓燕")
    assert said.out.count("李娜 stands in at") == 2
    assert "done: 2" in said.err
    assert [each["orphan"]["stand_in"] is not None for each in shell.json("orphans")] == [True] * 2
    assert shell.json(*named, "--yes", "--as", "王芳") == []


def test_of_several_each_has_its_outcome(shell: Shell) -> None:
    shell("register", "常州远航物流有限公司", "--territory", "华东", "--claim", "--as", "王芳")
    named = ("常州远航物流有限公司", CUSTOMERS[0], "--person", "李娜", "--until", NEXT_WEEK)
    said = shell("orphans", "stand-in", *named, "--yes", "--as", "林晓燕", status=3)
    assert "not_orphaned" in said.out
    assert "done: 1, refused: 1" in said.err


def test_the_head_transfers_with_the_receivers_consent_alone(shell: Shell) -> None:
    asked = shell("transfer", CUSTOMERS[0], "李娜", "--as", "林晓燕")
    assert "the transfer awaits approval in one step; asked: 李娜" in asked.out
    done = shell("approve", CUSTOMERS[0], "--as", "李娜")
    assert "belongs to 李娜, and no longer to 张伟" in done.out
    assert len(shell.json("orphans")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CUSTOMERS[0],), "say --person and --until"),
        (("--person", "李娜", "--until", NEXT_WEEK), "name customers, or say --of whom"),
        ((CUSTOMERS[0], "--of", "张伟", "--person", "李娜", "--until", NEXT_WEEK), "not both"),
        ((CUSTOMERS[0], "--person", "李娜", "--until", "soon"), "'soon' is no day"),
    ],
)
def test_what_cannot_be_meant_names_nobody(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    assert words in shell("orphans", "stand-in", *arguments, "--as", "林晓燕", status=1).err
