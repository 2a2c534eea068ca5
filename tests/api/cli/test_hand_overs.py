"""Hand-overs on the command line: ordered, foretold, shown, answered as a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import Shell, staff
from tests.support.database import DatabaseUrls

CUSTOMERS = ["苏州恒信电子有限公司", "无锡华润机械有限公司", "常州天合光能有限公司"]
HEAD = ("--as", "林晓燕")


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    staff(shell, "华东", "林晓燕", "张伟", "李娜", "王强")
    for name in CUSTOMERS:
        shell("register", name, "--territory", "华东", "--claim", "--as", "张伟")


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """A ledger with a head, three reps, and three customers that one of them owns."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def _said(shell: Shell, *arguments: str, status: int = 0) -> Any:
    return json.loads(shell(*arguments, "--json", status=status).out)


def test_from_the_order_to_the_last_answer(shell: Shell) -> None:
    """What was foretold named no customers, and the list said for ever what waited at first."""
    foretold = shell("hand-over", "张伟", "--to", "李娜", *HEAD, "--check")
    assert "nothing was recorded" in foretold.out
    assert all(name in foretold.out for name in CUSTOMERS)
    assert "0 moved, 3 await approval" in foretold.out
    assert "hand-overs: none" in shell("hand-overs").out

    ordered = shell("hand-over", "张伟", "--to", "李娜", *HEAD, "--reason", "调岗")
    assert "0 moved, 3 await approval" in ordered.out
    assert "(hand_over: 调岗)" in ordered.out
    assert "Steps that await 张伟 are not moved" in ordered.out
    assert all(name in ordered.out for name in CUSTOMERS)
    ((row),) = _said(shell, "hand-overs", "--giver", "张伟")
    name = row["hand_over"]
    assert name.startswith("hov_")
    assert name in shell("hand-overs").out

    (entry,) = _said(shell, "inbox", "--as", "李娜")
    assert (entry["hand_over"]["hand_over"], entry["lines"]) == (name, 3)
    assert entry["asked_as"] == ["receiver"]
    assert entry["next"]["kind"] == "step_reminder"
    shown = shell("inbox", "--as", "李娜").out
    assert "3 customers" in shown
    assert "张伟 → 李娜" in shown

    shell("refuse", CUSTOMERS[1], "--as", "李娜")
    assert _said(shell, "hand-overs")[0]["waiting_now"] == 2
    answered = shell("approve", "--hand-over", name, "--as", "李娜", "--comment", "好", "--yes")
    assert "2 lines answered; by now: customer moved 2, customer refused 1" in answered.out
    assert "belongs to 李娜" in shell("whois", CUSTOMERS[0]).out
    assert "belongs to 张伟" in shell("whois", CUSTOMERS[1]).out
    receipt = _said(shell, "hand-overs", "--receipt", name, "--outcome", "refused")
    assert receipt["counts"] == {"customer moved": 2, "customer refused": 1}
    assert [line["reason"] for line in receipt["lines"]] == ["step_refused"]
    assert _said(shell, "hand-overs")[0]["waiting_now"] == 0
    assert "handed over to 李娜" in shell("people", "holdings", "张伟", "--history").out
    assert "by a hand-over" in shell("history", CUSTOMERS[0]).out
    assert "(comment: 好)" in shell("history", CUSTOMERS[0]).out
    again = shell("approve", "--hand-over", name, "--as", "李娜", status=1)
    assert "No line of" in again.err
    assert "decided again, each the same to the byte" in shell("verify").out
    told = shell("events", "--limit", "500").out
    assert "林晓燕 hands over from 张伟 to 李娜" in told
    assert "handed over from 张伟: 0 moved, 3 await approval" in told


def test_all_lines_are_refused_at_once(shell: Shell) -> None:
    shell("hand-over", "张伟", "--to", "李娜", *HEAD)
    (row,) = _said(shell, "hand-overs")
    said = _said(
        shell,
        *("refuse", "--hand-over", row["hand_over"], "--as", "李娜"),
        *("--reason-code", "full", "--yes"),
    )
    assert (said["answered"], said["counts"]) == (3, {"customer refused": 3})


