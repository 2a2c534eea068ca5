"""Transfers on the command line: asked for, answered by whom they wait for, shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import BOSS, Shell
from tests.support.database import DatabaseUrls

CUSTOMER = "苏州恒信电子有限公司"


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    shell("territories", "define", "华东", *BOSS)
    for person, role in (("林晓燕", "manager"), ("张伟", "rep"), ("李娜", "rep")):
        shell("people", "add", person, "--territory", "华东", "--role", role, *BOSS)
    shell("territories", "change", "华东", "--head", "林晓燕", *BOSS)
    shell("register", CUSTOMER, "--territory", "华东", "--claim", "--as", "张伟")


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """A ledger with a head, two reps, and a customer that one of them owns."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def _listed(shell: Shell, *arguments: str) -> Any:
    return json.loads(shell(*arguments, "--json").out)


def test_a_transfer_from_the_question_to_the_new_owner(shell: Shell) -> None:
    asked = shell("transfer", CUSTOMER, "李娜", "--as", "张伟", "--value", "88000 CNY")
    assert "the transfer awaits approval in 2 steps; asked: 林晓燕" in asked.out
    assert "step 1 of 2 awaits 林晓燕" in shell("transfers", "--open").out
    inbox = shell("inbox", "--as", "林晓燕").out
    assert all(each in inbox for each in (CUSTOMER, "张伟 → 李娜, 88000 CNY", "head of 华东"))
    (waiting,) = _listed(shell, "inbox", "--as", "林晓燕")
    assert waiting["asked_as"] == ["head of 华东"]

    early = shell("approve", CUSTOMER, "--as", "李娜", status=3)
    assert "refused: not_your_turn" in early.out
    first = shell("approve", waiting["approval"]["approval"], "--as", "林晓燕", "--comment", "好")
    assert "step 2 is next; asked: 李娜" in first.out
    last = shell("approve", CUSTOMER, "--as", "李娜")
    assert f"transferred: {CUSTOMER} belongs to 李娜, and no longer to 张伟" in last.out
    assert "belongs to 李娜" in shell("whois", CUSTOMER).out
    assert "(comment: 好)" in shell("history", CUSTOMER).out
    assert "none" in shell("inbox", "--as", "李娜").out
    (ended,) = _listed(shell, "transfers", "--ended", "--customer", CUSTOMER)
    assert ended["outcome"] == "completed"
    assert "decided again, each the same to the byte" in shell("verify").out


@pytest.mark.parametrize("command", ["approve", "refuse", "withdraw"])
def test_an_id_of_nothing_is_told_as_such(shell: Shell, command: str) -> None:
    """It was said that there is no such customer, and where customers are listed."""
    told = shell(command, "trf_nothing", "--as", "林晓燕", status=1).err
    assert "not_found: Nothing of the id trf_nothing awaits approval, or ever did." in told
    assert (
        "There is no customer 无此公司"
        in shell(command, "无此公司", "--as", "林晓燕", status=1).err
    )
    assert "U+0000" in shell(command, "trf_\0", "--as", "林晓燕", status=1).err


def test_refusing_withdrawing_and_what_is_not_there(shell: Shell) -> None:
    nothing = shell("approve", CUSTOMER, "--as", "林晓燕", status=1)
    assert "not_found: Nothing at 苏州恒信电子有限公司 awaits approval." in nothing.err
    shell("transfer", CUSTOMER, "李娜", "--as", "张伟")
    withdrawn = shell("withdraw", CUSTOMER, "--as", "张伟", "--reason", "改主意")
    assert "what awaited approval is withdrawn" in withdrawn.out
    shell("transfer", CUSTOMER, "李娜", "--as", "张伟")
    refused = shell("refuse", CUSTOMER, "--as", "林晓燕", "--reason-code", "not_now")
    assert "step 1: 林晓燕 does not agree" in refused.out
    assert "what awaited approval is refused: An approver did not agree." in refused.out
    again = shell("transfer", CUSTOMER, "张伟", "--as", "张伟", status=3)
    assert "refused: already_yours" in again.out
    table = shell("transfers", "--ids").out
    assert table.count("trf_") == 3
    assert "older ones: --before" in shell("transfers", "--limit", "1").err
