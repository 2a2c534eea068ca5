"""Answering a list of what awaits approval: whole or in part, each line with its own outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from ledger.errors import LedgerError
from ledger.recording import Asked, Recorded, Recording
from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import Shell, adopt, staff
from tests.support.database import DatabaseUrls

CUSTOMERS = ("苏州恒信电子有限公司", "无锡明德机械有限公司", "常州远航物流有限公司")


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    adopt(shell, folder, "protection_days = 0")
    staff(shell, "华东", "林晓燕", "张伟", "李娜", "王芳")
    for customer, asks in zip(CUSTOMERS, ("张伟", "张伟", "李娜"), strict=True):
        shell("register", customer, "--territory", "华东", "--claim", "--as", "张伟")
        shell("transfer", customer, "李娜", "--as", asks)


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """A head, three reps, and three customers whose transfers await the head."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def test_all_at_once_each_with_its_outcome(shell: Shell) -> None:
    said = shell("approve", "--all", "--yes", "--as", "林晓燕")
    assert all(each in said.out for each in CUSTOMERS)
    assert said.out.count("step 2 is next; asked: 李娜") == 2
    assert "done: 3" in said.err
    assert "none" in shell("inbox", "--as", "林晓燕").out
    # One was asked for by its receiver, who has accepted by asking.
    assert "belongs to 李娜" in shell("whois", CUSTOMERS[2]).out
    assert len(shell.json("inbox", "--as", "李娜")) == 2
    assert "none" in shell("approve", "--all", "--yes", "--as", "林晓燕").out


def test_only_what_somebody_asked_for_or_what_is_of_a_kind(shell: Shell) -> None:
    shell("collaborate", "ask", CUSTOMERS[0], "--as", "王芳")
    refused = shell.json("refuse", "--all", "--of", "collaboration", "--yes", "--as", "林晓燕")
    assert [each["outcome"] for each in refused] == ["done"]
    said = shell.json("approve", "--all", "--from", "张伟", "--yes", "--as", "林晓燕")
    assert [each["decisions"][0]["agreed"] for each in said] == [True, True]
    (left,) = shell.json("inbox", "--as", "林晓燕")
    assert left["approval"]["purpose"] == "transfer"


def test_several_that_are_named(shell: Shell) -> None:
    said = shell("approve", *CUSTOMERS[:2], CUSTOMERS[0], "--yes", "--as", "林晓燕")
    assert "done: 2" in said.err
    assert len(shell.json("inbox", "--as", "林晓燕")) == 1


def test_a_line_that_does_not_count_hides_none_of_the_others(shell: Shell) -> None:
    shell("approve", CUSTOMERS[0], "--as", "林晓燕")
    told = shell("approve", *CUSTOMERS, "--yes", "--as", "林晓燕", status=3)
    assert "refused: already_answered" in told.out
    assert "done: 2, refused: 1" in told.err
    assert len(shell.json("inbox", "--as", "李娜")) == 2


def test_a_line_that_cannot_be_recorded_hides_none_of_the_others(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LostError(LedgerError):
        code = "lost"

    record_many = Recording.record_many

    def losing(recording: Recording, asked: Any) -> list[Recorded | LedgerError]:
        if len(asked) < 3:
            return record_many(recording, asked)
        first: list[Asked] = [*asked[:1], *asked[2:]]
        one, two = record_many(recording, first)
        return [one, LostError("It was lost.", way_out="Answer it again."), two]

    monkeypatch.setattr(Recording, "record_many", losing)
    told = shell("approve", "--all", "--yes", "--as", "林晓燕", status=3)
    assert "not recorded: lost: It was lost." in told.out
    assert "done: 2, not recorded: 1" in told.err
    (left,) = shell.json("inbox", "--as", "林晓燕")
    told = shell("refuse", "--all", "--yes", "--json", "--as", "林晓燕")
    assert left["approval"]["approval"] in told.out


def test_the_same_id_again_gives_the_first_answers(shell: Shell) -> None:
    named = ("approve", *CUSTOMERS[:2], "--yes", "--as", "林晓燕", "--request-id", "monday")
    first, again = shell.json(*named), shell.json(*named)
    assert [each["positions"] for each in first] == [each["positions"] for each in again]
    assert all(each["repeated"] for each in again)


def test_who_does_not_agree_to_the_list_answers_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no(question: str, *, abort: bool) -> None:
        asked.append(question)
        raise typer.Abort

    monkeypatch.setattr(typer, "confirm", no)
    said = shell("approve", "--all", "--as", "林晓燕", status=1)
    assert asked == ["Are these 3 to be approved?"]
    assert all(each in said.out for each in CUSTOMERS)
    assert len(shell.json("inbox", "--as", "林晓燕")) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name what you answer, or say --all"),
        (("--all", CUSTOMERS[0]), "it is said, and something is named as well"),
        ((CUSTOMERS[0], "--of", "transfer"), "--of and --from choose among --all"),
        (("--all", "--of", "handover"), "'handover' is none of transfer, release"),
        (("--all", "--from", "谁"), "There is no person 谁"),
        (("--all", "--json"), "with --json nobody can be asked: say --yes as well"),
        ((CUSTOMERS[0], "某公司", "--yes"), "There is no customer 某公司"),
    ],
)
def test_what_cannot_be_meant_answers_nothing(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    assert words in shell("approve", *arguments, "--as", "林晓燕", status=1).err
    assert len(shell.json("inbox", "--as", "林晓燕")) == 3