def test_a_chosen_part_is_spread_over_several(shell: Shell) -> None:
    shell("hand-over", "张伟", "--to", "李娜", "--to", "王强", *HEAD, "--territory", "华东")
    (row,) = _said(shell, "hand-overs")
    assert row["plan"] == "spread"
    lines = _said(shell, "hand-overs", "--receipt", row["hand_over"], "--ids")["lines"]
    assert len({line["receiver"] for line in lines}) == 2
    one = shell("hand-over", "张伟", "--to", "李娜", *HEAD, "--customer", CUSTOMERS[0])
    assert "1 await approval" in one.out
    assert "are not moved" not in one.out, "it is of this customer alone"
    none = shell("hand-over", "张伟", "--to", "李娜", *HEAD, "--where", "grade=key")
    assert "0 moved" in none.out
    page = shell("hand-overs", "--receipt", row["hand_over"], "--limit", "1", "--ids")
    assert "more: --after" in page.err
    assert "older ones: --before" in shell("hand-overs", "--limit", "1").err


def test_what_is_refused_and_what_is_wrong(shell: Shell) -> None:
    refused = shell("hand-over", "张伟", "--to", "李娜", "--as", "李娜", status=3)
    assert "refused: own_cause" in refused.out
    assert "Nobody judges a cause of their own." in refused.out
    foretold = shell("hand-over", "张伟", "--to", "李娜", "--as", "王强", "--check", status=3)
    assert "refused: not_above_giver" in foretold.out
    assert _said(shell, "hand-over", "张伟", "--to", "李娜", "--as", "王强", "--check", status=3)[
        "outcome"
    ]["reason"] == ("not_above_giver")
    itself = shell("hand-over", "张伟", "--to", "张伟", *HEAD, status=1)
    assert "the giver cannot be a receiver" in itself.err
    assert "ATTRIBUTE=VALUE" in shell(
        "hand-over", "张伟", "--to", "李娜", *HEAD, "--where", "key", status=1
    ).err  # fmt: skip
    assert "There is no hand-over hov_9" in shell("hand-overs", "--receipt", "hov_9", status=1).err
    assert (
        "There is no hand-over hov_9"
        in shell("approve", "--hand-over", "hov_9", *HEAD, status=1).err
    )
    both = shell("approve", CUSTOMERS[0], "--hand-over", "hov_9", *HEAD, status=1)
    assert "name nothing besides" in both.err


def test_it_can_be_read_on_eighty_columns(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the id there were six columns of a few characters each."""
    shell("hand-over", "张伟", "--to", "李娜", *HEAD)
    (row,) = _said(shell, "hand-overs")
    receipt = ("hand-overs", "--receipt", row["hand_over"])
    lines = _said(shell, *receipt)["lines"]
    monkeypatch.setenv("COLUMNS", "80")
    listed, shown, with_ids = (
        shell(*each).out for each in (("hand-overs",), receipt, (*receipt, "--ids"))
    )
    assert row["hand_over"] in listed
    assert all(words in listed for words in ("张伟 → 李娜", "by 林晓燕 on 20", "3 wait by now"))
    assert all(name in shown and name in with_ids for name in CUSTOMERS)
    assert all(line["approval"] in with_ids for line in lines)
    assert "waiting, is to go to 李娜" in shown
    tables = [line for line in f"{listed}{shown}{with_ids}".splitlines() if line[:1] in "┏┃│└"]
    assert {cell_len(line) <= 80 for line in tables} == {True}


def test_an_option_of_receipts_says_so_where_none_is_named(shell: Shell) -> None:
    """--outcome and --after were ignored, and the list seemed to be what had been asked for."""
    for option, value in (("--outcome", "moved"), ("--after", "0")):
        said = shell("hand-overs", option, value, status=1).err
        assert f"{option} is of a receipt" in said
        assert "Say --receipt and an id" in said
    for option, value in (("--giver", "张伟"), ("--before", "9")):
        said = shell("hand-overs", "--receipt", "hov_9", option, value, status=1).err
        assert f"Leave {option} or --receipt out." in said


def test_who_is_not_sure_answers_nothing(shell: Shell) -> None:
    shell("hand-over", "张伟", "--to", "李娜", *HEAD)
    (row,) = _said(shell, "hand-overs")
    unasked = shell("approve", "--hand-over", row["hand_over"], "--as", "李娜", "--json", status=1)
    assert "say --yes as well" in unasked.err
    counts = _said(shell, "hand-overs", "--receipt", row["hand_over"])["counts"]
    assert counts == {"customer waiting": 3}
