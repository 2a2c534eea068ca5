"""Conflicts on the command line: seen, listed with their evidence, ruled on."""

from __future__ import annotations

import pytest

from tests.api.cli.test_commands import BOSS, Shell
from tests.api.cli.test_commands import guishu as guishu  # the fixture

OWNER, OTHER, HEAD = ("--as", "李娜"), ("--as", "王强"), ("--as", "林晓燕")


@pytest.fixture
def ours(guishu: Shell) -> Shell:
    """李娜 owns a customer; 王强 is of the same territory, which 林晓燕 heads."""
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("people", "add", "林晓燕", "--territory", "华东", "--role", "manager", *BOSS)
    guishu("territories", "change", "华东", "--head", "林晓燕", *BOSS)
    guishu("register", "恒信电子", "--claim", "--territory", "华东", *OWNER)
    return guishu


def test_a_conflict_from_the_follow_up_to_the_new_owner(ours: Shell) -> None:
    said = ours("follow-up", "恒信电子", "他们先找的我", *OTHER)
    assert "a conflict of 李娜 and 王强: a follow-up by somebody else" in said.out
    assert "asked to rule: 林晓燕" in said.out
    assert "one more proof" in ours("follow-up", "恒信电子", *OTHER).out
    (waiting,) = ours.json("inbox", *HEAD)
    conflict = waiting["conflict"]["conflict"]
    assert "awaits the ruling of 林晓燕" in ours("inbox", *HEAD).out
    assert "awaits the ruling" not in ours("inbox", *OWNER).out
    listed = ours("conflicts", "--evidence", "--ids", "--party", "王强").out
    assert conflict in listed
    assert "awaits 林晓燕" in listed
    assert "(note: 他们先找的我)" in listed
    (row,) = ours.json("conflicts", "--open", "--evidence")
    assert [each["event"] for each in row["evidence"]] == ["FollowUpLogged"] * 2

    soon = ours("due", "--ids").out
    assert "ruling reminded" in soon
    assert "林晓燕" in soon
    assert conflict in soon

    early = ours("rule", conflict, "award", "--to", "王强", *OWNER, status=3)
    assert "refused: own_cause. Nobody judges a cause of their own." in early.out
    ruled = ours("rule", "恒信电子", "award", "--to", "王强", "--reason", "先联系", *HEAD)
    assert "ruled by 林晓燕: award to 王强" in ruled.out
    assert "asked: 王强" in ruled.out
    assert "belongs to 王强" in ours("approve", "恒信电子", *OTHER).out
    assert "award to 王强 by 林晓燕 (ruled)" in ours("conflicts", "--ended").out
    told = ours("history", "恒信电子").out
    assert "林晓燕 ruled that the customer goes to 王强 (ruled). (reason: 先联系)" in told
    assert "decided again, each the same to the byte" in ours("verify").out


def test_a_split_lets_the_other_collaborate(ours: Shell) -> None:
    ours("deal", "恒信电子", "won", *OTHER)
    said = ours("rule", "恒信电子", "split", "--part", "王强=30%", *HEAD)
    assert "王强 collaborates at 恒信电子" in said.out
    assert "30 % of the credit" in said.out
    assert ours.json("conflicts", "--kind", "deal", "--customer", "恒信电子")[0]["asked"] == []


def test_what_cannot_be_ruled_on_gets_a_clear_error(ours: Shell) -> None:
    said = ours("rule", "恒信电子", "keep", *HEAD, status=1)
    assert "No conflict at 恒信电子 awaits a ruling." in said.err
    ours("deal", "恒信电子", "won", *OTHER)
    ours("follow-up", "恒信电子", *OTHER)
    said = ours("rule", "恒信电子", "keep", *HEAD, status=1)
    assert "several are open; name one of cft_" in said.err
    conflict = ours.json("conflicts", "--kind", "deal")[0]["conflict"]["conflict"]
    for arguments, says in (
        (("award",), "a receiver is named for the ruling award"),
        (("keep", "--to", "王强"), "a receiver is named for the ruling award"),
        (("split",), "parts are named for the ruling split"),
        (("split", "--part", "王强", "--part", "王强"), "a person is named twice"),
        (("split", "--part", "王强=many"), "parts"),
        (("punish",), "ruling"),
    ):
        assert says in ours("rule", conflict, *arguments, *HEAD, status=1).err
    said = ours("release", "恒信电子", *OWNER)
    assert "the conflict is gone: The ownership ended in another way meanwhile." in said.out
    assert "older ones: --before" in ours("conflicts", "--limit", "1").err
