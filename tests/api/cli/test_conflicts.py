"""Conflicts on the command line: seen, listed with their evidence, ruled on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.cli.test_commands import BOSS, Shell, adopt
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


def test_a_group_is_divided_seen_before_and_ruled_on_at_its_root(ours: Shell) -> None:
    ours("register", "鼎恒集团", *OWNER)
    for name in ("上海分公司", "杭州分公司"):
        ours("register", name, "--parent", "鼎恒集团", "--territory", "华东", *OWNER)
    ours("claim", "上海分公司", *OWNER)
    check = ours("claim", "杭州分公司", "--check", *OTHER).out
    seen = "a conflict of 李娜 and 王强 in the group of 鼎恒集团: members of one group under"
    assert seen in check
    assert ours.json("conflicts") == []
    said = ours("claim", "杭州分公司", *OTHER).out
    assert seen in said
    assert "asked to rule: 林晓燕" in said
    (waiting,) = ours.json("inbox", *HEAD)
    assert waiting["conflict"]["kind"] == "group"

    listed = ours("conflicts", "--evidence", "--kind", "group").out
    assert "杭州分公司: 王强 claimed the customer." in listed
    for member in ("1  李娜: 上海分公司", "1  王强: 杭州分公司"):
        assert member in listed
    (row,) = ours.json("conflicts", "--evidence")
    assert len(row["members"]) == 2

    refused = ours("rule", "鼎恒集团", "award", "--to", "王强", *HEAD, status=3)
    assert "A group goes to nobody as a whole" in refused.out
    assert "ruled by 林晓燕: allow" in ours("rule", "鼎恒集团", "allow", *HEAD).out
    ours("register", "南京分公司", "--parent", "鼎恒集团", "--claim", "--territory", "华东", *OTHER)
    assert ours.json("conflicts", "--open") == []
    told = "A conflict of 李娜 and 王强: members of one group"
    assert told in ours("history", "鼎恒集团").out
    # Whoever asks about a branch hears of the group's conflict as well.
    of_a_branch = ours("history", "上海分公司").out
    assert told in of_a_branch
    assert "(in the group of 鼎恒集团)" in of_a_branch
    for name in ("上海分公司", "鼎恒集团"):
        assert len(ours.json("conflicts", "--customer", name)) == 1
    assert "the enforcer's guards are what the log makes of them" in ours("verify").out


def test_who_enters_a_customer_again_is_told_of_the_conflict(ours: Shell) -> None:
    number = ("--identifier", "uscc=91350100M000100Y43")
    ours("change", "恒信电子", *number, *OWNER)
    said = ours("register", "恒信电子公司", *number, *OTHER, status=3).out
    assert "refused: identifier_taken" in said
    assert "a conflict of 李娜 and 王强 at 恒信电子: the same identifier entered again" in said
    assert "恒信电子公司" in ours("conflicts", "--evidence").out


def test_groups_that_were_split_unseen_are_reviewed(ours: Shell, tmp_path: Path) -> None:
    adopt(ours, tmp_path, "conflict_kinds = []")
    for root in ("鼎恒集团", "远大集团"):
        ours("register", root, *OWNER)
        for place, owner in (("上海", OWNER), ("杭州", OTHER)):
            name = f"{root}{place}分公司"
            ours("register", name, "--parent", root, "--territory", "华东", *OWNER)
            ours("claim", name, *owner)
    adopt(ours, tmp_path, 'conflict_kinds = ["group"]')
    assert "review_needs_head" in ours("review", "鼎恒集团", *OWNER, status=3).out
    assert "name one, or say --all" in ours("review", *HEAD, status=1).err
    said = ours("review", "鼎恒集团上海分公司", *BOSS).out
    assert "a conflict of 李娜 and 王强 in the group of 鼎恒集团" in said
    unasked = ours("review", "--all", *BOSS, "--json", status=1).err
    assert "with --json nobody can be asked" in unasked
    (outcome,) = ours.json("review", "--all", "--yes", *BOSS)
    assert outcome["outcome"] == "done"
    assert len(ours.json("conflicts", "--open")) == 2
    assert ours.json("review", "--all", "--yes", *BOSS) == []
    told = ours("history", "鼎恒集团上海分公司").out
    assert "asked whether the customer's group is under several owners" in told
    assert "has the group of 鼎恒集团上海分公司 reviewed" in ours("events", "--limit", "500").out
