"""Figures per territory on the command line."""

from __future__ import annotations

import pytest

from api.cli.figure_commands import lasting
from tests.api.cli.test_commands import BOSS, Shell
from tests.api.cli.test_commands import guishu as guishu  # the fixture

OWNER, OTHER, HEAD = ("--as", "李娜"), ("--as", "王强"), ("--as", "林晓燕")


def test_how_long_approvals_took_and_how_conflicts_ended(guishu: Shell) -> None:
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("people", "add", "林晓燕", "--territory", "华东", "--role", "manager", *BOSS)
    guishu("territories", "change", "华东", "--head", "林晓燕", *BOSS)
    guishu("register", "恒信电子", "--claim", "--territory", "华东", *OWNER)
    guishu("follow-up", "恒信电子", *OTHER)
    guishu("rule", "恒信电子", "keep", *HEAD)
    guishu("deal", "恒信电子", "won", *OTHER)
    guishu("transfer", "恒信电子", "王强", *OWNER)
    guishu("refuse", "恒信电子", *HEAD)
    told = guishu("territories", "figures").out
    for word in ("华东", "refused", "keep 1"):
        assert word in told
    found = guishu.json("territories", "figures")
    (east,) = (each for each in found["territories"] if each["name"] == "华东")
    (took,) = east["approvals"]
    assert (took["outcome"], took["approvals"]) == ("refused", 1)
    assert (east["conflicts_opened"], east["conflicts_open"], east["ruled"]) == (2, 1, {"keep": 1})
    empty = guishu.json("territories", "figures", "--since", "2020-01-01", "--until", "2020-02-01")
    assert (empty["since"], empty["until"]) == ("2020-01-01", "2020-02-01")
    assert {each["conflicts_opened"] for each in empty["territories"]} == {0}


@pytest.mark.parametrize(
    ("period", "says"),
    [
        (("--since", "gestern"), "'gestern' is no day such as 2026-03-01"),
        (("--since", "2026-03-01", "--until", "2026-03-01"), "is not before 2026-03-01"),
        (("--since", "0001-01-01"), "0001-01-01 lies before 1900-01-01"),
        (("--until", "0001-01-02"), "0001-01-02 is not behind 1900-01-01"),
    ],
)
def test_a_period_that_is_none_is_refused(
    guishu: Shell, period: tuple[str, ...], says: str
) -> None:
    assert says in guishu("territories", "figures", *period, status=1).err


def test_the_last_day_that_there_is_may_end_a_period(guishu: Shell) -> None:
    guishu("territories", "figures", "--until", "9999-12-31")


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0, "0 s"), (59, "59 s"), (3_600, "1 h"), (3_700, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_how_long_something_took_is_told_in_two_units(seconds: int, says: str) -> None:
    assert lasting(seconds) == says
