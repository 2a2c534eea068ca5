"""Commands about collaborators, from what somebody types to what is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.api.cli.test_commands import BOSS, Shell
from tests.api.cli.test_commands import guishu as guishu  # the fixture

OWNER, OTHER = ("--as", "李娜"), ("--as", "王强")


@pytest.fixture
def ours(guishu: Shell) -> Shell:
    """李娜 owns a customer; 王强 is of the same territory."""
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("register", "恒信电子", "--claim", "--territory", "华东", *OWNER)
    return guishu


def test_somebody_is_added_follows_up_and_is_no_longer_needed(ours: Shell) -> None:
    until = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    said = ours(
        "collaborate", "add", "恒信电子", "王强", "--share", "12.5", "--until", until, *OWNER
    )
    assert "王强 collaborates at 恒信电子 from " in said.out
    assert f" until {until} 00:00, 12.5 % of the credit" in said.out
    assert "(The follow-up" not in ours("follow-up", "恒信电子", "一起拜访", *OTHER).out
    (row,) = ours.json("collaborate", "list", "--customer", "恒信电子")
    assert (row["status"], row["share"], row["role"]) == ("standing", "12.5", "collaborator")
    listed = ours("collaborate", "list", "--person", "王强", "--ids").out
    assert row["collaboration"] in listed
    assert "12.5 %" in listed

    said = ours("collaborate", "end", "恒信电子", "王强", *OWNER)
    assert "王强 no longer collaborates at 恒信电子" in said.out
    assert "collaborators: none" in ours("collaborate", "list").out
    assert "ended" in ours("collaborate", "list", "--all").out
    told = ours("history", "恒信电子").out
    assert f"until {until} 00:00" in told
    assert "王强 no longer collaborates (ended)." in told


def test_one_that_begins_later_is_listed_as_one_that_will(ours: Shell) -> None:
    begin = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    ours("collaborate", "add", "恒信电子", "王强", "--from", begin, *OWNER)
    assert "to begin" in ours("collaborate", "list").out
    (row,) = ours.json("collaborate", "list")
    assert (row["status"], row["status_now"]) == ("standing", "to begin")


def test_somebody_asks_and_is_answered(ours: Shell) -> None:
    asked = ours("collaborate", "ask", "恒信电子", "--role", "presales", *OTHER)
    assert "the collaboration awaits approval in one step; asked: 陈建国, 李娜" in asked.out
    assert "王强 beside 李娜" in ours("inbox", *OWNER).out
    assert "王强 beside 李娜" in ours("transfers", "--open").out
    said = ours("collaborate", "answer", "恒信电子", "王强", "--agree", *OWNER)
    assert "王强 collaborates at 恒信电子" in said.out
    refused = ours("collaborate", "ask", "恒信电子", *OTHER, status=3)
    assert "already_collaborates" in refused.out


def test_several_things_may_await_an_answer_at_one_customer(ours: Shell) -> None:
    ours("collaborate", "ask", "恒信电子", *OTHER)
    ours("transfer", "恒信电子", "王强", *OWNER)
    said = ours("approve", "恒信电子", *BOSS, status=1)
    assert "Several things at 恒信电子 await approval." in said.err
    said = ours("collaborate", "answer", "恒信电子", "王强", "--refuse", *OWNER)
    assert "does not agree" in said.out


def test_who_or_what_is_unknown_gets_a_clear_error(ours: Shell) -> None:
    said = ours("collaborate", "end", "恒信电子", "王强", *OWNER, status=1)
    assert "王强 is nobody who collaborates at 恒信电子." in said.err
    said = ours("collaborate", "add", "恒信电子", "王强", "--share", "101", *OWNER, status=1)
    assert said.err.startswith("invalid_request: share")
    said = ours("collaborate", "add", "恒信电子", "王强", "--until", "soon", *OWNER, status=1)
    assert "is no day such as" in said.err
    said = ours("transfer", "恒信电子", "王强", "--collaborators", "drop", *OWNER, status=1)
    assert "collaborators" in said.err
