"""Claims from outside the territory on the command line: they await the heads of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.cli.conftest import Office
from tests.api.cli.test_commands import BOSS, Shell, adopt, staff
from tests.support.database import DatabaseUrls

CUSTOMER = "苏州恒信电子有限公司"


def _staffed(shell: Shell, folder: Path) -> None:
    shell("init", "东方智造", "陈建国")
    adopt(shell, folder, "claims_may_await = true")
    staff(shell, "华东", "林晓燕", "张伟")
    staff(shell, "华西", "何大勇", "李娜")
    shell("register", CUSTOMER, "--territory", "华东", *BOSS)


@pytest.fixture
def database(office: Office) -> DatabaseUrls:
    """A free customer of the east, a rep there, and another in the west; both have heads."""
    return office(_staffed)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: DatabaseUrls
) -> Shell:
    return Shell(monkeypatch, capsys, database.superuser_url)


def test_a_claim_from_outside_awaits_both_heads(shell: Shell) -> None:
    checked = shell("claim", CUSTOMER, "--as", "李娜", "--check")
    assert "nothing was recorded; now it would bring" in checked.out
    assert "the claim awaits approval in 2 steps; asked: 林晓燕" in checked.out
    asked = shell("claim", CUSTOMER, "--as", "李娜")
    assert "the claim awaits approval in 2 steps; asked: 林晓燕" in asked.out
    assert "refused: approval_open" in shell("claim", CUSTOMER, "--as", "李娜", status=3).out
    assert "is free" in shell("whois", CUSTOMER).out
    inbox = shell("inbox", "--as", "林晓燕").out
    assert all(each in inbox for each in (CUSTOMER, "claim by 李娜", "head of 华东"))
    assert "claim by 李娜" in shell("transfers", "--open").out
    assert "reminded" in shell("due").out

    assert "step 2 is next; asked: 何大勇" in shell("approve", CUSTOMER, "--as", "林晓燕").out
    granted = shell("approve", CUSTOMER, "--as", "何大勇")
    assert f"granted: {CUSTOMER} belongs to 李娜" in granted.out
    history = shell("history", CUSTOMER).out
    assert "The claim awaits approval in 2 steps; asked: 林晓燕." in history
    assert "李娜 owns the customer." in history
    assert "decided again, each the same to the byte" in shell("verify").out


def test_who_may_claim_it_gets_it_meanwhile(shell: Shell) -> None:
    shell("claim", CUSTOMER, "--as", "李娜")
    granted = shell("claim", CUSTOMER, "--as", "张伟").out
    assert f"granted: {CUSTOMER} belongs to 张伟" in granted
    assert "what awaited approval is void: The customer belongs to somebody else." in granted
    assert "none" in shell("inbox", "--as", "林晓燕").out


def test_whoever_claimed_it_withdraws_it(shell: Shell) -> None:
    shell("claim", CUSTOMER, "--as", "李娜")
    withdrawn = shell("withdraw", CUSTOMER, "--as", "李娜")
    assert "what awaited approval is withdrawn" in withdrawn.out
    assert "is free" in shell("whois", CUSTOMER).out


def test_a_policy_without_steps_for_claims_is_no_policy(shell: Shell, tmp_path: Path) -> None:
    policy = tmp_path / "bad.toml"
    policy.write_text("claims_may_await = true\napproval_rules = []\n", encoding="utf-8")
    said = shell("policy", "adopt", str(policy), *BOSS, status=1)
    assert "claims_may_await needs an approval rule with the purpose claim" in said.err
